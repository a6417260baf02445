"""Files that are complete or not there at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError

from nnsteer.errors import UserError

PARTIAL = ".partial"
"""How the names of files end that are not complete yet."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """The name of a new file beside `path`, no other file's, which takes its place once the block
    has written it; after an error it is gone and `path` as it was. The file's permissions are
    those of any new file. Raises UserError where it can't be written."""
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it, or give another path")
    partial = path.with_name(f".{path.name}.{uuid4().hex}{PARTIAL}")
    try:
        partial.touch(exist_ok=False)
        mode = partial.stat().st_mode  # as the umask says, which `save_file` does not ask
        yield partial
        partial.chmod(mode)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: can't be written ({error}); give another path") from error
    finally:
        partial.unlink(missing_ok=True)
