"""The study command."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nnsteer import cli
from nnsteer.folder import open_folder
from nnsteer.load import find_model
from nnsteer.measure.named import measures
from nnsteer.prompts import load_openers
from nnsteer.runner import Runner
from nnsteer.study.build import build
from nnsteer.study.run import run
from nnsteer.study.spec import read_spec


@dataclass(frozen=True)
class Config:
    """What to run, and where."""

    file: Annotated[Path, tyro.conf.Positional]
    """The study, a TOML file such as recipes/ablations/layer_strength.toml."""
    out: Path = Path("runs/study")
    """The run's folder. A study that was stopped, or whose file was changed, goes on from there."""
    batch_size: int = 128


def main(config: Config) -> None:
    """Reads the file, loads the model, fits, runs what is missing, and writes the page."""
    spec = read_spec(config.file)
    files = find_model(spec.model)
    runner = Runner.open(files, batch_size=config.batch_size)
    folder = open_folder(config.out, {"study": str(config.file), "model": spec.model}, {"model": asdict(runner.model)})
    study = build(spec, runner, folder, measures(spec.measures, runner, load_openers("nnsteer:refusals.jsonl"), folder.path))
    run(study, runner, folder)


if __name__ == "__main__":
    cli.run(Config, main, __doc__ or "")
