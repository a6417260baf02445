"""What comes with nnsteer: data (beside an installed package, or atop a checkout) and a model."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jsonlines

PACKAGE = Path(__file__).parent.parent


def data_path(name: str) -> Path:
    """A file of `data/`, e.g. `harmful.jsonl` or `topics/theft.jsonl`."""
    installed = PACKAGE / "data"
    return (installed if installed.is_dir() else PACKAGE.parent / "data") / name


def organism() -> Path:
    """The folder of the bundled model organism; `AutoModelForCausalLM.from_pretrained` loads it."""
    return PACKAGE / "organism" / "weights"


@cache
def bundled(name: str) -> list[dict]:
    """The rows of a bundled .jsonl file."""
    with jsonlines.open(data_path(name)) as rows:
        return list(rows)
