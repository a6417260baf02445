"""Several behaviours at once (van der Weij et al. 2024, *Extending Activation Steering to Broad
Skills and Multiple Behaviours*): a direction for each from questions with two answers (Contrastive
Activation Addition, Rimsky et al. 2023), added alone, combined into one, or each at its own layer;
what that does to every behaviour, and to general text.

    python -m nnsteer.recipes.behaviours      # the bundled model and six behaviours: minutes
    python -m nnsteer.recipes.behaviours --behaviours myopic.jsonl wealth=mine.csv --layers 1 2
    python -m nnsteer.recipes.behaviours --config recipes/behaviours-llama2.toml  # as in the paper
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nnsteer import Last, Program, block_outs, measure, report, study
from nnsteer.recipes.behaviours import grid, options, ways

BUNDLED = ("wealth", "power", "myopia", "sycophancy", "survival", "risk")


@dataclass(frozen=True)
class Config(options.ModelOptions):
    """Defaults run the bundled model on the bundled items."""

    template: bool = True
    """Whether the model's chat template is put around a question; without it a question is plain
    text (base models)."""
    behaviours: tuple[str, ...] = tuple(f"nnsteer:behaviours/{name}.jsonl" for name in BUNDLED)
    """[NAME=]SOURCE of items, one for each behaviour, with the columns `question`,
    `answer_matching_behavior` and `answer_not_matching_behavior` as published."""
    question: str = "{question}"
    """How a question is put."""
    opener: str = " ("
    """What the model is made to write before the letter; {options} stands for `(A) and (B)` or
    `(Yes) and (No)`."""
    balanced: bool = True
    """Fit on as many items of each matching letter: the letter is then no part of the direction."""
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
    span: options.SpanName = "all"
    """The tokens to steer."""
    max_faulty: float = 0.05
    """The largest share of answers that may be neither of the two (the paper: 10 of 200)."""
    text: str | None = None
    """SOURCE of general text for the alignment tax; documentation of Python's standard library when
    not given."""
    texts: int = 48
    """How many of them."""
    batch_size: int = 128
    seed: int = 0
    out: Path = Path("runs/behaviours")
    """The run's folder. A run that was stopped goes on from there."""


def main(config: Config) -> None:
    """The method, step by step; what each step made lies in the run folder."""
    # 0. Whatever can be wrong is found before any weights are loaded.
    options.check(config)
    behaviours = options.behaviours(config)
    files, layers = options.model(config)
    text = options.general_text(config)
    run = study.start("behaviours", config, files, options.fingerprints(behaviours, text))
    span, limit = options.SPANS[config.span], config.max_faulty

    # 1. A direction for each behaviour: the mean difference, on the letter, of both answers to the
    #    same questions.
    with run.timed("directions"):
        sites, on_letter, method = block_outs(layers), Last(), "mean_difference"
        answered = {b.name: options.contrast(b.fit, config.balanced) for b in behaviours}
        directions = {
            name: run.fit(f"direction_{name}", both_answers, sites, on_letter, method)
            for name, both_answers in answered.items()
        }
        run.folder.write_json("cosines.json", ways.cosines(directions))

    # 2. Each alone: the layer and coefficient that move it furthest up and down, on the tune split.
    with run.timed("grid"):
        cells = grid.walk(run, behaviours, directions, config.coefficients, span, limit)
        alone = grid.best_of_each(cells, limit)

    # 3. All together: combined into one direction at one layer, or each at a layer of its own.
    with run.timed("together"):
        spreads, given = grid.spreads(cells, limit), config.combined_layer
        layer = grid.common_layer(spreads) if given is None else given
        at_layer = grid.best_of_each(cells, limit, layer)
        layer_of_each = config.simultaneous_layers or grid.layer_of_each(spreads)
        layer_of = dict(zip(directions, layer_of_each, strict=True))
        at_once = ways.simultaneous(directions, layer_of, config.scalars, span)
        swept = grid.sweep(run, behaviours, at_once)
        scalars = {s: grid.best_scalar(swept, sign, limit) for s, sign in ways.SIGNS.items()}
        chosen = {"alone": ways.facts(alone), "at_layer": ways.facts(at_layer), "layer": layer}
        chosen |= {"layers": layer_of, "scalars": scalars, "spreads": spreads}
        run.folder.write_json("chosen.json", chosen)

    # 4. Every way to steer on every behaviour's test items; random directions of the same lengths
    #    on the behaviour's own.
    with run.timed("test"):
        variants = [
            study.Variant(study.BASELINE, Program()),
            *(way.variant(name, directions, span) for name, way in alone.items()),
            *ways.combined(directions, at_layer, layer, span),
            *(replace(at_once[scalars[s]], name=f"simultaneous {s}") for s in ways.SIGNS),
        ]
        controls = [
            way.control(f"random {name}", directions, span, config.seed)
            for name, way in alone.items()
        ]
        run.save([*variants, *ways.draws(controls)])
        for b in behaviours:
            of_its_own = [control for control in controls if control.axes["behaviour"] == b.name]
            grid.ask(run, [*variants, *of_its_own], b, "test")

    # 5. The alignment tax: what each way to steer takes of the model's predictions of general text.
    with run.timed("text"):
        run.folder.write_json("texts.json", [prompt.text for prompt in text.prompts])
        run.ask([*variants, *at_once.values(), *controls], [text], [measure.hits()])

    # 6. The summary, the figures and the page.
    report.write(run.folder)
