"""Progress bars on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

STDERR = Console(stderr=True)
"""Shared, so that what is printed while a bar is up stands above it."""
Watch = Callable[[int], None]
"""Told the number of rows done after each batch; drives progress bars."""


def ignore(rows: int) -> None:
    """The Watch that watches nothing."""


@contextmanager
def bar(task: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over `total` rows; yields the function that is told how many more are done."""
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=STDERR) as progress:
        number = progress.add_task(task, total=total)
        yield lambda done: progress.advance(number, done)
