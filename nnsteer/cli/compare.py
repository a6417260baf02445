"""Compare two studies: which settings differ, and what came out differently, prompt by prompt.

    nnsteer compare runs/layers runs/layers-again --page comparison.html

Differences are b minus a, on the prompts of both. Prints a table; writes nothing without --page.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nnsteer.cli import options
from nnsteer.folder import Folder


@dataclass(frozen=True)
class Config:
    """Which studies."""

    a: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """The folder of one."""
    b: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """The folder of the other."""
    page: Path | None = None
    """A new .html file for the same as a page."""


def main(config: Config) -> None:
    """Prints the comparison, and writes it."""
    from nnsteer.report.compare import compare

    page = None if config.page is None else options.new_path(config.page, ".html")
    compare(Folder(config.a.expanduser()), Folder(config.b.expanduser()), page)
