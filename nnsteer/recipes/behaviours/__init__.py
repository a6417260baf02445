"""Several behaviours at once (van der Weij et al. 2024, *Extending Activation Steering to Broad Skills and Multiple Behaviours*):
a direction for each behaviour from questions with two answers (Contrastive Activation Addition, Rimsky et al. 2023), added alone,
combined into one, or each at its own layer; what that does to every behaviour, and to general text.

    python -m nnsteer.recipes.behaviours                                        # the bundled model and six behaviours: minutes
    python -m nnsteer.recipes.behaviours --behaviours myopic-reward.jsonl wealth=mine.csv --layers 1 2
    python -m nnsteer.recipes.behaviours --config recipes/behaviours-llama2.toml   # the paper's model, prompt, layers and grid
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import cycle, product
from math import isfinite
from pathlib import Path
from random import Random

from nnsteer import command, fit
from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.folder import check_folder, open_folder
from nnsteer.measure.items import Asked, ask, predict
from nnsteer.measure.kinds import fingerprint
from nnsteer.model.layout import check_layers, num_layers
from nnsteer.model.load import find_model
from nnsteer.model.options import ModelOptions
from nnsteer.program.direction import Directions
from nnsteer.program.files import save_programs
from nnsteer.program.names import SPANS, SpanName
from nnsteer.program.program import Program, add
from nnsteer.program.site import Site, block_outs
from nnsteer.program.span import Last, Where
from nnsteer.recipes.behaviours import grid
from nnsteer.recipes.behaviours.together import best_scalar, combined, cosines, simultaneous, sweep
from nnsteer.report import behaviours as report
from nnsteer.study import kept
from nnsteer.texts import documents
from nnsteer.texts.behaviours import Form, contrast, load_behaviour
from nnsteer.texts.source import load_texts

BUNDLED = ("wealth", "power", "myopia", "sycophancy", "survival", "risk")


@dataclass(frozen=True)
class Config(ModelOptions):
    """Defaults run the bundled model on the bundled items."""

    template: bool = True
    """Whether the model's chat template is put around a question; without it a question is plain text (base models)."""
    behaviours: tuple[str, ...] = tuple(f"nnsteer:behaviours/{name}.jsonl" for name in BUNDLED)
    """[NAME=]SOURCE of items, one for each behaviour, with the columns `question`, `answer_matching_behavior` and
    `answer_not_matching_behavior` as published."""
    question: str = "{question}"
    """How a question is put."""
    opener: str = " ("
    """What the model is made to write before the letter; {options} stands for `(A) and (B)` or `(Yes) and (No)`."""
    balanced: bool = True
    """Fit on as many items of each matching letter, so that the letter is no part of the direction."""
    layers: tuple[int, ...] | None = None
    """Layers of the grid, from 0; eight at most, evenly spaced, when not given."""
    coefficients: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
    """Of the grid, in lengths of the direction; each with both signs."""
    scalars: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    """Of simultaneous steering: what every direction is multiplied with; each with both signs."""
    combined_layer: int | None = None
    """The layer at which combined directions are added; chosen on the tune split when not given."""
    simultaneous_layers: tuple[int, ...] | None = None
    """A layer for each behaviour; chosen on the tune split when not given."""
    span: SpanName = "all"
    """The tokens to steer."""
    max_faulty: float = 0.05
    """The largest share of answers that may be neither of the two (the paper: 10 of 200)."""
    text: str | None = None
    """SOURCE of general text for the alignment tax; documentation of Python's standard library when not given."""
    texts: int = 48
    """How many of them."""
    batch_size: int = 128
    seed: int = 0
    out: Path = Path("runs/behaviours")
    """The run's folder. A run that was stopped goes on from there."""


SIGNS = {"+": 1, "-": -1}
MOST_LAYERS = 8  # of the grid, when none are given; the paper's 32-layer model has eight
DRAWS = 8  # random directions that the control's items take in turn


