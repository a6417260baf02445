"""How much memory a mean difference takes above the model's own, for more and more prompts, each in
a new process. Linux."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers.utils import logging

from benchmarks.extraction import of_lengths
from benchmarks.measure import Measured, Subject
from benchmarks.models import Settings, folder_of, prompts
from nnsteer import Runner, block_outs, find_model, fit, of_prompts

STATUS, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
TOKENS = 24  # of a prompt
ROUNDS = 3


def memory(settings: Settings) -> Iterator[Measured]:
    """Moments, which are streamed, and recorded states, which are kept; each beside its own fewest
    prompts."""
    for name in settings.models:
        with folder_of(name) as folder:
            for way in ("moments", "record"):
                counts = {
                    f"nnsteer, {n} prompts": in_new_process(folder, way, n, settings)
                    for n in settings.prompts_read
                }
                values = {
                    subject: [peak() for _ in range(ROUNDS)] for subject, peak in counts.items()
                }
                yield Measured(
                    f"peak memory of a mean difference, {way}",
                    name,
                    "MB",
                    values,
                    next(iter(values)),
                )


def in_new_process(folder: Path, way: str, count: int, settings: Settings) -> Subject:
    """A subject in megabytes. Freed tensors go back to the system at once, so that the peak is what
    was held."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.memory",
        folder,
        way,
        str(count),
        str(settings.threads),
    ]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    return lambda: float(
        subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment
        ).stdout
    )


def megabytes(line: str) -> float:
    """A figure of this process's memory: VmRSS now, VmHWM at most."""
    return int(re.search(rf"{line}:\s+(\d+) kB", STATUS.read_text())[1]) / 1024


def main(folder: str, way: str, count: str, threads: str) -> None:
    """Tokenises all prompts, as the tokenizer remembers up to 10,000 words, and reads a batch a
    side, so that all code is loaded; then reads `count` prompts, half of them a side; prints the
    peak above what is held before. All prompts have the same length, so that no count has longer
    batches."""
    logging.disable_progress_bar()
    torch.set_num_threads(int(threads))
    runner = Runner.open(find_model(folder))
    sites = block_outs(range(runner.layout.num_layers))
    texts, lengths = prompts("harmful", int(count)), [TOKENS] * (int(count) // 2)
    sides = [of_lengths(runner.chat, texts, lengths)] * 2
    for start in range(0, len(sides[0]), runner.batch_size):
        runner.chat.prompts_ids(sides[0][start : start + runner.batch_size])
    read = runner.moments if way == "moments" else runner.record
    fit.mean_difference(read(of_prompts(*(side[: runner.batch_size] for side in sides)), sites))
    before = megabytes("VmRSS")
    PEAK_RESET.write_text("5")
    fit.mean_difference(read(of_prompts(*sides), sites))
    print(megabytes("VmHWM") - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
