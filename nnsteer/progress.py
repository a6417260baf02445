"""Progress bars on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console

STDERR = Console(stderr=True)
"""Shared, so that what is printed while a bar is up stands above it."""
Watch = Callable[[int], None]
"""Told the number of rows done after each batch; drives progress bars."""


def ignore(rows: int) -> None:
    """The Watch that watches nothing."""


@contextmanager
def bar(task: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over `total` rows; yields the function that is told how many more are done."""
    name = progress.TextColumn("{task.description:<34}")
    share = progress.BarColumn(), progress.MofNCompleteColumn()
    times = progress.TimeElapsedColumn(), progress.TimeRemainingColumn()
    with progress.Progress(name, *share, *times, console=STDERR) as bars:
        number = bars.add_task(task, total=total)
        yield lambda done: bars.advance(number, done)
