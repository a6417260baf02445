"""What a study fits and finds, once: directions, and conditions' thresholds. The run folder keeps
all of it, in files named by what was fitted on what, so that a changed study finds again what the
change does not touch."""

from __future__ import annotations

from collections.abc import Mapping

from nnsteer import fit
from nnsteer.errors import UserError
from nnsteer.fit import threshold
from nnsteer.folder import Folder
from nnsteer.model.runner import Runner
from nnsteer.program.condition import Condition, Side
from nnsteer.program.direction import Direction
from nnsteer.program.files import load_directions, save_directions
from nnsteer.program.names import READINGS, Method
from nnsteer.program.site import Place, Site, block_outs
from nnsteer.progress import bar
from nnsteer.study.cells import hashed
from nnsteer.study.inputs import CHOSEN, Inputs, side_names
from nnsteer.study.projection import projections
from nnsteer.study.spec import ConditionSpec, Spec

Fitted = Mapping[tuple[str, Method], Mapping[Place, Direction]]
"""Directions of every layer, by name and method."""


def plane_file(spec: Spec, inputs: Inputs, name: str, weights: str) -> str:
    """Where a folder keeps the projections of a direction's texts."""
    of = [inputs.contrasts[name].fingerprint(), spec.directions[name].read, weights]
    return f"plane_{hashed(of)}.json"


def directions_file(spec: Spec, inputs: Inputs, name: str, method: Method, weights: str) -> str:
    """Where a folder keeps directions."""
    of = [inputs.contrasts[name].fingerprint(), spec.directions[name].read, method, weights]
    return f"direction_{hashed(of)}.safetensors"


def fit_directions(spec: Spec, inputs: Inputs, runner: Runner, folder: Folder) -> Fitted:
    """One direction per layer by each method that is needed. A direction's texts are read once for
    all of them, and projected for the report."""
    fitted: dict[tuple[str, Method], Mapping[Place, Direction]] = {}
    for name, methods in spec.fitted.items():
        plane = plane_file(spec, inputs, name, runner.model.weights)
        files = {
            method: directions_file(spec, inputs, name, method, runner.model.weights)
            for method in methods
        }
        missing = [method for method, file in files.items() if not folder.has(file)]
        if missing or not folder.has(plane):
            contrast, entry = inputs.contrasts[name], spec.directions[name]
            with bar(f"reading {name}", len(contrast.positive) + len(contrast.negative)) as watch:
                read = runner.record(
                    contrast,
                    block_outs(range(runner.layout.num_layers)),
                    READINGS[entry.read],
                    watch,
                )
            folder.write_json(plane, projections(read, side_names(entry)))
            for method in missing:
                save_directions(folder / files[method], fit.method_named(method)(read).values())
        fitted |= {(name, method): load_directions(folder / file) for method, file in files.items()}
    return fitted


def scores_file(entry: ConditionSpec, inputs: Inputs, fitted: Fitted) -> str:
    """Where a folder keeps a condition's threshold and scores."""
    of = [entry.score, entry.threshold, entry.fires_when, inputs.sides[entry.direction]]
    return f"condition_{hashed([own_direction(entry, fitted).fingerprint, *of])}.json"


def find_conditions(
    spec: Spec, inputs: Inputs, fitted: Fitted, runner: Runner, folder: Folder
) -> dict[str, Condition]:
    """Every condition with its threshold as given, or the best one on the tune prompts of its
    direction's two sides. Each prompt is read once for all conditions."""
    files = {name: scores_file(entry, inputs, fitted) for name, entry in spec.conditions.items()}
    for direction, sides in inputs.sides.items():
        missing = {
            name: e
            for name, e in spec.conditions.items()
            if e.direction == direction and not folder.has(files[name])
        }
        if missing:
            texts = [text for split in CHOSEN for side in sides[split] for text in side]
            free = [condition(entry, fitted, 0.0, "above") for entry in missing.values()]
            with bar(f"scoring {', '.join(missing)}", len(texts)) as watch:
                found = runner.scores(texts, free, watch)
            for (name, entry), scores in zip(missing.items(), found, strict=True):
                cuts = scores.split([len(side) for split in CHOSEN for side in sides[split]])
                by_split = {split: cuts[2 * i : 2 * i + 2] for i, split in enumerate(CHOSEN)}
                folder.write_json(files[name], facts(entry, spec, by_split))
    return {
        name: known_condition(entry, fitted, folder, files[name])
        for name, entry in spec.conditions.items()
    }


def facts(entry: ConditionSpec, spec: Spec, scores: Mapping) -> dict:
    """The threshold, and the scores on either side of each split."""
    cut, fires_when = entry.threshold, entry.fires_when
    if cut is None:
        point = threshold.condition_point({Site(entry.layer): threshold.sweep(*scores["tune"])})
        cut, fires_when = point.threshold, point.fires_when
    shown = {
        split: dict(zip(("positive", "negative"), (s.tolist() for s in both), strict=True))
        for split, both in scores.items()
    }
    found = "given" if entry.threshold is not None else "found on the tune prompts"
    facts = {
        "site": str(Site(entry.layer)),
        "score": entry.score,
        "threshold": cut,
        "fires_when": fires_when,
    }
    return facts | {"found": found, **side_names(spec.directions[entry.direction]), "scores": shown}


def known_condition(entry: ConditionSpec, fitted: Fitted, folder: Folder, file: str) -> Condition:
    """A condition that the folder has."""
    known = folder.read_json(file)
    return condition(entry, fitted, known["threshold"], known["fires_when"])


def condition(
    entry: ConditionSpec, fitted: Fitted, threshold: float, fires_when: Side
) -> Condition:
    """A condition with a threshold."""
    return Condition(own_direction(entry, fitted), threshold, fires_when, entry.score)


def own_direction(entry: ConditionSpec, fitted: Fitted) -> Direction:
    """The direction that a condition scores."""
    own = fitted[entry.direction, entry.method]
    if Site(entry.layer) not in own:
        raise UserError(
            f"[conditions] layer {entry.layer}: this model has {len(own)} layers, "
            f"0 to {len(own) - 1}"
        )
    return own[Site(entry.layer)]
