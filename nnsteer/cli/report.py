"""Rebuild the summary, figures and page of a run of a recipe or of a study from what lies in its folder.

    nnsteer report runs/refusal

Nothing is asked of a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nnsteer.errors import UserError
from nnsteer.folder import Folder


@dataclass(frozen=True)
class Config:
    """Which run."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Its folder."""


def main(config: Config) -> None:
    """Finds out what sort of run it is, and writes its page."""
    from nnsteer import report
    from nnsteer.report import affine, behaviours, categories, skills, study

    folder = Folder(config.run.expanduser())
    if folder.has("study.json"):
        study.write(folder)
    elif folder.has("dose.json") and folder.has("summary.json"):
        report.write(folder)
    elif folder.has("categories.json") and folder.has("summary.json"):
        categories.write(folder)
    elif folder.has("choice.json") and folder.has("summary.json"):
        skills.write(folder)
    elif folder.has("chosen.json") and folder.has("summary.json"):
        behaviours.write(folder)
    elif folder.has("layer.json") and folder.has("summary.json"):
        affine.write(folder)
    else:
        raise UserError(
            f"{config.run}: no study and no finished run of refusal, categories, affine, skills or behaviours in it; "
            "give the folder of one, or finish it"
        )
