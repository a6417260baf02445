"""What to do to a model, as data: a program is a tuple of steps, and a step is an op at a site,
over a span of tokens, when a condition holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from nnsteer import registry
from nnsteer.errors import UserError
from nnsteer.program.condition import Condition, When, leaves
from nnsteer.program.direction import AnyDirections, Direction, Directions, listed, usable
from nnsteer.program.editor import Editor, Editors
from nnsteer.program.names import SpanName, as_where
from nnsteer.program.op import Ablate, Add, Affine, Clamp, Edit, Op, brief, describe, fitted
from nnsteer.program.show import shortened, table
from nnsteer.program.site import Place, named
from nnsteer.program.span import ALL, Where
from nnsteer.program.values import finite, items_of

SHOWN = 4  # kinds of step that a program shows on its one line


@dataclass(frozen=True, repr=False)
class Step:
    """One op at one site."""

    op: Op
    site: Place
    span: Where = ALL
    when: When | None = None

    def __str__(self) -> str:
        return f"{describe(self.op)} | {self.site}, {self.span} | {self.when or 'always'}"

    def __repr__(self) -> str:
        return f"Step: {self}"


@dataclass(frozen=True, repr=False)
class Program:
    """Steps, applied in the order in which the forward pass reaches their sites; at one site, in
    the order given. `+` joins programs. The empty program leaves the model alone."""

    steps: tuple[Step, ...] = ()

    def __add__(self, other: Program) -> Program:
        return Program(self.steps + other.steps)

    def when(self, condition: When) -> Program:
        """The same steps, taken only for rows where the condition holds; a step's own condition
        must hold too. Raises UserError for what is no condition."""
        if not isinstance(condition, When):
            kind = type(condition).__name__
            raise UserError(f"when: got {kind}; expected a Condition; make one with a threshold")
        both = [condition if step.when is None else step.when & condition for step in self.steps]
        pairs = zip(self.steps, both, strict=True)
        return Program(tuple(replace(step, when=when) for step, when in pairs))

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Each condition once, in the order of the steps."""
        return tuple(dict.fromkeys(leaf for step in self.steps for leaf in leaves(step.when)))

    @property
    def fitted(self) -> tuple[Direction | Editor, ...]:
        """Every direction and editor it uses, those of conditions included."""
        return tuple(fitted(self.steps))

    def __str__(self) -> str:
        return "\n".join(map(str, self.steps)) or "nothing"

    def __repr__(self) -> str:
        alike: dict[str, list[Place]] = {}
        for step in self.steps:
            condition = "" if step.when is None else f" if {shortened(str(step.when))}"
            text = f"{brief(step.op)} at SITES over {step.span}{condition}"
            alike.setdefault(text, []).append(step.site)
        parts = [text.replace("SITES", named(sites), 1) for text, sites in alike.items()]
        more = [f"{len(parts) - SHOWN} more"] if len(parts) > SHOWN else []
        return f"Program: {'; '.join(parts[:SHOWN] + more) or 'nothing'}"

    def _repr_html_(self) -> str:
        rows = [(brief(s.op), s.site, s.span, s.when or "always") for s in self.steps]
        return table(f"Program: {len(rows)} steps", ["op", "site", "span", "condition"], rows)


def places_of(programs: Iterable[Program]) -> set[Place]:
    """Where programs read and write."""
    distinct = set(programs)
    written = {step.site for program in distinct for step in program.steps}
    return written | {condition.site for program in distinct for condition in program.conditions}


def add(directions: AnyDirections, strength: float = 1.0, span: Where | SpanName = ALL) -> Program:
    """Adds each direction at the site where it was read. Directions may be one, a list or a
    mapping; `span` is the tokens or their name, such as "prompt". Raises UserError for a strength
    that is no finite number, and for a direction whose vector is zero or not finite."""
    return _with_each(directions, Add, finite("strength", strength), span)


def ablate(
    directions: AnyDirections, strength: float = 1.0, span: Where | SpanName = ALL
) -> Program:
    """Removes each direction at the site where it was read. Takes and raises what `add` does."""
    return _with_each(directions, Ablate, finite("strength", strength), span)


def affine(directions: AnyDirections, alpha: float = 1.0, span: Where | SpanName = ALL) -> Program:
    """Sets each direction's coefficient, from its origin, at the site where it was read (ACE).
    Takes and raises what `add` does."""
    return _with_each(directions, Affine, finite("alpha", alpha), span)


def clamp(directions: AnyDirections, value: float, span: Where | SpanName = ALL) -> Program:
    """Sets each direction's coefficient, from zero, at the site where it was read. Takes and
    raises what `add` does."""
    return _with_each(directions, Clamp, finite("value", value), span)


def _with_each(
    directions: AnyDirections,
    op: Callable[[Direction, float], Op],
    amount: float,
    span: Where | SpanName,
) -> Program:
    where, each = as_where(span), map(usable, listed(directions))
    return Program(tuple(Step(op(direction, amount), direction.site, where) for direction in each))


def edit(editors: Editor | Iterable[Editor] | Editors, span: Where | SpanName = ALL) -> Program:
    """Applies each editor (an eraser, say; one, a list or a mapping) at the site where it was
    fitted. Raises UserError for anything that is no editor."""
    items, where = items_of(editors), as_where(span)
    for item in items:
        if not isinstance(item, Editor):
            expected = "expected an Editor, or a list or mapping of them"
            raise UserError(f"editors: got {type(item).__name__}; {expected}")
    return Program(tuple(Step(Edit(editor), editor.site, where) for editor in items))


OpFunction = Callable[[Directions, float, Where], Program]
"""The steps for directions, a strength and the tokens to steer."""

OPS: Mapping[str, OpFunction] = {"add": add, "ablate": ablate, "affine": affine, "clamp": clamp}


def op_named(name: str) -> OpFunction:
    """One of OPS, or one from outside. Raises UserError for a name that nothing has."""
    return registry.named("nnsteer.ops", OPS, name)
