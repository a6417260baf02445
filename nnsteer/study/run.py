"""A recipe's run: its folder, its model and its table. Each step keeps what it computed in the
folder, and takes it from there on a second start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from nnsteer.fit import threshold
from nnsteer.folder import Folder, check_folder, open_folder
from nnsteer.measure.kinds import Measure
from nnsteer.model import fit_there
from nnsteer.model.connect import open_runner
from nnsteer.model.load import ModelFiles
from nnsteer.model.runner import Runner
from nnsteer.program.condition import Condition, Score, Side
from nnsteer.program.direction import Directions
from nnsteer.program.files import load_directions, save_directions, save_programs
from nnsteer.program.identity import require_same
from nnsteer.program.names import Method
from nnsteer.program.program import Program
from nnsteer.program.site import Place, Site
from nnsteer.program.span import Reading
from nnsteer.progress import Watch, bar
from nnsteer.study.cells import GREEDY, Sampling, Variant
from nnsteer.study.choose import Dose, choose_dose, choose_removal
from nnsteer.study.rows import Row, forget_failures
from nnsteer.study.table import Table
from nnsteer.texts.contrast import ContrastSet
from nnsteer.texts.sets import PromptSet

NOT_RESULTS = (  # options that change no figure
    "out", "dry_run", "batch_size", "device_map", "remote", "remote_model",
)  # fmt: skip
Fit = Callable[[Runner, ContrastSet, Sequence[Place], Reading, Method, Watch], Directions]
Sides = Mapping[str, tuple[list[str], list[str]]]
"""Positive and negative prompts, by split: `tune`, on which is chosen, and others to be scored."""


@dataclass(frozen=True)
class Run:
    """What a recipe works with."""

    folder: Folder
    runner: Runner
    measures: tuple[Measure, ...] = ()
    sampling: Sampling = GREEDY

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Adds the seconds spent on a step to seconds.json."""
        with self.folder.timed(step):
            yield

    def fit(
        self,
        name: str,
        contrast: ContrastSet,
        sites: Sequence[Place],
        over: Reading,
        method: Method,
        how: Fit = fit_there.directions,
    ) -> Directions:
        """A direction per site, kept in `name`.safetensors. Raises UserError where those there are
        another model's."""
        file = self.folder / f"{name}.safetensors"
        if not file.exists():
            with bar(f"reading {name}", len(contrast.positive) + len(contrast.negative)) as watch:
                made = how(self.runner, contrast, sites, over, method, watch)
            save_directions(file, made.values())
        directions = load_directions(file)
        for direction in directions.values():
            require_same(str(file), direction.model, self.runner.model)
        return directions

    def condition(
        self,
        name: str,
        directions: Mapping[Place, Any],
        sides: Sides,
        score: Score = "cosine",
        max_false_alarms: float = 1.0,
        known: tuple[float, Side] | None = None,
    ) -> Condition:
        """The condition that best tells the two sides of the tune split apart, by an exact sweep at
        every site of the directions, or the one whose threshold and side are `known`, at its one
        site; kept with its scores on all splits in `name`.json."""
        free = {site: Condition(d, 0.0, score=score) for site, d in directions.items()}
        if not self.folder.has(f"{name}.json"):
            facts = search(self.runner, free, sides, max_false_alarms, known)
            self.folder.write_json(f"{name}.json", facts)
        facts = self.folder.read_json(f"{name}.json")
        site = Site(**facts["site"])
        return replace(free[site], threshold=facts["threshold"], fires_when=facts["fires_when"])

    def ask(
        self,
        variants: Sequence[Variant],
        sets: Sequence[PromptSet],
        measures: Sequence[Measure] | None = None,
    ) -> list[Row]:
        """The row of every prompt under every variant; answered and measured where the folder lacks
        it. The variants' axes are kept in variants.json."""
        axes = self.folder.read_json("variants.json") if self.folder.has("variants.json") else {}
        new = {variant.name: dict(variant.axes) for variant in variants if variant.axes}
        if not new.items() <= axes.items():
            self.folder.write_json("variants.json", axes | new)
        table = Table(self.folder, self.runner, self.sampling)
        return table.ask(variants, sets, self.measures if measures is None else measures)

    def save(self, variants: Sequence[Variant]) -> None:
        """Keeps the variants' programs in programs.safetensors; those of several by their
        number."""
        programs = {}
        for variant in variants:
            several = len(variant.in_turn) > 1
            for number, program in enumerate(variant.in_turn):
                programs[f"{variant.name}_{number}" if several else variant.name] = program
        save_programs(self.folder / "programs.safetensors", programs)

    def choose_dose(
        self,
        name: str,
        programs: Mapping[Dose, Program],
        controls: Callable[[Dose], Sequence[Program]],
        sets: Sequence[PromptSet],
        max_broken: float,
    ) -> Dose:
        """The dose that refuses most (`study.choose`); every trial is kept in `name`.json."""
        best, facts = choose_dose(self.ask, programs, controls, sets, max_broken)
        self.folder.write_json(f"{name}.json", facts)
        return best

    def choose_removal(
        self,
        name: str,
        programs: Mapping[Dose, Program],
        sets: Sequence[PromptSet],
        max_broken: float,
    ) -> Dose:
        """The dose that refuses least; every trial is kept in `name`.json."""
        best, facts = choose_removal(self.ask, programs, sets, max_broken)
        self.folder.write_json(f"{name}.json", facts)
        return best


