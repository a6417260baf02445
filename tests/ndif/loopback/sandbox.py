"""Sandbox mode: the block runs in NDIF's runner, a fresh process with a weightless model; the
forward pass runs here."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ndif.services.ray.sandbox.driver import RunnerError, SandboxDriver
from ndif.services.ray.sandbox.host import Connection, runner_env
from nnsight import TransformersModel
from nnsight.schema.request import RequestModel

from loopback.inside import Log, Told


def start(folder: Path, hidden: Iterable[str]) -> str:
    """Starts the process that forks the runners; returns its socket's path. It ends with this
    one."""
    path = f"{tempfile.mkdtemp(prefix='ndif-')}/runner.sock"
    command = [
        sys.executable,
        str(Path(__file__).with_name("runner.py")),
        path,
        str(folder),
        *hidden,
    ]
    env = runner_env() | {
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    process = subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise RuntimeError(f"the sandbox runner did not start ({process.wait()})")
    return path


def execute(
    model: TransformersModel, path: str, request: RequestModel, blob: bytes, log: Log
) -> bytes:
    """Runs one request as NDIF's model actor does; the saved values, packed."""
    connection = Connection.open(path)
    try:
        connection.send((blob, request.compress, str(model._module.dtype), None, request.env))
        return SandboxDriver(model, model._module.dtype, on_log=log).pump(connection)[0]
    except RunnerError as error:
        raise Told(str(error)) from error
    finally:
        connection.close()
