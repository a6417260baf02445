"""A study's variants packed into shared batches beside one variant at a time, in one run.

    python -m benchmarks.packed

16 variants of an addition, 32 prompts, 24 new tokens, on the bundled model. Both ways may put as
many rows in a batch as there are, and freed memory is kept as in nnsteer's commands; the texts must
be equal. Prints a table, then one line of JSON.
"""

from __future__ import annotations

import json
import time
from itertools import product
from statistics import median

from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from nnsteer import PROMPT, Program, Runner, Site, add, block_outs, find_model, fit, of_prompts
from nnsteer.memory import keep_freed_memory
from nnsteer.texts.bundled import bundled

ROUNDS, NEW_TOKENS, BATCH = 7, 24, 512


def main() -> None:
    """Warms up, measures in pairs, compares the texts."""
    logging.disable_progress_bar()
    keep_freed_memory()
    runner = Runner.open(find_model("nnsteer:organism"), batch_size=BATCH)
    texts = {
        side: [r["prompt"] for r in bundled(f"{side}.jsonl") if r["split"] == "tune"]
        for side in ("harmful", "harmless")
    }
    directions = fit.mean_difference(
        runner.record(of_prompts(texts["harmful"], texts["harmless"]), block_outs(range(4)))
    )
    grid = product(range(4), (0.25, 0.5, 0.75, 1.0))
    variants = [
        add({Site(layer): directions[Site(layer)]}, strength, PROMPT) for layer, strength in grid
    ]
    prompts = texts["harmful"][:16] + texts["harmless"][:16]
    seconds: dict[str, list[float]] = {"one at a time": [], "packed": []}
    for turn in range(ROUNDS + 1):
        found = {}
        for name, way in (("one at a time", apart), ("packed", packed)):
            start = time.perf_counter()
            found[name] = way(runner, variants, prompts)
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - start)
        if found["packed"] != found["one at a time"]:
            raise SystemExit("the packed texts differ")
    ratios = sorted(a / b for a, b in zip(seconds["one at a time"], seconds["packed"], strict=True))
    table = Table("way", "seconds, median", "min", "max")
    for name, times in seconds.items():
        table.add_row(name, f"{median(times):.2f}", f"{min(times):.2f}", f"{max(times):.2f}")
    Console().print(table)
    print(
        json.dumps(
            {"packed_speedup": {"median": median(ratios), "min": ratios[0], "max": ratios[-1]}}
        )
    )


def apart(runner: Runner, variants: list[Program], prompts: list[str]) -> list[str]:
    return [c.text for variant in variants for c in runner.generate(prompts, variant, NEW_TOKENS)]


def packed(runner: Runner, variants: list[Program], prompts: list[str]) -> list[str]:
    programs = [variant for variant in variants for _ in prompts]
    return [c.text for c in runner.generate(prompts * len(variants), programs, NEW_TOKENS)]


if __name__ == "__main__":
    main()
