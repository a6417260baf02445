"""A command line from a frozen dataclass: options, `--config FILE.toml`, and one-line errors."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass, replace
from itertools import chain, pairwise
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
EVERY_VERB = """\
Any of these may stand in a file, `layers = [0, 1]`: --config FILE.toml; what is typed wins.
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
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kinds[0], set()))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return replace(
        spec,
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: (
            ["None"] if value is None else spec.str_from_instance(value)
        ),
    )


def run(
    config: type[T],
    main: Callable[[T], Any],
    description: str,
    args: Sequence[str] | None = None,
    prog: str | None = None,
) -> None:
    """Parses the command line into `config` and calls `main` with it. `prog` names the command
    where its file does not."""
    keep_freed_memory()
    with reported():
        main(parse(config, description, list(sys.argv[1:] if args is None else args), prog))


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """A user's mistake ends in one line on standard error; Ctrl-C says how to go on."""
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
    typed = [arg.split("=")[0].removeprefix("--") for arg in rest if arg.startswith("--")]
    given = {option.replace("-", "_").removeprefix("no_") for option in typed}
    below = [as_option(name, value) for name, value in values.items() if name not in given]
    # the preset's come last: a list of values must not swallow an argument without a name
    words, text = [*rest, *chain(*below)], f"{description.rstrip()}\n\n{EVERY_VERB}"
    said = io.StringIO()
    try:
        with READABLE, contextlib.redirect_stderr(said):
            return tyro.cli(config, args=words, description=text, prog=prog)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{one_line(said.getvalue())}; see --help") from None


def named_server(args: list[str]) -> list[str]:
    """A bare `--remote` means NDIF itself."""
    pairs = pairwise([*args, "--"])
    return [
        "--remote=ndif" if arg == "--remote" and following.startswith("--") else arg
        for arg, following in pairs
    ]


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
    options = list(option_names(config))
    if unknown := sorted(set(values) - set(options)):
        mistake = f"no such option: {', '.join(unknown)}"
        raise UserError(f"--config {path}: {mistake}; known: {', '.join(options)}")
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
    text = " ".join(re.sub(r"[│╭╮╰╯─┃━]+", " ", message).split())
    return re.sub(r"\s*For full helptext.*$", "", text)


def at_least_one(config: object, *names: str) -> None:
    """Raises UserError for an option among `names` that counts something and is below one."""
    for name in names:
        count = getattr(config, name)
        if count < 1:
            raise UserError(f"--{name.replace('_', '-')} {count}: must be at least 1")
