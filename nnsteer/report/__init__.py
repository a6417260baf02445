"""Rows to a summary, a table in the terminal, figures and a page. Everything is rebuilt from the run folder."""

from __future__ import annotations

from importlib import import_module

from nnsteer.errors import UserError
from nnsteer.folder import Folder

RECIPES = {
    name: f"nnsteer.report.{name}"
    for name in ("refusal", "categories", "affine", "skills", "behaviours", "implementations", "study")
}
"""The module that writes each recipe's page."""
OLDER = {
    "study.json": "study",
    "dose.json": "refusal",
    "categories.json": "categories",
    "choice.json": "skills",
    "chosen.json": "behaviours",
    "layer.json": "affine",
}
"""The file that tells a folder's recipe where config.json doesn't say it."""


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder, prints the tables, and returns the
    summary. Raises UserError where it holds no run of a recipe or study."""
    return import_module(RECIPES[recipe_of(folder)]).write(folder)


def recipe_of(folder: Folder) -> str:
    """The recipe whose run lies in a folder."""
    named = folder.read_json("config.json").get("recipe") if folder.has("config.json") else None
    found = named or next((recipe for file, recipe in OLDER.items() if folder.has(file)), None)
    if found not in RECIPES:
        raise missing(folder)
    return found


def missing(folder: Folder) -> UserError:
    """What is said of a folder that holds nothing to report."""
    return UserError(
        f"{folder.path}: no study and no finished run of refusal, categories, affine, skills or behaviours in it; "
        "give the folder of one, or finish it"
    )