def start(
    recipe: str,
    config: Any,
    files: ModelFiles,
    data: Mapping[str, str],
    measures: Sequence[Measure] = (),
    sampling: Sampling = GREEDY,
    opened: Runner | None = None,
) -> Run:
    """Opens the model and the run folder `config.out`, locked while the run lasts. `data` are the
    fingerprints of what is read. Raises UserError, before any weights are loaded, for a folder that
    holds another run or that another process is at work in. `opened` is the model, where it is open
    already."""
    settings = settings_of(config)
    check_folder(config.out, settings, recipe)
    runner = opened or open_runner(files, config, config.batch_size, config.out)
    facts = {"model": asdict(runner.model), "data": dict(data)}
    folder = open_folder(config.out, settings, facts, recipe)
    forget_failures(folder)
    return Run(folder, runner, tuple(measures), sampling)


def settings_of(config: Any) -> dict[str, Any]:
    """The options of a recipe that its results depend on: those of a run folder."""
    return {name: value for name, value in asdict(config).items() if name not in NOT_RESULTS}


def search(
    runner: Runner,
    free: Mapping[Place, Condition],
    sides: Sides,
    max_false_alarms: float,
    known: tuple[float, Side] | None = None,
) -> dict:
    """The point, its quality on each split, its scores, and every site's curve on the tune
    split."""
    names = ("positive", "negative")
    scores: dict[str, list[Tensor]] = {}
    for split, both in sides.items():
        scores[split] = [
            scored(runner, free, prompts, f"{split}, {name}")
            for name, prompts in zip(names, both, strict=True)
        ]
    positive, negative = scores["tune"]
    sweeps = {site: threshold.sweep(positive[i], negative[i]) for i, site in enumerate(free)}
    if known is None:
        point = threshold.condition_point(sweeps, max_false_alarms)
    else:
        point = threshold.known_point(next(iter(free)), *known, positive[0], negative[0])
    row = list(free).index(point.site)
    quality, kept = {}, {}
    for split, read in scores.items():
        kept[split] = {name: side[row].tolist() for name, side in zip(names, read, strict=True)}
        fired = ([point.fires(score) for score in side] for side in kept[split].values())
        quality[split] = asdict(threshold.quality(*fired))
    curves = {str(site): curve(sweep) for site, sweep in sweeps.items()}
    return {**asdict(point), "quality": quality, "scores": kept, "curves": curves}


def scored(
    runner: Runner, free: Mapping[Place, Condition], prompts: Sequence[str], what: str
) -> Tensor:
    """Every candidate's score on every prompt, fp32 [candidate, prompt]."""
    with bar(f"scoring {what}", len(prompts)) as watch:
        return runner.scores(prompts, list(free.values()), watch)


def curve(sweep: threshold.Sweep) -> dict:
    """F1 at every threshold."""
    return {
        "thresholds": sweep.thresholds.tolist(),
        "f1_above": sweep.f1_above.tolist(),
        "f1_below": sweep.f1_below.tolist(),
    }
