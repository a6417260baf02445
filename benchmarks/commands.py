"""Whole commands in processes of their own: how soon the command line answers, and the refusal
recipe's default run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import Measured, paired, timed
from benchmarks.models import Settings

RUNS = 3  # of the recipe
NNSTEER = (sys.executable, "-m", "nnsteer")


def start_up(settings: Settings) -> Iterator[Measured]:
    """Help texts, and the interpreter's own start."""
    commands = {
        "python": (sys.executable, "-c", "pass"),
        "import nnsteer": (sys.executable, "-c", "import nnsteer"),
        "nnsteer --help": (*NNSTEER, "--help"),
        "nnsteer fit --help": (*NNSTEER, "fit", "--help"),
    }
    subjects = {
        name: timed(partial(execute, command, settings)) for name, command in commands.items()
    }
    yield paired("start-up", "", "s", subjects, settings.rounds)


def refusal(settings: Settings) -> Iterator[Measured]:
    """From start to report, with the defaults, each time in a new folder."""

    def once() -> None:
        with TemporaryDirectory() as at:
            execute((*NNSTEER, "recipe", "refusal", "--out", str(Path(at) / "run")), settings)

    yield Measured(
        "refusal recipe, default run",
        "organism",
        "s",
        {"nnsteer": [timed(once)() for _ in range(RUNS)]},
    )


def execute(command: tuple[str, ...], settings: Settings) -> None:
    """Runs a command silently. Raises CalledProcessError where it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(settings.threads)}
    subprocess.run(command, check=True, capture_output=True, env=environment)
