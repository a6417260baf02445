"""What to do to a model, as data: a program is a tuple of steps, and a step is an op at a site, over a span of tokens,
when a condition holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from nnsteer import registry
from nnsteer.program.condition import Condition, When, leaves
from nnsteer.program.direction import Direction, Directions
from nnsteer.program.editor import Editor, Editors
from nnsteer.program.op import Ablate, Add, Affine, Clamp, Edit, Op, describe, fitted
from nnsteer.program.site import Place
from nnsteer.program.span import ALL, Where


@dataclass(frozen=True)
class Step:
    """One op at one site."""

    op: Op
    site: Place
    span: Where = ALL
    when: When | None = None

    def __str__(self) -> str:
        return f"{describe(self.op)} | {self.site}, {self.span} | {self.when or 'always'}"


@dataclass(frozen=True)
class Program:
    """Steps, applied in the order in which the forward pass reaches their sites; at one site, in the order given. `+`
    joins programs. The empty program leaves the model alone."""

    steps: tuple[Step, ...] = ()

    def __add__(self, other: Program) -> Program:
        return Program(self.steps + other.steps)

    def when(self, condition: When) -> Program:
        """The same steps, taken only for rows where the condition holds; a step's own condition must hold too."""
        both = [replace(step, when=condition if step.when is None else step.when & condition) for step in self.steps]
        return Program(tuple(both))

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


def places_of(programs: Iterable[Program]) -> set[Place]:
    """Where programs read and write."""
    distinct = set(programs)
    written = {step.site for program in distinct for step in program.steps}
    return written | {condition.site for program in distinct for condition in program.conditions}


def add(directions: Directions, strength: float = 1.0, span: Where = ALL) -> Program:
    """Adds each direction at the site where it was read."""
    return _steps(((Add(d, strength), d.site) for d in directions.values()), span)


def ablate(directions: Directions, strength: float = 1.0, span: Where = ALL) -> Program:
    """Removes each direction at the site where it was read."""
    return _steps(((Ablate(d, strength), d.site) for d in directions.values()), span)


def affine(directions: Directions, alpha: float = 1.0, span: Where = ALL) -> Program:
    """Sets each direction's coefficient, from its origin, at the site where it was read (ACE)."""
    return _steps(((Affine(d, alpha), d.site) for d in directions.values()), span)


def clamp(directions: Directions, value: float, span: Where = ALL) -> Program:
    """Sets each direction's coefficient, from zero, at the site where it was read."""
    return _steps(((Clamp(d, value), d.site) for d in directions.values()), span)


def edit(editors: Editors, span: Where = ALL) -> Program:
    """Applies each editor (an eraser, say) at the site where it was fitted."""
    return _steps(((Edit(editor), editor.site) for editor in editors.values()), span)


def _steps(ops: Iterable[tuple[Op, Place]], span: Where) -> Program:
    return Program(tuple(Step(op, site, span) for op, site in ops))


OpFunction = Callable[[Directions, float, Where], Program]
"""The steps for directions, a strength and the tokens to steer."""

OPS: Mapping[str, OpFunction] = {"add": add, "ablate": ablate, "affine": affine, "clamp": clamp}


def op_named(name: str) -> OpFunction:
    """One of OPS, or one from outside. Raises UserError for a name that nothing has."""
    return registry.named("nnsteer.ops", OPS, name)
