"""How good a condition gets with the number of its examples, and how long it takes to fit (CAST Figure 6)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from time import perf_counter

from nnsteer import fit
from nnsteer.fit import tune
from nnsteer.folder import Folder
from nnsteer.model import fit_there
from nnsteer.model.runner import Runner
from nnsteer.program.condition import Condition, Score
from nnsteer.program.site import Site
from nnsteer.program.span import PROMPT
from nnsteer.progress import bar
from nnsteer.recipes.categories.points import best, placed
from nnsteer.texts.contrast import of_prompts
from nnsteer.texts.refusal import SIDES, Requests, Side, Split

SMALLEST = 8
JUDGED: tuple[Split, ...] = ("tune", "test")
REPEATS = 3  # draws of each number of examples


def sizes(most: int) -> list[int]:
    """Numbers of examples: doubled from 8 on, and all of them."""
    doubled = []
    n = SMALLEST
    while n < most:
        doubled.append(n)
        n *= 2
    return [*doubled, most]


def saturate(
    folder: Folder, runner: Runner, requests: Requests, sites: Sequence[Site], method: fit.Method, score: Score, most: int,
    max_false_alarms: float, seed: int,
) -> None:  # fmt: skip
    """Fits the harmful condition on so many examples a side and finds its point on the tune split; a line each in
    saturation.jsonl, with the seconds that reading and fitting took and the verdicts on the test split."""
    pools = {side: [p.text for p in requests.side(side, "fit", most)] for side in SIDES}
    wanted = [(n, repeat) for n in sizes(min(map(len, pools.values()))) for repeat in range(REPEATS)]
    done = {(row["n"], row["repeat"]) for row in folder.read_lines("saturation.jsonl")}
    with bar("saturation", len(wanted)) as watch:
        for n, repeat in wanted:
            if (n, repeat) not in done:
                rng = random.Random(f"{seed} {n} {repeat}")
                contrast = of_prompts(*(rng.sample(pools[side], n) for side in SIDES))
                start = perf_counter()
                directions = fit_there.directions(runner, contrast, sites, PROMPT, method)
                seconds = perf_counter() - start
                conditions = [Condition(direction, 0.0, score=score) for direction in directions.values()]
                condition, fired = judged(runner, requests, conditions, max_false_alarms)
                quality = tune.quality(*(list(own.values()) for own in fired.values()))
                facts = {
                    "n": n,
                    "repeat": repeat,
                    "seconds": seconds,
                    "layer": condition.site.layer,
                    "f1": quality.f1,
                    "fired": fired,
                }
                folder.append("saturation.jsonl", [facts])
            watch(1)


def judged(
    runner: Runner, requests: Requests, candidates: Sequence[Condition], max_false_alarms: float
) -> tuple[Condition, dict[Side, dict[str, bool]]]:
    """The best condition on the tune split, and its verdicts on the test split by prompt."""
    scores = {
        (split, side): runner.scores([p.text for p in requests.side(side, split)], candidates)
        for split in JUDGED for side in SIDES
    }  # fmt: skip
    row, point = best(candidates, scores["tune", "harmful"], scores["tune", "harmless"], max_false_alarms)
    condition = placed(candidates[row], point)
    fired = {
        side: {
            prompt.text: condition.holds(score)
            for prompt, score in zip(requests.side(side, "test"), scores["test", side][row].tolist(), strict=True)
        }
        for side in SIDES
    }
    return condition, fired
