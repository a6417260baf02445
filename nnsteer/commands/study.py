"""Run a study: every variant of a grid on every prompt of its sets, by every measure; killed and resumed at will.

    nnsteer study recipes/ablations/layer_strength.toml --out runs/layer_strength
    nnsteer study recipes/ablations/layer_strength.toml --out runs/layer_strength --dry-run

A changed file keeps all results that the change does not touch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

import nnsteer
from nnsteer.commands import options
from nnsteer.folder import Folder, check_folder, open_folder
from nnsteer.prompts import load_openers
from nnsteer.study.spec import read_spec


@dataclass(frozen=True)
class Config:
    """What to run, and where."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.toml")]
    """The study, such as recipes/ablations/layer_strength.toml."""
    out: Path = Path("runs/study")
    """The run's folder. A study that was stopped, or whose file was changed, goes on from there."""
    batch_size: int = 128
    dry_run: bool = False
    """Says what it would take and how much of it is there. Loads no weights and writes nothing."""


def main(config: Config) -> None:
    """Reads the file, loads the model, fits, runs what is missing, and writes the page."""
    from nnsteer.measure.named import measures
    from nnsteer.report import study as report
    from nnsteer.report.look import show
    from nnsteer.study.build import build, find_conditions, fit_directions
    from nnsteer.study.plan import Planner, plan, stand_in, table
    from nnsteer.study.run import run

    options.at_least_one("batch_size", config.batch_size)
    spec, out, openers = read_spec(config.file), config.out.expanduser(), load_openers("nnsteer:refusals.jsonl")
    settings = {"study": str(config.file), "model": spec.model}
    check_folder(out, settings)
    files = nnsteer.find_model(spec.model)
    # made without weights first: that finds what is wrong in the file
    planner = Planner(spec, files, Folder(out), config.batch_size)
    rehearsed = build(spec, *stand_in(planner), measures(spec.measures, planner.runner, openers, out))
    if config.dry_run:
        n, prompts = len(rehearsed.variants), sum(len(prompts.prompts) for prompts in rehearsed.sets)
        heading = f"{len(spec.cells)} cells; with the baseline and the controls {n} variants, on {prompts} prompts each"
        show(heading, table(plan(planner, rehearsed)))
        return

    runner = nnsteer.Runner.open(files, batch_size=config.batch_size)
    folder = open_folder(out, settings, {"model": asdict(runner.model)})
    fitted = fit_directions(spec, runner, folder)
    conditions = find_conditions(spec, fitted, runner, folder)
    run(build(spec, fitted, conditions, measures(spec.measures, runner, openers, out)), runner, folder)
    report.write(folder)
