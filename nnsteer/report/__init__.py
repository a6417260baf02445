"""Rows to a summary, tables, figures and a page. All is rebuilt from the run's folder."""

from __future__ import annotations

from importlib import import_module

from nnsteer.errors import UserError
from nnsteer.folder import Folder

FILES = {
    "study.json": "study",
    "dose.json": "refusal",
    "categories.json": "categories",
    "choice.json": "skills",
    "chosen.json": "behaviours",
    "layer.json": "affine",
}
"""The modules that write pages, by the file that tells a run where config.json doesn't name it."""


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder, prints the
    tables, and returns the summary. Raises UserError where it holds no run of a recipe or study."""
    return import_module(f"nnsteer.report.{recipe_of(folder)}").write(folder)


def recipe_of(folder: Folder) -> str:
    """The recipe whose run lies in a folder."""
    config = folder.read_json("config.json") if folder.has("config.json") else {}
    by_file = next((recipe for file, recipe in FILES.items() if folder.has(file)), None)
    recipe = config.get("recipe") or by_file
    if recipe in FILES.values():
        return str(recipe)
    raise missing(folder)


def missing(folder: Folder) -> UserError:
    """What is said of a folder that holds nothing to report."""
    return UserError(
        f"{folder.path}: no study and no finished run of refusal, categories, affine, skills or "
        "behaviours in it; give the folder of one, or finish it"
    )
