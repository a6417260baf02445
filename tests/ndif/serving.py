"""Starts a loopback server, and a handle on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
import pytest

KEY = "5ca1ab1e-0000-4000-8000-00000000feed"
NAME = "nnsteer/organism"


@dataclass(frozen=True)
class Loopback:
    """A running server, seen from a test."""

    url: str
    model_key: str
    """What nnsight calls the model to the server."""
    name: str = NAME
    key: str = field(default=KEY, repr=False)

    def plan(self, *faults: str | dict) -> None:
        """Sets the script of faults: kinds, or whole lines (loopback/faults.py)."""
        lines = [{"kind": fault} if isinstance(fault, str) else fault for fault in faults]
        httpx.put(f"{self.url}/faults", json=lines).raise_for_status()

    def jobs(self) -> list[dict]:
        """The jobs since the last reset."""
        return httpx.get(f"{self.url}/log").json()

    def calls(self, path: str = "") -> list[dict]:
        """The HTTP calls since the last reset, to paths that begin so."""
        return [
            call for call in httpx.get(f"{self.url}/calls").json() if call["path"].startswith(path)
        ]

    def reset(self) -> None:
        """No faults, an empty log."""
        for path in ("faults", "log"):
            httpx.delete(f"{self.url}/{path}").raise_for_status()


@contextmanager
def serving(folder: Path, mode: str, *options: str) -> Iterator[Loopback]:
    """A server of its own for the model in `folder`."""
    if mode == "sandbox":
        require_ndif()
    command = [
        sys.executable,
        "-m",
        "loopback",
        "--model",
        str(folder),
        "--name",
        NAME,
        "--mode",
        mode,
        "--key",
        KEY,
        *options,
    ]
    env = {name: value for name, value in os.environ.items() if not name.startswith("NDIF")} | {
        "OMP_NUM_THREADS": "1"
    }
    # it ends when its input does, be it by our own death
    pipes = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "cwd": Path(__file__).parent,
        "env": env,
        "text": True,
    }
    with subprocess.Popen(command, **pipes) as process:
        try:
            ready = process.stdout.readline()
            if not ready:
                raise RuntimeError(
                    f"the loopback server ended with {process.wait()} before it was ready"
                )
            yield Loopback(**json.loads(ready))
        finally:
            process.kill()


def require_ndif() -> None:
    """Skips where the real runner is not there."""
    try:
        version("ndif")
    except PackageNotFoundError:
        pytest.skip(
            "needs the PyPI package ndif (pip install --no-deps --ignore-requires-python "
            "ndif==0.1.2)"
        )
