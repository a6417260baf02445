"""A direction in the residual stream, with its natural length and where it came from; and several,
by site."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.program.identity import ModelId, Vouch, as_model_id, digest, facts_of
from nnsteer.program.names import Unit
from nnsteer.program.show import joined, shortened, table
from nnsteer.program.site import Place, Site, as_layer, as_place, named
from nnsteer.program.span import ALL, Reading
from nnsteer.program.values import finite, items_of, vector_of


@dataclass(frozen=True, eq=False, repr=False)
class Direction:
    """`vector` [hidden] points from the negative towards the positive class. Its length is the
    method's natural one (for a mean difference, the distance between the class means), so a
    strength of 1 moves a state by one such length. `unit()` and `relative()` change the length, and
    with it the unit of every strength."""

    vector: Tensor
    site: Place
    """Where it was read, and where it is to be written."""
    span: Reading
    """The tokens whose mean was read."""
    method: str
    origin: Tensor
    """[hidden], the mean of the negative class: the reference of an affine edit (ACE's r-)."""
    model: ModelId
    data: str
    """Fingerprint of the contrast set."""
    norm: float | None = None
    """The mean norm of the states read at the site, where it was measured."""
    boundary: float | None = None
    """A probe's: where it decides, along the vector (0 the negative mean, 1 a vector further)."""
    vouched: Vouch | None = None
    """Where it was fitted and why it holds for `model` too, where a person vouched for that."""

    __array_ufunc__ = None
    """So that a number of numpy's times a direction is a direction."""

    @staticmethod
    def given(
        vector: Any, site: Place | int, model: Any, source: str, origin: Any = None
    ) -> Direction:
        """A direction from elsewhere: a row of a sparse autoencoder's decoder, a probe's weights,
        other people's vector. `vector` is a list, an array or a tensor [hidden] of any dtype and
        device; `site` where it is written (a layer's number is what leaves that block); `model` the
        ModelId, or the Runner, that it belongs to; `source` says where it comes from and becomes
        `data`; `origin` [hidden] is the reference of affine edits, zeros unless given. Which tokens
        it was read on nobody knows: `span` is ALL. Raises UserError for other shapes, and for a
        vector that is zero or not finite."""
        if not isinstance(source, str) or not source.strip():
            raise UserError(
                f"source {source!r}: say where the vector comes from, as in 'SAE row 7'"
            )
        values = vector_of("vector", vector)
        reference = torch.zeros_like(values) if origin is None else vector_of("origin", origin)
        if len(reference) != len(values):
            sizes = f"origin has {len(reference)} entries but the vector {len(values)}"
            raise UserError(f"{sizes}; give both of the model's hidden size")
        place, fitted_on = as_place(site), as_model_id(model)
        return usable(Direction(values, place, ALL, "given", reference, fitted_on, source))

    def vouched_for(self, model: Any, because: str) -> Direction:
        """The same direction for another model of the same shape, such as a fine-tune of the one it
        was fitted on, or that one with an adapter: on your word, which is kept with it. `model` is
        a ModelId or a Runner. Raises UserError without a reason."""
        used_on = as_model_id(model)
        if not isinstance(because, str) or not because.strip():
            raise UserError(f"because {because!r}: say why it holds, as in 'a fine-tune of it'")
        if used_on == self.model:
            return self
        vouched = Vouch(self.model, because)
        if self.vouched is not None:
            vouched = Vouch(self.vouched.fitted_on, f"{self.vouched.because}; {because}")
        return replace(self, model=used_on, vouched=vouched)

    def __mul__(self, factor: float) -> Direction:
        """The same direction with `factor` times its vector, about the same origin; a negative
        factor turns it round. `boundary` stays at the same place: but a probe that was turned round
        fires on the other side of it. Raises UserError for 0 and for what is no finite number."""
        scale = finite("factor", factor)
        if scale == 0:
            raise UserError(f"0 times {self}: a direction needs a length; add it with strength 0")
        method = self.method
        if scale < 0:
            method = method[1:] if method.startswith("-") else f"-{method}"
        boundary = None if self.boundary is None else self.boundary / scale
        return replace(self, vector=self.vector * scale, method=method, boundary=boundary)

    __rmul__ = __mul__

    def __neg__(self) -> Direction:
        return self * -1.0

    def random_like(self, seed: int) -> Direction:
        """An isotropic random direction of the same length at the same site."""
        noise = torch.randn(self.vector.shape, generator=generator(self.site, seed))
        vector = noise / noise.norm() * self.vector.norm()
        return replace(self, vector=vector, method=f"random (seed {seed})", boundary=None)

    def unit(self) -> Direction:
        """The same direction with length 1, for strengths in absolute units."""
        return self.with_length(1.0)

    def relative(self) -> Direction:
        """The same direction as long as the mean state at its site, for strengths as a fraction of
        the residual norm. Raises UserError where that was not measured."""
        if self.norm is None:
            unknown = "the residual norm at its site was not measured"
            raise UserError(f"{self}: {unknown}; fit it again from recorded activations")
        return self.with_length(self.norm)

    def in_unit(self, unit: Unit) -> Direction:
        """The same direction as long as strengths are counted in: its own `length`, 1 (`absolute`)
        or the mean state (`norm`)."""
        match unit:
            case "length":
                return self
            case "absolute":
                return self.unit()
            case "norm":
                return self.relative()

    def with_length(self, length: float) -> Direction:
        """The same direction with another length. Raises UserError for a direction of length 0."""
        before = self.vector.norm().item()
        if before == 0:
            raise UserError(f"{self}: a direction of length 0 has no unit vector")
        boundary = None if self.boundary is None else self.boundary * before / length
        return replace(self, vector=self.vector * (length / before), boundary=boundary)

    def moved(self, site: Place) -> Direction:
        """The same direction to be written, or scored, at another site than it was read at."""
        return replace(self, site=site)

    def with_origin(self, origin: Tensor) -> Direction:
        """The same direction with another reference [hidden] for affine edits."""
        return replace(self, origin=origin.float(), boundary=None)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything above."""
        facts = [*facts_of(self), self.norm, self.boundary]
        vouched = "" if self.vouched is None else json.dumps(asdict(self.vouched))
        return digest(json.dumps(facts) + vouched, [self.vector, self.origin])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Direction) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __str__(self) -> str:
        vouched = "" if self.vouched is None else f" ({self.vouched})"
        length = f"length {self.vector.norm():.3g}"
        return f"{self.method} at {self.site} over {self.span}, {length}{vouched}"

    def __repr__(self) -> str:
        return f"Direction: {self}"


@dataclass(frozen=True, eq=False, repr=False)
class Directions(Mapping[Any, Direction]):
    """One direction per site, as the functions of `fit` return them: a mapping from places. A
    layer's number stands for what leaves that block: `directions[3]` is the one at Site(3). It
    does not change, and equals a dict of the same items. Raises UserError where there is none."""

    by_site: Mapping[Any, Direction]

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_site", dict(self.by_site))  # what it was made of may change

    def at(self, *layers: int) -> Directions:
        """Those at these layers, whatever their stream. Raises UserError for a layer with none."""
        numbers = {d.site.layer for d in self.values()}
        if missing := [layer for layer in layers if layer not in numbers]:
            raise self._missing(f"layer {missing[0]}")
        return Directions({site: d for site, d in self.items() if d.site.layer in layers})

    def random_like(self, seed: int) -> Directions:
        """At each site an isotropic random direction with the length of the one there."""
        return Directions({site: direction.random_like(seed) for site, direction in self.items()})

    def __getitem__(self, place: Any) -> Direction:
        if place not in self:
            raise self._missing(place)
        return self.by_site[self._key(place)]

    def __contains__(self, place: object) -> bool:
        return self._key(place) in self.by_site

    def get(self, place: Any, default: Any = None) -> Any:
        """The direction there, or `default`."""
        return self.by_site.get(self._key(place), default)

    def _missing(self, place: object) -> UserError:
        there = named(d.site for d in self.values())
        return UserError(f"no direction at {place}; there is one at {there}; take these, or fit it")

    def _key(self, place: Any) -> Any:
        layer = as_layer(place)
        if layer is not None and layer >= 0 and layer not in self.by_site:
            return Site(layer)
        return place if isinstance(place, Hashable) else None

    def __iter__(self) -> Iterator[Any]:
        return iter(self.by_site)

    def __len__(self) -> int:
        return len(self.by_site)

    def __or__(self, other: Mapping[Any, Direction]) -> Directions:
        """Those of both; where both have one, the other's."""
        return Directions({**self, **other})

    def __ror__(self, other: Mapping[Any, Direction]) -> Directions:
        return Directions({**other, **self})

    def __repr__(self) -> str:
        if not self:
            return "Directions: none"
        lengths = sorted(d.vector.norm().item() for d in self.values())
        shown = f"length {lengths[0]:.2g}"
        if len(self) > 1:
            shown = f"lengths {lengths[0]:.2g} to {lengths[-1]:.2g}"
        methods = shortened(joined(d.method for d in self.values()))
        spans, sites = joined(d.span for d in self.values()), named(d.site for d in self.values())
        return f"Directions: {methods} over {spans} at {sites}, {shown}"

    def _repr_html_(self) -> str:
        head = ["site", "method", "read over", "length", "model"]
        lengths = [f"{d.vector.norm():.3g}" for d in self.values()]
        pairs = zip(self.values(), lengths, strict=True)
        rows = [(d.site, d.method, d.span, length, d.model.name) for d, length in pairs]
        return table(f"Directions: {len(self)}", head, rows)


AnyDirections = Direction | Iterable[Direction] | Mapping[Any, Direction]
"""What is taken for directions: one, a list of them, or a mapping whose values they are."""


def listed(given: AnyDirections) -> tuple[Direction, ...]:
    """Every direction given, in order. Raises UserError for anything that is no direction."""
    items = items_of(given)
    for item in items:
        if not isinstance(item, Direction):
            kind = type(item).__name__
            way = "fit, load or make one (Direction.given)"
            if kind == "Editor":
                way = "an editor goes into edit(...)"
            holder = "" if item is given else f" in a {type(given).__name__}"
            expected = "expected a Direction, or a list or mapping of them"
            raise UserError(f"directions: got {kind}{holder}; {expected}; {way}")
    return items


def as_directions(given: AnyDirections) -> Directions:
    """Directions by site; a mapping keeps its keys. Raises UserError for anything that is no
    direction, and for two at a site."""
    if isinstance(given, Directions):
        return given
    items = listed(given)
    if isinstance(given, Mapping):
        return Directions(given)
    by_site = {direction.site: direction for direction in items}
    if len(by_site) < len(items):
        there = f"got {len(items)} at {named(by_site)}"
        raise UserError(f"directions: {there}; expected one for each site; leave out the others")
    return Directions(by_site)


def usable(direction: Direction) -> Direction:
    """The direction itself. Raises UserError when its vector is zero or not finite."""
    if not direction.vector.isfinite().all():
        raise UserError(f"{direction}: its vector holds NaN or infinite entries; give another")
    if not direction.vector.any():
        raise UserError(f"{direction}: its vector is zero; fit it on texts that differ")
    return direction


def generator(site: Place, seed: int) -> torch.Generator:
    """Chance for one site, the same whenever it is asked for."""
    layer, stream, head = site.order
    place = layer * 4096 + head * 8 + int(stream * 2)
    return torch.Generator().manual_seed(seed * 1_000_003 + place)