def main(config: Config) -> None:
    """The method, step by step; what each step made lies in the run folder."""
    # 0. Whatever can be wrong is found before any weights are loaded.
    check_numbers(config)
    behaviours = [load_behaviour(text, Form(config.question, config.opener), config.seed) for text in config.behaviours]
    check_behaviours(config, [b.name for b in behaviours])
    files = find_model(config.model, config.revision, templated=config.template)
    depth = num_layers(files.config)
    also = [*(config.simultaneous_layers or ()), *([] if config.combined_layer is None else [config.combined_layer])]
    layers = tuple(sorted({*(config.layers or spaced(depth)), *also}))
    check_layers(layers, depth)
    settings = kept.settings_of(config)
    check_folder(config.out, settings, "behaviours")
    texts = general_texts(config)
    runner = kept.open_runner(files, kept.where_of(config, config.batch_size), config.out)
    data = {b.name: fingerprint([b.fit, b.tune, b.test]) for b in behaviours} | {"text": fingerprint(texts)}
    folder = open_folder(config.out, settings, {"model": asdict(runner.model), "data": data}, "behaviours")
    span, limit = SPANS[config.span], config.max_faulty

    # 1. A direction for each behaviour: the mean difference, on the letter, of both answers to the same questions.
    with folder.timed("directions"):
        sites, answered = block_outs(layers), {b.name: contrast(b.fit, config.balanced) for b in behaviours}
        directions = {
            name: kept.fitted(folder, f"direction_{name}", runner, pairs, sites, Last(), "mean_difference")
            for name, pairs in answered.items()
        }
        folder.write_json("cosines.json", cosines(directions))

    # 2. Each alone: the layer and coefficient that move it furthest up and down, on the tune split.
    with folder.timed("grid"):
        cells = grid.walk(folder, runner, behaviours, directions, config.coefficients, span, limit)
        alone = {f"{name} {sign}": grid.best(cells, name, n, limit) for name, (sign, n) in product(directions, SIGNS.items())}

    # 3. All together: combined into one direction at one layer, or each at a layer of its own.
    with folder.timed("together"):
        spreads = grid.spreads(cells, limit)
        layer = grid.common_layer(spreads) if config.combined_layer is None else config.combined_layer
        weights = {sign: [grid.best(cells, b, n, limit, layer).coefficient for b in directions] for sign, n in SIGNS.items()}
        places = dict(zip(directions, config.simultaneous_layers or grid.layer_of_each(spreads).values(), strict=True))
        scalars = sorted({0.0, *config.scalars, *(-s for s in config.scalars)})
        steps = {s: simultaneous(directions, places, s, span) for s in scalars}
        swept = sweep(folder, runner, behaviours, steps)
        scalar = {sign: best_scalar(swept, n, limit) for sign, n in SIGNS.items()}
        chosen = {"alone": {name: asdict(cell) for name, cell in alone.items()}, "layer": layer, "weights": weights}
        folder.write_json("chosen.json", chosen | {"layers": places, "scalars": scalar, "spreads": spreads})

    # 4. Every way to steer on every behaviour's test items; random directions of the same lengths on the behaviour's own.
    with folder.timed("test"):
        variants = {"baseline": Program()} | {name: steered(directions[c.behaviour], c, span) for name, c in alone.items()}
        variants |= combined(directions, layer, weights, span) | {f"simultaneous {s}": steps[scalar[s]] for s in SIGNS}
        controls = {
            f"random {name}": [steered(fit.random_like(directions[c.behaviour], config.seed + i), c, span) for i in range(DRAWS)]
            for name, c in alone.items()
        }
        draws = {f"{name} {i}": program for name, programs in controls.items() for i, program in enumerate(programs)}
        save_programs(folder / "programs.safetensors", variants | draws)
        asked = [Asked(v, b.name, item, program) for v, program in variants.items() for b in behaviours for item in b.test]
        for (name, programs), b in zip(controls.items(), [b for b in behaviours for _ in SIGNS], strict=True):
            asked += [Asked(name, b.name, item, one, True) for item, one in zip(b.test, cycle(programs), strict=False)]
        ask(folder, "rows.jsonl", runner, asked)

    # 5. The alignment tax: what each way to steer takes of the model's predictions of general text.
    with folder.timed("text"):
        all_of = variants | {f"simultaneous {s:g}": program for s, program in steps.items()}
        predict(folder, "text_rows.jsonl", runner, {name: [program] for name, program in all_of.items()} | controls, texts)

    # 6. The summary, the figures and the page.
    report.write(folder)


def steered(directions: Directions, cell: grid.Cell, span: Where) -> Program:
    """A direction added at the layer and with the coefficient that were chosen."""
    return add({Site(cell.layer): directions[Site(cell.layer)]}, cell.coefficient, span)


def spaced(layers: int) -> tuple[int, ...]:
    """All layers of a small model, MOST_LAYERS of a larger one."""
    n = min(layers, MOST_LAYERS)
    return tuple(round(i * (layers - 1) / max(1, n - 1)) for i in range(n))


def general_texts(config: Config) -> list[str]:
    """The texts of the alignment tax, drawn by the seed."""
    texts = load_texts(config.text, "text") if config.text else documents.prose("test")
    return Random(config.seed).sample(texts, min(config.texts, len(texts)))


def check_numbers(config: Config) -> None:
    """Refuses numbers that no run can use."""
    at_least_one(config, "texts", "batch_size")
    for name in ("coefficients", "scalars"):
        for value in getattr(config, name):
            if not isfinite(value) or value <= 0:
                raise UserError(f"--{name} {value}: must be finite and above 0, such as 1.5; both signs are tried")
    if not 0 <= config.max_faulty <= 1:
        raise UserError(f"--max-faulty {config.max_faulty}: must be a share from 0 to 1, such as 0.05")


def check_behaviours(config: Config, names: list[str]) -> None:
    """Refuses names and layers that do not go together."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"--behaviours: {', '.join(twice)} is given twice; name them apart with NAME=SOURCE")
    own = {"mean", "sum", "weighted mean", "weighted sum", "simultaneous", *(f"random {name}" for name in names)}
    if taken := sorted(own & set(names)):
        raise UserError(f"--behaviours: {', '.join(taken)} is the name of a way to steer; give another with NAME=SOURCE")
    if config.simultaneous_layers and len(config.simultaneous_layers) != len(names):
        given = len(config.simultaneous_layers)
        raise UserError(f"--simultaneous-layers: {given} for {len(names)} behaviours; give one for each")

