"""How good a condition gets with the number of its examples, and how long it takes to fit (CAST
Figure 6)."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from time import perf_counter

from nnsteer.fit.threshold import quality
from nnsteer.program.site import Place
from nnsteer.program.span import PROMPT
from nnsteer.progress import bar
from nnsteer.recipes.refusal.options import Config
from nnsteer.study.run import Run
from nnsteer.texts.contrast import ContrastSet, of_prompts
from nnsteer.texts.refusal import Requests

SMALLEST = 8
REPEATS = 3  # draws of each number of examples


def saturate(run: Run, config: Config, requests: Requests, sites: Sequence[Place]) -> None:
    """Fits the harmful condition on so many examples a side and finds its point on the tune split;
    a line each in saturation.jsonl."""
    pools = requests.both("fit", config.condition_pairs)
    wanted = [(n, repeat) for n in sizes(min(map(len, pools))) for repeat in range(REPEATS)]
    done = {(row["n"], row["repeat"]) for row in run.folder.read_lines("saturation.jsonl")}
    with bar("saturation", len(wanted)) as advance:
        for n, repeat in wanted:
            if (n, repeat) not in done:
                rng = Random(f"{config.seed} {n} {repeat}")
                examples = of_prompts(*(rng.sample(pool, n) for pool in pools))
                facts = fitted(run, config, requests, sites, examples)
                run.folder.append("saturation.jsonl", [{"n": n, "repeat": repeat, **facts}])
            advance(1)


def sizes(most: int) -> list[int]:
    """Numbers of examples: doubled from 8 on, and all of them."""
    doubled = []
    n = SMALLEST
    while n < most:
        doubled.append(n)
        n *= 2
    return [*doubled, most]


def fitted(
    run: Run, config: Config, requests: Requests, sites: Sequence[Place], examples: ContrastSet
) -> dict:
    """The condition's layer; the seconds that reading and fitting took; and on the test split its
    F1 and its verdict on each prompt."""
    start = perf_counter()
    directions = run.runner.fit(examples, sites, PROMPT, config.condition_method)
    seconds = perf_counter() - start
    tune, limit = requests.both("tune"), config.max_false_alarms
    condition = run.runner.condition(directions, *tune, config.score, limit)
    fired = {}
    for side, texts in zip(("harmful", "harmless"), requests.both("test"), strict=True):
        (scores,) = run.runner.scores(texts, [condition]).tolist()
        fired[side] = dict(zip(texts, map(condition.holds, scores), strict=True))
    f1 = quality(*(list(verdicts.values()) for verdicts in fired.values())).f1
    return {"seconds": seconds, "layer": condition.site.layer, "f1": f1, "fired": fired}
