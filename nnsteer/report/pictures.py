"""What a figure of the page is, and how it gets into the folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import matplotlib
from matplotlib.figure import Figure

from nnsteer.folder import Folder

WIDTH = 3.6  # inches: one panel, whose 9 points are 11 pixels high on a phone 360 pixels wide
FONTS = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
}


@dataclass(frozen=True)
class Picture:
    """A figure for the page: its file's name, the heading it stands under, what it shows, and how it is drawn."""

    name: str
    group: str
    note: str
    """How the figures of its group are read; said once."""
    shows: str
    """This one, in a few words."""
    make: Callable[[], Figure]


def draw(folder: Folder, pictures: Iterable[Picture]) -> list[Picture]:
    """Writes each picture into figures/ as PNG and PDF, and returns them under the names that they got."""
    (folder / "figures").mkdir(exist_ok=True)
    drawn: dict[str, Picture] = {}
    for picture in pictures:
        name = picture.name
        while name in drawn:  # `harm` and `~harm` are one name among files
            name += "-2"
        with matplotlib.rc_context(FONTS):
            figure = picture.make()
            figure.savefig(folder / "figures" / f"{name}.png", dpi=200)
            figure.savefig(folder / "figures" / f"{name}.pdf", metadata={"CreationDate": None})
        drawn[name] = replace(picture, name=name)
    return list(drawn.values())


def file_name(*words: str) -> str:
    """Words as a file's name."""
    return "-".join(re.findall(r"[a-z0-9.]+", " ".join(words).lower()))
