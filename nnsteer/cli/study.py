"""Run a study: every variant of a grid on every prompt of its sets, by every measure; killed and
resumed at will.

    nnsteer study recipes/ablations/layer_strength.toml --out runs/layer_strength
    nnsteer study recipes/ablations/layer_strength.toml --out runs/layer_strength --dry-run

A changed file keeps all results that the change does not touch. Writes into --out: directions and
thresholds, completions.jsonl (answers), rows.jsonl (values), summary.json, figures/ and
report.html.

What stands in the file, with defaults; a list makes a variant for each of its entries, a list of
lists steers several layers:

    model = "nnsteer:organism"            # a hub id, a folder, or the bundled model
    measures = ["refusal", "kl"]
    max_new_tokens = 24                   # of each answer
    seed = 0
    controls = true                       # a random direction as long beside each variant
    [sets.NAME]                           # prompts to report on, one table each
    source = "SOURCE"
    split = "test"                        # or fit, tune
    first = 40                            # only so many; all when not given
    [directions.NAME]                     # what to fit, on the fit split
    positive = "SOURCE"
    negative = "SOURCE"
    prompts = "SOURCE"                    # when the sides are openers of answers to these
    read = "prompt"                       # tokens, as in `nnsteer fit --read`
    pairs = 1000                          # at most
    [conditions.NAME]                     # when to steer
    direction = "NAME"
    layer = 1
    method = "lda"
    score = "cosine"
    threshold = 0.1                       # found on the tune split when not given
    fires_when = "above"                  # of a given threshold; or below
    [[variants]]                          # what to try, one table a grid
    direction = "NAME"
    layer = [0, 1, [0, 1, 2]]
    strength = 1.0
    op = "add"                            # or ablate, affine, clamp, module:function
    method = "mean_difference"            # as in `nnsteer fit --method`
    span = "all"                          # or prompt, last_prompt, generated
    unit = "length"                       # or absolute, norm, as in `nnsteer generate --unit`
    when = "NAME and not OTHER"           # conditions; always when not given
    [recommend]                           # the highest effect whose drift keeps a limit
    effect = "refusal"                    # a measure
    on = "NAME"                           # a set
    drift = "kl"
    drift_on = "NAME"
    limit = 0.5
    prefer = "higher"                     # or lower

Measures of answers: refusal, keywords, classifier[:MODEL@REVISION[,label=LABEL]], either[:...] of
those two, judge:FILE.toml, matching:SOURCE, faulty:SOURCE, length, distinct-N, drift, broken. Of
the model itself: kl, top-N, cross-entropy, chooses:SOURCE, margin:SOURCE. An op, a method or a
measure of your own goes by its entry point's name or as module:function (CONTRIBUTING.md).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

import nnsteer
from nnsteer.command import at_least_one
from nnsteer.folder import Folder, check_folder, open_folder
from nnsteer.study.spec import read_spec
from nnsteer.texts.source import load_openers


@dataclass(frozen=True)
class Config:
    """What to run, and where."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.toml")]
    """The study, such as recipes/ablations/layer_strength.toml."""
    out: Path = Path("runs/study")
    """The run's folder. A study that was stopped, or whose file was changed, goes on from there."""
    batch_size: int = 256
    """Prompts that are answered at once, whatever their variants; halved where memory runs out."""
    remote: str | None = None
    """Run on a server: `ndif`, the URL of another deployment, or `local` for nnsight's simulation
    of one."""
    remote_model: str | None = None
    """The model's name there, where it is another."""
    dry_run: bool = False
    """Says what it would take and how much of it is there. Loads no weights and writes nothing."""


def main(config: Config) -> None:
    """Reads the file, loads the model, fits, runs what is missing, and writes the page."""
    from nnsteer.measure.named import measures
    from nnsteer.model.connect import open_runner
    from nnsteer.model.options import ModelOptions
    from nnsteer.report import study as report
    from nnsteer.report.look import show
    from nnsteer.study.build import build
    from nnsteer.study.fitting import find_conditions, fit_directions
    from nnsteer.study.inputs import load_inputs
    from nnsteer.study.plan import Planner, plan, stand_in, table
    from nnsteer.study.study import run

    at_least_one(config, "batch_size")
    spec, out, openers = (
        read_spec(config.file),
        config.out.expanduser(),
        load_openers("nnsteer:refusals.jsonl"),
    )
    settings = {"study": str(config.file), "model": spec.model}
    check_folder(out, settings, writes=not config.dry_run)
    inputs, taken = load_inputs(spec), measures(spec.measures, openers, out)
    files = nnsteer.find_model(spec.model)
    # made without weights first: that finds what is wrong in the file
    planner = Planner(spec, inputs, files, Folder(out), config.batch_size)
    fitted, conditions = stand_in(planner)
    rehearsed = build(spec, inputs, fitted, conditions, taken, planner.weights)
    if config.dry_run:
        n, prompts = (
            len(rehearsed.variants),
            sum(len(prompts.prompts) for prompts in rehearsed.sets),
        )
        variants = f"with the baseline and the controls {n} variants"
        heading = f"{len(spec.cells)} cells; {variants}, on {prompts} prompts each"
        show(heading, table(plan(planner, rehearsed, fitted)))
        return

    where = ModelOptions(spec.model, remote=config.remote, remote_model=config.remote_model)
    runner = open_runner(files, where, config.batch_size, out)
    folder = open_folder(out, settings, {"model": asdict(runner.model)})
    fitted = fit_directions(spec, inputs, runner, folder)
    conditions = find_conditions(spec, inputs, fitted, runner, folder)
    run(build(spec, inputs, fitted, conditions, taken, runner.model.weights), runner, folder)
    report.write(folder)
