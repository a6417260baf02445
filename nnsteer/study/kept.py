"""The steps of an experiment that keep what they computed in the run folder, and take it from there on a second start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

from nnsteer import fit
from nnsteer.fit import tune
from nnsteer.folder import Folder
from nnsteer.measure.answers import Asked, Judge, Row, ask
from nnsteer.model import fit_there
from nnsteer.model.load import ModelFiles
from nnsteer.model.options import ModelOptions
from nnsteer.model.runner import Runner
from nnsteer.ndif.estimate import estimates
from nnsteer.ndif.journal import Journal
from nnsteer.ndif.server import connect
from nnsteer.program.condition import Condition, Score, Side
from nnsteer.program.direction import Directions
from nnsteer.program.files import load_directions, save_directions
from nnsteer.program.identity import require_same
from nnsteer.program.program import Program
from nnsteer.program.site import Site
from nnsteer.program.span import Reading
from nnsteer.progress import STDERR, bar
from nnsteer.texts.contrast import ContrastSet
from nnsteer.texts.refusal import SIDES, Requests, Split

SCORED: tuple[Split, ...] = ("fit", "tune", "test")
NOT_RESULTS = ("out", "dry_run", "batch_size", "device_map", "remote", "remote_model")  # options that change no figure


@dataclass(frozen=True)
class Where:
    """Where and how a model runs."""

    dtype: str
    device_map: str | None
    batch_size: int
    remote: str | None = None
    """None: here; "local": here, through nnsight's simulation of a server; "ndif" or a URL: there."""
    remote_model: str | None = None
    revision: str | None = None
    """The one that was asked for, where one was."""


def where_of(options: ModelOptions, batch_size: int) -> Where:
    """Where the options say."""
    return Where(options.dtype, options.device_map, batch_size, options.remote, options.remote_model, options.revision)


def settings_of(config: Any) -> dict[str, Any]:
    """The options of a recipe that its results depend on: those of a run folder."""
    return {name: value for name, value in asdict(config).items() if name not in NOT_RESULTS}


def open_runner(files: ModelFiles, where: Where, out: Path | None) -> Runner:
    """The model, here or on a server; what a server was asked is kept in the run folder `out` (None: nowhere)."""
    if where.remote is None or where.remote == "local":
        runner = Runner.open(files, where.dtype, where.device_map, where.batch_size)
        return runner if where.remote is None else runner.simulated()
    link = connect(where.remote, where.remote_model or files.name, where.revision, files.revision)
    costs = "; ".join(map(str, estimates(files.config, 1000, where.batch_size)))
    STDERR.print(
        f"{link.host}: {where.remote_model or files.name} is running. For 1,000 prompts a side: {costs}.", highlight=False
    )
    journal = None if out is None else Journal(Folder(out.expanduser()))
    return Runner.connect(files, replace(link, journal=journal, say=STDERR.print), where.batch_size)


def fitted(
    folder: Folder, name: str, runner: Runner, contrast: ContrastSet, sites: Sequence[Site], span: Reading, method: fit.Method
) -> Directions:
    """A direction per site, kept in `name`.safetensors."""
    file = folder / f"{name}.safetensors"
    if not file.exists():
        with bar(f"reading {name}", len(contrast.positive) + len(contrast.negative)) as watch:
            save_directions(file, fit_there.directions(runner, contrast, sites, span, method, watch).values())
    directions = load_directions(file)
    for direction in directions.values():
        require_same(str(file), direction.model, runner.model)
    return directions


def condition_point(
    folder: Folder,
    runner: Runner,
    requests: Requests,
    concept: Directions,
    score: Score,
    fit_prompts: int,
    max_false_alarms: float,
    known: tuple[float, Side] | None = None,
) -> Condition:
    """The condition that best separates the tune split, by an exact sweep at every site of `concept`, or one whose threshold and
    side are `known`, at its one site; kept with its scores on all splits in condition.json."""
    candidates = {site: Condition(direction, 0.0, score=score) for site, direction in concept.items()}
    if not folder.has("condition.json"):
        scores = {}
        for split in SCORED:
            for side in SIDES:
                prompts = [p.text for p in requests.side(side, split, fit_prompts if split == "fit" else None)]
                with bar(f"scoring {split}, {side}", len(prompts)) as watch:
                    found = runner.scores(prompts, list(candidates.values()), watch)
                scores[split, side] = dict(zip(candidates, found, strict=True))
        sweeps = {site: tune.sweep(scores["tune", "harmful"][site], scores["tune", "harmless"][site]) for site in candidates}
        point = tune.condition_point(sweeps, max_false_alarms) if known is None else at(known, next(iter(candidates)), scores)
        folder.write_json("condition.json", condition_facts(point, sweeps, scores))
    facts = folder.read_json("condition.json")
    return replace(candidates[Site(**facts["site"])], threshold=facts["threshold"], fires_when=facts["fires_when"])


