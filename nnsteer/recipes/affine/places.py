"""Where a method acts, and r = r+ - r- there."""

from __future__ import annotations

from collections.abc import Sequence
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
    where: Where,
    chosen: Place,
    runner: Runner,
    texts: ContrastSet,
    reading: Reading,
    covariance: bool,
) -> Fitted:
    """r and moments at a place: the chosen site; after every block; or on what every block's halves
    add to the stream, the 2L residual sites of steering-llama3."""
    layers = range(runner.layout.num_layers)
    halves = [Site(layer, stream) for layer in layers for stream in ("attn_out", "mlp_out")]
    sites = {"layer": [chosen], "all": block_outs(layers)}.get(where, halves)
    read = scrubbed if where in ("scrubbed", "scrubbed-half") else unsteered
    fitted = read(runner, texts, sites, reading, covariance)
    return halved(fitted) if where == "scrubbed-half" else fitted


def unsteered(
    runner: Runner, texts: ContrastSet, sites: Sequence[Place], reading: Reading, covariance: bool
) -> Fitted:
    """All sites at once."""
    with bar("reading moments", len(texts.positive) + len(texts.negative)) as watch:
        moments = runner.moments(texts, sites, reading, covariance, watch)
    return Fitted(fit.mean_difference(moments), moments)


def scrubbed(
    runner: Runner, texts: ContrastSet, sites: Sequence[Place], reading: Reading, covariance: bool
) -> Fitted:
    """Concept scrubbing: site by site in forward order, each on streams from which what was found
    before is erased (`orth`), so that no site is fitted to what an earlier one has removed."""
    erased, parts = Program(), []
    with bar("scrubbing", len(sites) * (len(texts.positive) + len(texts.negative))) as watch:
        for site in sites:
            with attach(runner.hf, erased):
                parts.append(runner.moments(texts, [site], reading, covariance, watch))
            erased += edit(fit.orth(parts[-1]))
    positive = {site: moments for part in parts for site, moments in part.positive.items()}
    negative = {site: moments for part in parts for site, moments in part.negative.items()}
    moments = replace(parts[0], positive=positive, negative=negative)
    return Fitted(fit.mean_difference(moments), moments)


def halved(fitted: Fitted) -> Fitted:
    """As published: steering-llama3 `--scrub` divides each class's sum by the number of all texts,
    which for classes of one size gives half of r."""
    half = {site: r.with_length(r.vector.norm().item() / 2) for site, r in fitted.directions.items()}
    return replace(fitted, directions=Directions(half))
