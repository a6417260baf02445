"""A study of 64 variants, whose rows are packed into shared batches, beside 64 studies of one
variant each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.generation import fitted
from benchmarks.measure import Measured, paired, rate, timed
from benchmarks.models import Opened, Settings, opened, prompts
from nnsteer import PROMPT, Runner, add
from nnsteer.folder import Folder
from nnsteer.measure.divergence import kl
from nnsteer.measure.kinds import Measure
from nnsteer.measure.refusal import by_openers
from nnsteer.study.cells import Variant
from nnsteer.study.study import Study, run
from nnsteer.texts.sets import PromptSet
from nnsteer.texts.source import Prompt, load_openers

LAYERS, NEW_TOKENS, BATCH = 4, 16, 256
ROUNDING = 1e-3  # nats by which a first token's KL may differ with the batch that it was in


def sweep(settings: Settings) -> Iterator[Measured]:
    """Additions at four layers and many strengths, measured by the first token's KL and by what 16
    tokens say. Ends the run if the two ways give different rows."""
    refusals = by_openers(load_openers("nnsteer:refusals.jsonl"))
    measures: dict[str, Measure] = {"first token": kl(), f"{NEW_TOKENS} tokens": refusals}
    for model in opened(settings):
        variants, runner = (
            variants_of(model, settings.strengths),
            model.runner.with_batch_size(BATCH),
        )
        for name, measure in measures.items():
            whole = Study(variants, (prompt_set(settings),), (measure,), {}, NEW_TOKENS)
            single = [
                Study((variant,), whole.sets, whole.measures, {}, NEW_TOKENS)
                for variant in variants
            ]
            require_equal(rows(single, runner), rows([whole], runner))
            subjects = {
                "one at a time": rate(len(variants), timed(partial(rows, single, runner))),
                "packed": rate(len(variants), timed(partial(rows, [whole], runner))),
            }
            work = f"sweep of {len(variants)} variants, {settings.sweep_prompts} prompts, {name}"
            yield paired(work, model.name, "variants/s", subjects, settings.rounds)


def variants_of(model: Opened, strengths: int) -> tuple[Variant, ...]:
    """Each layer's own direction at each strength."""
    directions, count = fitted(model), len(model.sites)
    layers = [count * (2 * i + 1) // (2 * LAYERS) for i in range(LAYERS)]
    grid = [(layer, (k + 1) / strengths) for layer in layers for k in range(strengths)]
    sites = [(model.sites[layer], strength) for layer, strength in grid]
    return tuple(
        Variant(f"{s} {k}", add({s: directions[s]}, k, PROMPT), {"layer": s.layer, "strength": k})
        for s, k in sites
    )


def prompt_set(settings: Settings) -> PromptSet:
    """Harmful and harmless prompts of the tune split."""
    half = settings.sweep_prompts // 2
    texts = [
        (side, text) for side in ("harmful", "harmless") for text in prompts(side, half, "tune")
    ]
    return PromptSet("tune", tuple(Prompt(text, side) for side, text in texts))


def rows(studies: Sequence[Study], runner: Runner) -> list[dict]:
    """Runs each study in a new folder and reads its rows; silently."""
    found = []
    for study in studies:
        with TemporaryDirectory() as at, redirect_stderr(StringIO()):
            run(study, runner, Folder(Path(at)))
            found += Folder(Path(at)).read_lines("rows.jsonl")
    return sorted(found, key=lambda row: row["key"])


def require_equal(one: list[dict], other: list[dict]) -> None:
    """Ends the run where two lists of rows are not the same but for rounding."""
    same = [
        a["key"] == b["key"] and abs(a["value"] - b["value"]) <= ROUNDING
        for a, b in zip(one, other, strict=True)
    ]
    if not all(same):
        raise SystemExit(
            f"{same.count(False)} of {len(same)} rows differ between a packed sweep and one "
            "variant at a time"
        )
