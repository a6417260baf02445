"""Where a method acts, and r = r+ - r- there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from nnsteer import fit
from nnsteer.fit.moments import Moments
from nnsteer.model.attach import attach
from nnsteer.model.runner import Runner
from nnsteer.program.direction import Directions
from nnsteer.program.program import Program, edit
from nnsteer.program.site import Place, Site, block_outs
from nnsteer.program.span import Reading
from nnsteer.progress import bar
from nnsteer.texts.contrast import ContrastSet

Where = Literal["layer", "all", "residual", "scrubbed", "scrubbed-half"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """What was fitted at some sites: r with its origin r-, and the moments that it came from."""

    directions: Directions
    moments: Moments

    @property
    def share(self) -> float:
        """Of the positive class among all texts: where the mean of all states lies between r- and
        r+."""
        site, positive = next(iter(self.moments.positive.items()))
        return positive.count / (positive.count + self.moments.negative[site].count)


def read_at(
    where: Where, chosen: Place, runner: Runner, texts: ContrastSet, over: Reading, covariance: bool
) -> Fitted:
    """r and moments at a place: the chosen site; after every block; or on what every block's halves
    add to the stream, the 2L residual sites of steering-llama3."""
    layers, n = range(runner.layout.num_layers), len(texts.positive) + len(texts.negative)
    halves = [Site(layer, stream) for layer in layers for stream in ("attn_out", "mlp_out")]
    sites = {"layer": [chosen], "all": block_outs(layers)}.get(where, halves)
    scrubs = where in ("scrubbed", "scrubbed-half")
    with bar("reading moments", n * len(sites) if scrubs else n) as watch:

        def read(some: Sequence[Place]) -> Moments:
            return runner.moments(texts, some, over, covariance, watch)

        moments = scrubbed(runner, read, sites) if scrubs else read(sites)
    r = fit.mean_difference(moments)
    return Fitted(halved(r) if where == "scrubbed-half" else r, moments)


def scrubbed(
    runner: Runner, read: Callable[[Sequence[Place]], Moments], sites: Sequence[Place]
) -> Moments:
    """Concept scrubbing: site by site in forward order, each on streams from which what was found
    before is erased (`orth`), so that no site is fitted to what an earlier one has removed."""
    erased, parts = Program(), list[Moments]()
    for site in sites:
        with attach(runner.hf, erased):
            parts.append(read([site]))
        erased += edit(fit.orth(parts[-1]))
    positive = {site: moments for part in parts for site, moments in part.positive.items()}
    negative = {site: moments for part in parts for site, moments in part.negative.items()}
    return replace(parts[0], positive=positive, negative=negative)


def halved(r: Directions) -> Directions:
    """As published: steering-llama3 `--scrub` divides each class's sum by the number of all texts,
    which for classes of one size gives half of r."""
    return Directions({site: d.with_length(d.vector.norm().item() / 2) for site, d in r.items()})
