"""The exact sweep for a condition point beside a grid search over thresholds, in one run.

    python -m benchmarks.sweep

The grid is CAST's: every layer, every threshold of a range, both sides, one F1 each (here vectorised over prompts; the
published search also generates a token per prompt, which is not timed). Scores are random, as many as in the paper's
section 4: 4,050 prompts a side, 10 layers, thresholds 0 to 0.06 by 0.0001.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from nnsteer.site import Site
from nnsteer.tune import condition_point, sweep

PROMPTS, LAYERS, RUNS = 4050, 10, 7
THRESHOLDS = np.arange(0, 0.06, 0.0001)


def made_scores(seed: int) -> dict[Site, tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return {
        Site(layer): (0.032 + 0.01 * torch.randn(PROMPTS, generator=g), 0.012 + 0.01 * torch.randn(PROMPTS, generator=g))
        for layer in range(LAYERS)
    }


def by_grid(scores: dict[Site, tuple[torch.Tensor, torch.Tensor]]) -> float:
    best = 0.0
    for positive, negative in ((p.numpy(), n.numpy()) for p, n in scores.values()):
        for threshold in THRESHOLDS:
            for side in (np.greater, np.less):
                hits, alarms = side(positive, threshold).sum(), side(negative, threshold).sum()
                best = max(best, 2 * hits / (hits + alarms + len(positive)))
    return best


def by_sweep(scores: dict[Site, tuple[torch.Tensor, torch.Tensor]]) -> float:
    return condition_point({site: sweep(*both) for site, both in scores.items()}).f1


def main() -> None:
    seconds: dict[str, list[float]] = {"grid": [], "sweep": []}
    found: dict[str, float] = {}
    for run in range(RUNS + 1):
        scores = made_scores(run)
        for name, search in (("grid", by_grid), ("sweep", by_sweep)):
            start = time.perf_counter()
            found[name] = search(scores)
            if run:  # the first run warms up
                seconds[name].append(time.perf_counter() - start)
    table = Table("search", "seconds, median", "min", "max", "best F1 of the last run")
    for name, times in seconds.items():
        table.add_row(name, f"{median(times):.3f}", f"{min(times):.3f}", f"{max(times):.3f}", f"{found[name]:.5f}")
    console = Console()
    console.print(table)
    ratios = [g / s for g, s in zip(seconds["grid"], seconds["sweep"], strict=True)]
    console.print(f"grid / sweep: median {median(ratios):.0f}, {min(ratios):.0f} to {max(ratios):.0f}, {RUNS} paired runs")


if __name__ == "__main__":
    main()
