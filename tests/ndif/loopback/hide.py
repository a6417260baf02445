"""Makes packages that are installed here look as absent as they are on a server."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.abc import MetaPathFinder


class Hidden(MetaPathFinder):
    """Finds nothing of some packages, and says so before others look."""

    def __init__(self, packages: Iterable[str]) -> None:
        self.packages = frozenset(packages)

    def find_spec(self, fullname: str, *_: object) -> None:
        """Raises for a hidden package; leaves others to others."""
        if fullname.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def hide(packages: Iterable[str]) -> None:
    """From now on, importing one of `packages` fails."""
    sys.meta_path.insert(0, Hidden(packages))
