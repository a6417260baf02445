"""How fast nnsteer is, and how much memory it takes, beside plain transformers and other libraries
in the same run.

    python -m benchmarks.peers                            # once: environments of the other libraries; without, they are missing
    python -m benchmarks.run                              # everything
    python -m benchmarks.run extraction sweep --models organism --json speed.json

Every round runs all subjects of a work in turn, after one to warm up; the table has medians over
the rounds, and the median of each round's ratio to the work's first subject. Nothing else should
run on the machine. Sizes of --quick are for trying out the code; their figures mean nothing.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import tyro
from transformers.utils import logging

from benchmarks.commands import refusal, start_up
from benchmarks.extraction import early_stop, extraction, mixed_lengths
from benchmarks.generation import conditional, unconditional
from benchmarks.measure import Measured, rows, table
from benchmarks.memory import memory
from benchmarks.models import MODELS, Settings
from benchmarks.peers.start import PEERS, python_of
from benchmarks.search import search
from benchmarks.sweep import sweep

Work = Callable[[Settings], Iterator[Measured]]
WORKS: Mapping[str, Work] = {
    "extraction": extraction,
    "mixed-lengths": mixed_lengths,
    "early-stop": early_stop,
    "search": search,
    "conditional": conditional,
    "unconditional": unconditional,
    "sweep": sweep,
    "memory": memory,
    "start-up": start_up,
    "refusal": refusal,
}
QUICK = Settings(
    rounds=2, pairs=32, mixed_pairs=32, searched=64, asked=(8, 16), new_tokens=4, strengths=2, sweep_prompts=4,
    prompts_read=(128, 256),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What to measure."""

    works: Annotated[tuple[str, ...], tyro.conf.Positional] = tuple(WORKS)
    models: tuple[str, ...] = MODELS
    rounds: int | None = None
    threads: int = 2
    quick: bool = False
    """Small sizes, whose figures are not for quoting."""
    json: Path | None = None
    """Where to write the rows."""


def main(config: Config) -> None:
    """Prints the machine, a table per work as soon as it is done, and writes all rows."""
    for given, known in ((config.works, WORKS), (config.models, MODELS)):
        if unknown := [name for name in given if name not in known]:
            raise SystemExit(
                f"{', '.join(unknown)}: no such work or model; there are {', '.join(known)}"
            )
    sizes = QUICK if config.quick else Settings()
    settings = replace(
        sizes, models=config.models, threads=config.threads, rounds=config.rounds or sizes.rounds
    )
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(settings.threads)
    print(f"{machine(settings)}\n{versions()}\n")
    found: list[dict] = []
    for work in config.works:
        own = [row for measured in WORKS[work](settings) for row in rows(measured)]
        print(f"{table(own)}\n", flush=True)
        found += own
        if config.json is not None:
            config.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def machine(settings: Settings) -> str:
    """The processor, its cores, and what else it is busy with."""
    info = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    name = named[1] if named else platform.processor()
    return f"{name}, {os.cpu_count()} cores, {settings.threads} threads, load {os.getloadavg()[0]:.1f}, {platform.platform()}"


def versions() -> str:
    """What is measured."""
    own = [f"{name} {version(name)}" for name in ("nnsteer", "nnsight", "transformers", "torch")]
    peers = [
        ", ".join(pins) if python_of(name).exists() else f"{name} missing"
        for name, pins in PEERS.items()
    ]
    return f"Python {platform.python_version()}, {', '.join(own)}; peers: {'; '.join(peers)}"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
