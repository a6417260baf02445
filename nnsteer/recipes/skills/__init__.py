"""Broad skills (*Extending Activation Steering to Broad Skills and Multiple Behaviours*, arXiv 2403.05767): take a skill, coding,
away from a model by adding the mean activation on text minus the one on code, and measure what that costs elsewhere.

    python -m nnsteer.recipes.skills                                          # the bundled model: minutes on two cores
    python -m nnsteer.recipes.skills --config recipes/skills-llama2-code.toml # the paper's run
    python -m nnsteer.recipes.skills --model org/name --skill mine.jsonl,column=sql --layers 4 8 12 8+12

Code and prose are by default of Python's standard library, which every machine has: no module is in two splits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite, isnan
from pathlib import Path
from typing import Literal

from nnsteer import command, fit
from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.folder import Folder, check_folder, open_folder
from nnsteer.measure.tradeoff import TradeOff
from nnsteer.measure.walks import CHOSEN, DRAWS, MATCHED, PERMUTED, Measuring, Turns, walks
from nnsteer.model.layout import check_layers, num_layers
from nnsteer.model.load import find_model
from nnsteer.model.options import ModelOptions
from nnsteer.model.runner import Runner
from nnsteer.program.direction import Direction, Directions
from nnsteer.program.files import load, save_directions, save_programs
from nnsteer.program.identity import require_same
from nnsteer.program.program import Program, add
from nnsteer.program.site import Place, Site, block_outs
from nnsteer.program.span import ALL, Last, Reading
from nnsteer.progress import bar
from nnsteer.report import skills as report
from nnsteer.study import kept
from nnsteer.texts.contrast import ContrastSet, Text
from nnsteer.texts.skills import Domains, load_documents

READ: dict[str, Reading] = {"last": Last(), "all": ALL}
LADDER = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0)


@dataclass(frozen=True)
class Config(ModelOptions):
    """Defaults run the bundled model on the standard library."""

    model: str = "nnsteer:organism"
    """A hub id, a folder, or the bundled model. Documents are read without a chat template."""
    skill: tuple[str, ...] = ("nnsteer:code",)
    """SOURCE of documents that show the skill; or two, one to fit on and one to tune and test on. A hub dataset is streamed. A
    `,where=COLUMN=VALUE` or `,where=COLUMN!=VALUE` at the end picks rows."""
    retained: tuple[str, ...] = ("nnsteer:prose",)
    """SOURCE of documents of what is to be retained, likewise."""
    fit_documents: int = 250
    """Documents of each domain that the direction is fitted on, at most (the paper: 5,000)."""
    tune_documents: int = 80
    """Documents of each domain on which the layers are compared, at most."""
    test_documents: int = 160
    """Documents of each domain that are reported on, at most (the paper: 500,000 tokens)."""
    max_tokens: int = 128
    """The first tokens of a document that are read (the paper: 4,096)."""
    read: Literal["last", "all"] = "last"
    """Which tokens' mean a document's activation is: the last one, as published, or all."""
    layers: tuple[str, ...] | None = None
    """Layers to steer, from 0: each on its own, or several together, as in 10+15. When not given: each, and the middle two."""
    coefficients: tuple[float, ...] = LADDER
    """In lengths of the direction, from 0 up. The walk ends where less than 5 % of the skill is left."""
    drifting: bool = False
    """As published, go on through the documents from coefficient to coefficient. What is seen then is of different texts."""
    batch_size: int = 64
    seed: int = 0
    out: Path = Path("runs/skills")
    """The run's folder. A run that was stopped goes on from there."""


Layers = tuple[int, ...]


def main(config: Config) -> None:
    """The method, step by step; what each step made lies in the run folder."""
    # 0. Whatever can be wrong is found before any weights are loaded.
    check_numbers(config)
    files = find_model(config.model, config.revision, templated=False)
    places = read_places(config.layers, num_layers(files.config))
    turns = len(config.coefficients) if config.drifting else 1
    sizes = config.fit_documents, config.tune_documents * turns, config.test_documents * turns
    domains = Domains(*(load_documents(sources, sizes, config.seed) for sources in (config.skill, config.retained)))
    settings = kept.settings_of(config)
    check_folder(config.out, settings, "skills")
    files = replace(files, chat=replace(files.chat, max_tokens=config.max_tokens))
    runner = kept.open_runner(files, kept.where_of(config, config.batch_size), config.out)
    folder = open_folder(config.out, settings, {"model": asdict(runner.model), "data": domains.fingerprints()}, "skills")

    # 1. The direction, the mean activation on what is retained minus the one on the skill, and permutations of it.
    with folder.timed("direction"):
        sites = block_outs(sorted({layer for place in places.values() for layer in place}))
        direction, *permuted = fitted(folder, runner, domains, sites, READ[config.read], config.seed)
        matched = [fit.norm_matched(control, direction) for control in permuted]

    # 2. The best and the worst place to steer, by what is retained when a tenth of the skill is gone, on the tune split.
    with folder.timed("tune"):
        tuning = Measuring(folder, runner, domains, "tune", config.tune_documents, config.drifting, config.max_tokens)
        ways = {name: steering([direction], place) for name, place in places.items()}
        best, dose = choose(folder, walks(tuning, ways, config.coefficients))
        chosen = ways[best]
        save_programs(folder / "programs.safetensors", {"unsteered": Program(), "steered": chosen(dose)[0]})

    # 3. On the test split: every place, the best one at the dose chosen, and the controls there.
    with folder.timed("test"):
        testing = replace(tuning, split="test", documents=config.test_documents)
        controls = {PERMUTED: steering(permuted, places[best]), MATCHED: steering(matched, places[best])}
        walks(testing, ways | controls, config.coefficients)
        walks(testing, {CHOSEN: chosen}, (0.0, dose))

    # 4. The summary, the figures and the page.
    report.write(folder)


