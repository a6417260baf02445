"""Groups of options that several verbs have, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

import nnsteer
from nnsteer import command
from nnsteer.errors import UserError
from nnsteer.model.options import ModelOptions
from nnsteer.program.names import SPANS, OpName, SpanName, Unit
from nnsteer.texts.source import load_texts

if TYPE_CHECKING:
    from nnsteer.model.load import ModelFiles
    from nnsteer.program.condition import When
    from nnsteer.program.editor import Editor
    from nnsteer.program.site import Place

SHOWN = 6  # names that an error lists
Flat = tyro.conf.arg(name="")  # its options stand beside those of the verb
Strings = tuple[str, ...]


@dataclass(frozen=True)
class ChatOptions:
    """How prompts become tokens."""

    template: bool = True
    """Whether the model's chat template is put around a prompt; without it a prompt is plain text
    (base models)."""
    system: str | None = None
    """A system turn before every prompt."""


@dataclass(frozen=True)
class PromptOptions:
    """What the model is asked."""

    prompts: Annotated[Strings, tyro.conf.Positional, tyro.conf.arg(metavar="[PROMPT ...]")] = ()
    """What to ask. They come before any option that takes several values."""
    file: str | None = None
    """SOURCE of more prompts."""
    first: int | None = None
    """Only so many of the SOURCE."""


@dataclass(frozen=True)
class SteerOptions:
    """Directions, and what is done with them."""

    directions: Path | None = None
    """A file that `nnsteer fit` wrote."""
    op: OpName = "add"
    """Add them, remove them (ablate), or set how much of them there is, from the negative mean
    (affine) or from zero (clamp); or one from outside, by the name of its entry point or as
    module:function."""
    strength: float = 1.0
    """How many units; with affine and clamp, how much is set."""
    unit: Unit = "length"
    """What strengths count in: the direction's own length, 1 (absolute), or the mean norm of the
    states there."""
    layers: tuple[int, ...] | None = None
    """Those of the file to use; all when not given."""
    span: SpanName = "all"
    """The tokens to steer."""


@dataclass(frozen=True)
class ProgramOptions:
    """A saved program, or directions and what is done with them; and when."""

    programs: Path | None = None
    """A file of programs, or the folder of a refusal run, instead of directions."""
    variant: str | None = None
    """Which of its programs, where there are several."""
    steer: Annotated[SteerOptions, Flat] = field(default_factory=SteerOptions)
    conditions: tuple[Path, ...] = ()
    """Files that `nnsteer tune` wrote."""
    when: str | None = None
    """Steer a prompt only when this holds: names of conditions with and, or, not and parentheses;
    all of them when not given."""


Model = Annotated[ModelOptions, Flat]
Chat = Annotated[ChatOptions, Flat]
Prompts = Annotated[PromptOptions, Flat]
Steer = Annotated[SteerOptions, Flat]
Program = Annotated[ProgramOptions, Flat]


def find(model: ModelOptions, chat: ChatOptions) -> ModelFiles:
    """The model's config and tokenizer; no weights yet."""
    return nnsteer.find_model(model.model, model.revision, chat.system, chat.template)


def open_runner(files: ModelFiles, model: ModelOptions, batch_size: int = 32) -> nnsteer.Runner:
    """Loads the weights, or finds the model on a server."""
    from nnsteer.model.connect import open_runner

    return open_runner(files, model, batch_size)


def texts(options: PromptOptions) -> list[str]:
    if options.first is not None:
        command.at_least_one(options, "first")
    from_file = load_texts(options.file)[: options.first] if options.file else []
    return [*options.prompts, *from_file]


