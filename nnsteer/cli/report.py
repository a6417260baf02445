"""Rebuild the summary, figures and page of a recipe's run or a study from what lies in its folder.

    nnsteer report runs/refusal

Nothing is asked of a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nnsteer.folder import Folder


@dataclass(frozen=True)
class Config:
    """Which run."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Its folder."""


def main(config: Config) -> None:
    """Finds out what sort of run it is, and writes its page."""
    from nnsteer import report

    folder = Folder(config.run.expanduser())
    report.check_finished(folder)
    report.write(folder)
