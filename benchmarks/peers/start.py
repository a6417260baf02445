"""This side of the peers: which there are, where their environments lie, and rounds of work in
their processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.measure import Subject
from benchmarks.peers.driver import Job

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "nnsteer" / "peers"
PEERS = {  # with what clashes with nnsteer's environment, on which theirs stand
    "repeng": ("repeng==0.4.0", "numpy==1.26.4"),
    "steering-vectors": ("steering-vectors==0.12.2", "transformers==4.57.6"),
    "pyvene": ("pyvene==0.1.8",),
}


@dataclass(frozen=True)
class Peer:
    """A warmed-up process, and what it made in its first rounds: by round, tensors by name."""

    process: subprocess.Popen
    made: Mapping[str, dict[str, Tensor]]

    def subject(self, name: str) -> Subject:
        """One of its rounds, timed in its own process."""

        def once() -> float:
            print(name, file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())["seconds"]

        return once


@contextmanager
def started(
    job: Job, tensors: Mapping[str, Tensor], names: tuple[str, ...] = tuple(PEERS)
) -> Iterator[dict[str, Peer | None]]:
    """Starts the peers on a job, one after the other; None for those that are not installed or
    fail."""
    with TemporaryDirectory() as at, ExitStack() as processes:
        folder = Path(at)
        (folder / "job.json").write_text(json.dumps(asdict(job)))
        save_file(dict(tensors), folder / "tensors.safetensors")
        yield {name: start(name, folder, processes) for name in names}


def start(name: str, folder: Path, processes: ExitStack) -> Peer | None:
    """Starts one peer and waits until it is warm."""
    interpreter = python_of(name)
    if not interpreter.exists():
        return None
    errors = folder / f"{name}.log"
    process = processes.enter_context(
        subprocess.Popen(
            [interpreter, "-m", f"benchmarks.peers.{name.replace('-', '_')}", folder],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors.open("w"), text=True,
        )
    )  # fmt: skip
    processes.callback(process.kill)
    line = process.stdout.readline()
    if not line:
        print(f"{name} failed:\n{errors.read_text()[-2000:]}", file=sys.stderr)
        return None
    return Peer(
        process,
        {
            made: load_file(folder / f"{name}-{made}.safetensors")
            for made in json.loads(line)["rounds"]
        },
    )


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment."""
    return CACHE / name / "bin" / "python"
