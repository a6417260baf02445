"""A study as TOML: what is written in the file, checked before any model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

from nnsteer.errors import UserError
from nnsteer.program.names import Method, OpName, ReadingName, Score, Side, SpanName, Unit
from nnsteer.texts.refusal import Split
from nnsteer.toml import read_toml


@dataclass(frozen=True)
class SetSpec:
    """[sets.NAME]: prompts to report on."""

    source: str
    split: Split = "test"
    first: int | None = None


@dataclass(frozen=True)
class DirectionSpec:
    """[directions.NAME]: two sides of prompts; or, with `prompts`, two sorts of openers after the
    same prompts."""

    positive: str
    negative: str
    prompts: str | None = None
    read: ReadingName = "prompt"
    pairs: int = 1000


@dataclass(frozen=True)
class ConditionSpec:
    """[conditions.NAME]: without a threshold it is found on the tune splits of the direction's two
    sides."""

    direction: str
    layer: int
    method: Method = "lda"
    score: Score = "cosine"
    threshold: float | None = None
    fires_when: Side = "above"


@dataclass(frozen=True)
class Cell:
    """One point of a grid of [[variants]]; its fields but `when` and `direction` are the grid's
    axes."""

    op: OpName
    direction: str
    method: Method
    layers: tuple[int, ...]
    strength: float
    span: SpanName
    unit: Unit
    when: str | None

    @property
    def axes(self) -> dict[str, str | float]:
        """Where it lies in the grid."""
        layers = "-".join(map(str, self.layers))
        named: dict[str, str | float] = {
            "op": self.op,
            "direction": self.direction,
            "method": self.method,
            "layer": layers,
        }
        return named | {
            "strength": self.strength,
            "span": self.span,
            "unit": self.unit,
            "when": self.when or "always",
        }


@dataclass(frozen=True)
class Spec:
    """The whole file."""

    model: str
    sets: Mapping[str, SetSpec]
    directions: Mapping[str, DirectionSpec]
    conditions: Mapping[str, ConditionSpec]
    cells: tuple[Cell, ...]
    measures: tuple[str, ...]
    recommend: Mapping[str, Any] | None
    max_new_tokens: int = 24
    seed: int = 0
    controls: bool = True

    @property
    def fitted(self) -> dict[str, list[Method]]:
        """The methods by which each direction is needed, by variants or conditions."""
        used: list[Cell | ConditionSpec] = [*self.cells, *self.conditions.values()]
        return {
            name: sorted({one.method for one in used if one.direction == name})
            for name in sorted({u.direction for u in used})
        }


AXES = {
    "op": "add",
    "direction": None,
    "method": "mean_difference",
    "layer": None,
    "strength": 1.0,
    "span": "all",
    "unit": "length",
    "when": None,
}
TABLES = ("model", "sets", "directions", "conditions", "variants", "measures", "recommend")
TOP = (*TABLES, "max_new_tokens", "seed", "controls")


def read_spec(path: Path) -> Spec:
    """The study in a TOML file. Raises UserError naming the entry that is wrong."""
    values = read_toml(path, "", "a study like recipes/ablations/layer_strength.toml")
    unknown = sorted(set(values) - set(TOP))
    if unknown:
        raise UserError(f"{path}: no such entry: {', '.join(unknown)}; known: {', '.join(TOP)}")
    for needed in ("sets", "variants", "measures"):
        if not values.get(needed):
            raise UserError(f"{path}: a study needs `{needed}`")
    spec = Spec(
        model=values.get("model", "nnsteer:organism"),
        sets={
            name: table(path, f"sets.{name}", SetSpec, entry)
            for name, entry in values["sets"].items()
        },
        directions={
            n: table(path, f"directions.{n}", DirectionSpec, e)
            for n, e in values.get("directions", {}).items()
        },
        conditions={
            n: table(path, f"conditions.{n}", ConditionSpec, e)
            for n, e in values.get("conditions", {}).items()
        },
        cells=tuple(cell for entry in values["variants"] for cell in grid(path, entry)),
        measures=tuple(values["measures"]),
        recommend=values.get("recommend"),
        max_new_tokens=values.get("max_new_tokens", 24),
        seed=values.get("seed", 0),
        controls=values.get("controls", True),
    )
    check(path, spec)
    return spec


def table(path: Path, name: str, kind: Any, entry: Mapping[str, Any]) -> Any:
    """One table of the file as a dataclass."""
    known = list(kind.__dataclass_fields__)
    unknown = sorted(set(entry) - set(known))
    if unknown:
        raise UserError(
            f"{path}, [{name}]: no such entry: {', '.join(unknown)}; known: {', '.join(known)}"
        )
    try:
        return kind(**entry)
    except TypeError as error:
        raise UserError(f"{path}, [{name}]: {str(error).partition('() ')[2]}") from None


def grid(path: Path, entry: Mapping[str, Any]) -> list[Cell]:
    """The cells of one [[variants]]: every combination of its lists."""
    unknown = sorted(set(entry) - set(AXES))
    if unknown:
        raise UserError(
            f"{path}, [[variants]]: no such entry: {', '.join(unknown)}; known: {', '.join(AXES)}"
        )
    axes = {name: entry.get(name, default) for name, default in AXES.items()}
    for name in ("direction", "layer"):
        if axes[name] is None:
            raise UserError(f"{path}, [[variants]]: needs `{name}`")
    choices = [value if isinstance(value, list) else [value] for value in axes.values()]
    cells = []
    for choice in product(*choices):
        named = dict(zip(axes, choice, strict=True))
        layer = named.pop("layer")
        layers = tuple(layer) if isinstance(layer, list) else (layer,)
        cells.append(Cell(layers=layers, **named))
    return cells


def check(path: Path, spec: Spec) -> None:
    """Refuses names that nothing stands for; modules of one's own are imported here."""
    from nnsteer.fit import method_named  # needs torch, which --help does without
    from nnsteer.program.program import op_named

    for name, entry in spec.sets.items():
        one_of(path, f"[sets.{name}] split", entry.split, get_args(Split))
    for name, direction in spec.directions.items():
        one_of(path, f"[directions.{name}] read", direction.read, get_args(ReadingName))
    for name, condition in spec.conditions.items():
        one_of(path, f"[conditions.{name}] direction", condition.direction, spec.directions)
        found(path, f"[conditions.{name}]", method_named, condition.method)
        one_of(path, f"[conditions.{name}] score", condition.score, get_args(Score))
        one_of(path, f"[conditions.{name}] fires_when", condition.fires_when, get_args(Side))
    for cell in spec.cells:
        found(path, "[[variants]]", op_named, cell.op)
        one_of(path, "[[variants]] direction", cell.direction, spec.directions)
        found(path, "[[variants]]", method_named, cell.method)
        one_of(path, "[[variants]] span", cell.span, get_args(SpanName))
        one_of(path, "[[variants]] unit", cell.unit, get_args(Unit))
        if not isinstance(cell.strength, int | float) or not all(
            isinstance(layer, int) for layer in cell.layers
        ):
            raise UserError(
                f"{path}, [[variants]]: layer {cell.layers}, strength {cell.strength!r}: "
                "expected numbers"
            )
    wish = spec.recommend or {}
    for name in ("on", "drift_on") if wish else ():
        given = str(wish.get(name))
        one_of(path, f"[recommend] {name}", given, spec.sets)
        if spec.sets[given].split == "test":
            raise UserError(
                f"{path}, [recommend] {name} {given!r}: its split is test, to report on; "
                'choose on split = "tune"'
            )


def one_of(path: Path, where: str, given: object, known: Collection[object]) -> None:
    """Refuses a name that is not among the known ones."""
    if given not in known:
        raise UserError(
            f"{path}, {where} {given!r}: expected one of "
            f"{', '.join(map(str, known)) or 'none, as there is none'}"
        )


def found(path: Path, where: str, find: Callable[[str], object], given: object) -> None:
    """Refuses a name that `find` does not know."""
    try:
        find(str(given))
    except UserError as error:
        raise UserError(f"{path}, {where} {error}") from error
