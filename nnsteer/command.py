"""A command line from a frozen dataclass: options, `--config FILE.toml`, and one-line errors with exit status 2."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from nnsteer.errors import UserError
from nnsteer.memory import keep_freed_memory
from nnsteer.progress import STDERR
from nnsteer.toml import read_toml

T = TypeVar("T")
FAILED, STOPPED, UNHEARD = 2, 130, 141
QUIET = "--quiet"  # no progress bars; results and errors are still shown
EVERY_VERB = """Any of these may stand in a file, `layers = [0, 1]`: --config FILE.toml; what is typed wins.
Exit status: 0 done, 2 a mistake in what was asked for, 130 stopped by Ctrl-C.
What a SOURCE and the files are, `nnsteer --help` says."""

READABLE = ConstructorRegistry()
"""How options are read and shown."""


@READABLE.primitive_rule
def optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """An option that may be left out is shown as what it takes: `INT` rather than `{None}|INT`."""
    kinds = [kind for kind in get_args(info.type) if kind is not NoneType]
    if NoneType not in get_args(info.type) or len(kinds) != 1:
        return None
    own = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kinds[0], set()))
    if not isinstance(own, PrimitiveConstructorSpec):
        return None
    return replace(
        own,
        is_instance=lambda value: value is None or own.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else own.str_from_instance(value),
    )


def run(
    config: type[T], main: Callable[[T], Any], description: str, args: Sequence[str] | None = None, prog: str | None = None
) -> None:
    """Parses the command line into `config` and calls `main` with it. `prog` names the command where its file does not."""
    keep_freed_memory()
    with reported():
        main(parse(config, description, list(sys.argv[1:] if args is None else args), prog))


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """A user's mistake ends in one line on standard error; Ctrl-C says that the run can be continued."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(STOPPED)
    except BrokenPipeError:  # `| head` has heard enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(UNHEARD)


def parse(config: type[T], description: str, args: list[str], prog: str | None = None) -> T:
    """The options over the values of `--config FILE.toml`, over the defaults."""
    if QUIET in args:
        args, STDERR.quiet = [arg for arg in args if arg != QUIET], True
    chosen, rest = preset(named_server(args))
    values = {} if chosen is None else read_preset(chosen, config)
    given = {arg.split("=")[0].removeprefix("--").replace("-", "_").removeprefix("no_") for arg in rest if arg.startswith("--")}
    below = [word for name, value in values.items() if name not in given for word in as_option(name, value)]
    said = io.StringIO()
    try:
        with READABLE, contextlib.redirect_stderr(said):
            # the preset's come last: a list of values must not swallow an argument without a name
            return tyro.cli(config, args=rest + below, description=f"{description.rstrip()}\n\n{EVERY_VERB}", prog=prog)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{one_line(said.getvalue())}; see --help") from None


def named_server(args: list[str]) -> list[str]:
    """A bare `--remote` means NDIF itself."""
    alone = [arg == "--remote" and (args[i + 1 : i + 2] or ["--"])[0].startswith("--") for i, arg in enumerate(args)]
    return ["--remote=ndif" if bare else arg for arg, bare in zip(args, alone, strict=True)]


def as_option(name: str, value: Any) -> list[str]:
    """A preset's value as it would be typed, so that it is checked like one."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", *map(str, value if isinstance(value, list) else [value])]


def preset(args: list[str]) -> tuple[Path | None, list[str]]:
    """`--config FILE` taken out of the arguments."""
    for i, arg in enumerate(args):
        if arg == "--config" and i + 1 < len(args):
            return Path(args[i + 1]), args[:i] + args[i + 2 :]
        if arg.startswith("--config="):
            return Path(arg.removeprefix("--config=")), args[:i] + args[i + 1 :]
    return None, args


def read_preset(path: Path, config: Any) -> dict[str, Any]:
    """The values of a TOML file, by option name with underscores."""
    values = read_toml(path, "--config ", "a preset like recipes/refusal.toml")
    known = list(option_names(config))
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"--config {path}: no such option: {', '.join(unknown)}; known: {', '.join(known)}")
    return values


def option_names(config: Any) -> Iterator[str]:
    """The fields of a Config, those of the groups of options inside it included."""
    for name, kind in get_type_hints(config).items():
        if is_dataclass(kind):
            yield from option_names(kind)
        else:
            yield name


def one_line(message: str) -> str:
    """A boxed error of tyro's as one line."""
    words = re.sub(r"[│╭╮╰╯─┃━]+", " ", message).split()
    text = " ".join(words)
    return re.sub(r"\s*For full helptext.*$", "", text)


def at_least_one(config: object, *names: str) -> None:
    """Raises UserError for an option among `names` that counts something and is below one."""
    for name in names:
        if getattr(config, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(config, name)}: must be at least 1")