def fitted(
    folder: Folder, runner: Runner, domains: Domains, sites: Sequence[Site], tokens: Reading, seed: int
) -> list[Directions]:
    """The direction and DRAWS permutations of it, kept in the folder."""
    file, controls = folder / "direction.safetensors", folder / "permuted.safetensors"
    if not (file.exists() and controls.exists()):
        retained, skill = (tuple(Text(d.text) for d in domains.of(domain, "fit")) for domain in ("retained", "skill"))
        with bar("reading documents", len(retained) + len(skill)) as watch:
            moments = runner.moments(ContrastSet(retained, skill), sites, tokens, watch=watch)
        save_directions(controls, [d for i in range(DRAWS) for d in fit.permuted(moments, seed + i).values()])
        save_directions(file, fit.mean_difference(moments).values())
    draws: dict[str, dict[Place, Direction]] = {}
    for d in [*load(file, "directions"), *load(controls, "directions")]:
        require_same(str(file), d.model, runner.model)
        draws.setdefault(d.method, {})[d.site] = d
    return [Directions(draw) for draw in draws.values()]


def steering(directions: Sequence[Directions], place: Layers) -> Turns:
    """Adds a direction, times the coefficient, to every token at each layer of the place."""
    own = [{site: d[site] for site in block_outs(place)} for d in directions]
    return lambda coefficient: [add(d, coefficient, ALL) for d in own]


def choose(folder: Folder, tried: Mapping[str, TradeOff]) -> tuple[str, float]:
    """The name of the best place, and the coefficient at which a tenth of the skill is gone there; kept in choice.json with the
    worst place and every place's T@0.9."""
    retained = {name: one.at(0.9) for name, one in tried.items()}
    known = {name: at for name, at in retained.items() if not isnan(at.retained)}
    if not known:
        raise UserError("steering takes a tenth of the skill away at no layer of the tune split; give larger --coefficients")
    best, worst = (pick(known, key=lambda name: known[name].retained) for pick in (max, min))
    facts = {"best": best, "worst": worst, "coefficient": known[best].coefficient}
    folder.write_json(
        "choice.json", facts | {"kept": {name: known[name].retained if name in known else None for name in retained}}
    )
    return best, known[best].coefficient


def read_places(asked: Sequence[str] | None, layers: int) -> dict[str, Layers]:
    """Places to steer by name: `layer 3`, or `layers 1+2` for several at once."""
    middle = [f"{layers // 2 - 1}+{layers // 2}"] if layers > 1 else []
    words = asked if asked is not None else [*map(str, range(layers)), *middle]
    if not words:
        raise UserError("--layers: names none; give layers such as 10 or, to steer several together, 10+15")
    found = {}
    for word in words:
        if not re.fullmatch(r"\d+(\+\d+)*", word):
            raise UserError(f"--layers {word}: not a layer; give layers such as 10 or, to steer several together, 10+15")
        place = tuple(sorted({int(layer) for layer in word.split("+")}))
        check_layers(place, layers)
        found[f"layer{'s' * (len(place) > 1)} {'+'.join(map(str, place))}"] = place
    return found


def check_numbers(config: Config) -> None:
    """Refuses numbers that no run can use."""
    at_least_one(config, "fit_documents", "tune_documents", "test_documents", "batch_size")
    if config.max_tokens < 2:
        raise UserError(f"--max-tokens {config.max_tokens}: must be at least 2, for a token to be predicted")
    ladder = config.coefficients
    if len(ladder) < 2 or ladder[0] != 0 or not all(isfinite(c) for c in ladder) or list(ladder) != sorted(set(ladder)):
        raise UserError(f"--coefficients {' '.join(f'{c:g}' for c in ladder)}: must rise from 0, such as 0 0.5 1 2 4")