def program(options: ProgramOptions) -> nnsteer.Program:
    """The program that the options describe. Raises UserError for ones that exclude each other."""
    if (options.programs is None) == (options.steer.directions is None):
        raise UserError(
            "give either --programs FILE or --directions FILE (with --op, --strength, --layers, "
            "--span) to steer with"
        )
    if options.programs is None:
        if options.variant is not None:
            names = "names one of the --programs; leave it out with --directions"
            raise UserError(f"--variant {options.variant}: {names}")
        steps = steered(options.steer)
    elif options.steer == SteerOptions():
        steps = variant(options.programs, options.variant)
    else:
        brings = "brings its own directions, op, strength, layers and span"
        raise UserError(f"--programs: {brings}; leave those options out")
    if options.conditions:
        return ruled(steps, options)
    if options.when is not None:
        needs = "give the files of its conditions with --conditions"
        raise UserError(f"--when {options.when}: {needs}")
    return steps


def ruled(steps: nnsteer.Program, options: ProgramOptions) -> nnsteer.Program:
    from nnsteer.program import rules

    conditions: dict[str, When] = {}
    for file in options.conditions:
        loaded = nnsteer.load_conditions(file)
        if twice := ", ".join(sorted(conditions.keys() & loaded)):
            advice = "tune one again by another name"
            raise UserError(f"--conditions {file}: another file has {twice} too; {advice}")
        conditions |= loaded
    rule = f"if {options.when or ' and '.join(conditions)} then steer"
    return rules.program([rule], conditions, {"steer": steps})


def variant(path: Path, name: str | None) -> nnsteer.Program:
    """One of the programs in a file, or in the programs.safetensors of a run's folder."""
    path = path / "programs.safetensors" if path.is_dir() else path
    programs = nnsteer.load_programs(path)
    if name is None and len(programs) == 1:
        return next(iter(programs.values()))
    if name not in programs:
        there = ", ".join(list(programs)[:SHOWN]) + (", ..." if len(programs) > SHOWN else "")
        given = "holds several programs" if name is None else f"has no variant {name}"
        raise UserError(f"{path}: {given}; give one with --variant, of {there}")
    return programs[name]


def steered(options: SteerOptions) -> nnsteer.Program:
    from nnsteer.program.program import op_named

    if options.directions is None:
        raise UserError("--directions: give a file that `nnsteer fit` wrote")
    if not isfinite(options.strength):
        raise UserError(f"--strength {options.strength}: must be a finite number, such as 0.5")
    directions = at_layers(options.directions, options.layers)
    in_unit = {site: d.in_unit(options.unit) for site, d in directions.items()}
    steer = op_named(options.op)
    return steer(nnsteer.Directions(in_unit), options.strength, SPANS[options.span])


def at_layers(path: Path, layers: Sequence[int] | None) -> dict[Place, nnsteer.Direction]:
    """A file's directions at some layers. Raises UserError for a layer of which it has none."""
    directions = nnsteer.load_directions(path)
    there = sorted({site.layer for site in directions})
    chosen = there if layers is None else layers
    for layer in chosen:
        if layer not in there:
            others = ", ".join(map(str, there))
            raise UserError(f"{path}: no direction for layer {layer}; there is one for {others}")
    return {site: direction for site, direction in directions.items() if site.layer in chosen}


def check_shape(fitted: Iterable[nnsteer.Direction | Editor], files: ModelFiles) -> None:
    """Raises UserError, before any weights are loaded, for what was fitted on a model of another
    shape."""
    from nnsteer.model.layout import check_layers, num_layers

    hidden = files.config.get_text_config().hidden_size
    for part in fitted:
        check_layers([part.site.layer], num_layers(files.config))
        width = len(part.vector if isinstance(part, nnsteer.Direction) else part.center)
        if isinstance(part.site, nnsteer.Site) and width != hidden:
            shapes = f"is {width} wide, and {files.name} {hidden}"
            raise UserError(f"{part}: {shapes}; fit it on this model")


def new_path(path: Path, *suffixes: str) -> Path:
    """Where a verb may write, `~` spelled out. Raises UserError where something is already, or for
    another suffix than those."""
    path = path.expanduser()
    if suffixes and path.suffix not in suffixes:
        kinds = " or ".join(suffixes)
        raise UserError(f"{path}: unknown kind of file; give a name that ends in {kinds}")
    if path.exists():
        raise UserError(f"{path}: is there already; give another name, or remove it")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it, or give another name")
    return path
