"""TOML files of the user's: presets, studies, judges."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from nnsteer.errors import UserError


def read_toml(path: Path, what: str, like: str) -> dict[str, Any]:
    """The file's values. Raises UserError that begins with `what` and names a file `like` it."""
    try:
        return tomllib.loads(path.expanduser().read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{what}{path}: no such file; give {like}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{what}{path}: not TOML ({error})") from None
