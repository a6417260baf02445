"""Rows to a summary, tables, figures and a page. All is rebuilt from the run's folder."""

from __future__ import annotations

from importlib import import_module

from nnsteer.errors import UserError
from nnsteer.folder import Folder, config_of

RECIPES = (
    "refusal",
    "categories",
    "affine",
    "skills",
    "behaviours",
    "implementations",
    "study",
)
"""Each with a module here that writes its page."""
GIVE = f"give the folder of a study, or of a finished run of {', '.join(RECIPES[:-1])}"
DONE = ("study.json", "summary.json", "table.json")


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder, prints the
    tables, and returns the summary. Raises UserError where it holds no run of a recipe or study."""
    recipe = config_of(folder.path, "report", GIVE)["recipe"]
    if recipe not in RECIPES:
        raise UserError(
            f"{folder.path}: a run of {recipe}, whose pages nnsteer doesn't write; {GIVE}"
        )
    return import_module(f"nnsteer.report.{recipe}").write(folder)


def check_finished(folder: Folder) -> None:
    """Raises UserError for a folder without a run that has something to report."""
    if not any(map(folder.has, DONE)):
        raise UserError(f"{folder.path}: no study and no finished run in it; {GIVE}")