def at(known: tuple[float, Side], site: Site, scores: Mapping[tuple, Mapping[Site, Tensor]]) -> tune.ConditionPoint:
    """A point that is known, with its F1 on the tune split."""
    point = tune.ConditionPoint(site, *known, f1=0.0, gap=0.0)
    fired = ([point.fires(score) for score in scores["tune", side][site].tolist()] for side in SIDES)
    return replace(point, f1=tune.quality(*fired).f1)


def condition_facts(
    point: tune.ConditionPoint, sweeps: Mapping[Site, tune.Sweep], scores: Mapping[tuple, Mapping[Site, Tensor]]
) -> dict:
    """The point, its quality on each split, its scores, and every layer's curve."""
    own = {split: {side: scores[split, side][point.site].tolist() for side in SIDES} for split in SCORED}
    fired = {split: {side: [point.fires(s) for s in own[split][side]] for side in SIDES} for split in SCORED}
    quality = {split: asdict(tune.quality(fired[split]["harmful"], fired[split]["harmless"])) for split in SCORED}
    curves = {
        str(site): {"thresholds": s.thresholds.tolist(), "f1_above": s.f1_above.tolist(), "f1_below": s.f1_below.tolist()}
        for site, s in sweeps.items()
    }
    return {**asdict(point), "quality": quality, "scores": own, "curves": curves}


def dose(
    folder: Folder, runner: Runner, requests: Requests, programs: Mapping[tune.Dose, Program],
    controls: Callable[[tune.Dose], Sequence[Program]], judge: Judge, max_broken: float, prompts: int, max_new_tokens: int,
) -> tune.Dose:  # fmt: skip
    """The best dose by `tune.rank`, on the first `prompts` tune prompts a side. All doses are tried on a sixth of them, and the
    best tenth on all, beside their random `controls`, which the prompts take in turn. Answers are kept in dose_rows.jsonl, every
    trial in dose.json."""

    def answers(named: Mapping[str, Sequence[Program]], n: int) -> list[list[Row]]:
        sides = [(side, prompt) for side in SIDES for prompt in requests.side(side, "tune", n)]
        asked = [
            Asked(name, *one, program) for name, own in named.items() for one, program in zip(sides, cycle(own), strict=False)
        ]
        rows = ask(folder, "dose_rows.jsonl", runner, asked, judge, max_new_tokens)
        return [rows[start : start + len(sides)] for start in range(0, len(rows), len(sides))]

    def tried(some: Sequence[tune.Dose], n: int) -> dict[tune.Dose, tune.Trial]:
        each = answers({str(d): [programs[d]] for d in some}, n)
        means = [(fmean(row.refused for row in own), fmean(row.broken for row in own)) for own in each]
        return {d: tune.Trial(d, *two) for d, two in zip(some, means, strict=True)}

    few = tried(list(programs), -(-prompts // 6))
    kept = sorted(few, key=lambda d: tune.rank(few[d], max_broken), reverse=True)[: -(-len(few) // 10)]
    trials = tried(kept, prompts)
    unsteered, *others = answers({"not steered": [Program()]} | {f"random, as {d}": controls(d) for d in kept}, prompts)
    for d, own in zip(kept, others, strict=True):
        trials[d] = replace(trials[d], at_random=max(abs(rate(own, side) - rate(unsteered, side)) for side in SIDES))
    best = tune.choose(list(trials.values()), max_broken)
    facts = [{"name": str(d), **asdict(trial), "final": d in trials} for d, trial in (few | trials).items()]
    folder.write_json("dose.json", {"chosen": str(best.dose), "trials": facts})
    return best.dose


def rate(rows: Sequence[Row], side: str) -> float:
    """The share of a side's answers that refuse."""
    return fmean(row.refused for row in rows if row.side == side)
