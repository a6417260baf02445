"""Directions from a model wherever it is: here from recorded activations, on a server from states that stay there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nnsteer import fit
from nnsteer.errors import UserError
from nnsteer.fit.partial import COVARIANCE, discarded, joined
from nnsteer.kernels import fits
from nnsteer.model import traces
from nnsteer.model.reading import tokens_to_read
from nnsteer.ndif import estimate
from nnsteer.ndif.estimate import size
from nnsteer.program.direction import Direction, Directions, as_directions
from nnsteer.program.names import Method
from nnsteer.program.site import Place
from nnsteer.program.span import Reading
from nnsteer.progress import STDERR, Watch, ignore
from nnsteer.texts.contrast import ContrastSet

Runner = Any
"""A `model.runner.Runner`, whose `fit` this is."""
RANK = 64  # of the factors of pca_pairwise, where the pairs take more than one request
KERNELS: dict[Method, Callable] = {
    "mean_difference": fits.mean_difference, "pca_pairwise": fits.pca_pairwise, "pca_center": fits.pca_center,
    "pca_diff": fits.pca_diff, "lda": fits.lda,
}  # fmt: skip


def directions(
    runner: Runner,
    contrast: ContrastSet,
    sites: Sequence[Place],
    span: Reading,
    method: Method,
    watch: Watch = ignore,
    pairs_at_once: int | None = None,
    rank: int = RANK,
) -> Directions:
    """A direction per site. On a server, all of `pairs_at_once` texts a side are read and reduced in one request (by default as
    many as `ndif.estimate` allows): directions come home from one request, and from several what merges into them
    (`fit.partial`; `rank` is for pca_pairwise). Raises UserError for a method that does not merge."""
    ordered, function = sorted(sites, key=lambda site: site.order), fit.method_named(method)
    if runner.remote is None and method == "mean_difference":  # memory does not grow with the texts
        return fit.mean_difference(runner.moments(contrast, ordered, span, watch=watch))
    if runner.remote is None or method not in KERNELS:
        return as_directions(function(runner.record(contrast, ordered, span, watch)))
    at_once = pairs_at_once or estimate.pairs_at_once(len(ordered), hidden_size(runner))
    parts = [part(contrast, start, at_once) for start in range(0, max(map(len, sides(contrast))), at_once)]
    if len(parts) == 1:
        found = reduced(runner, contrast, ordered, span, watch, fits.fitted, (KERNELS[method],))
        return unpacked(found, runner, contrast, ordered, span, method)
    if method not in COVARIANCE:
        raise UserError(
            f"{method} of {len(contrast.positive)} texts takes {len(parts)} requests: give fewer, or {', '.join(COVARIANCE)}"
        )
    if COVARIANCE[method]:
        home = size(len(parts) * len(ordered) * 2 * hidden_size(runner) ** 2 * 4)
        STDERR.print(f"{method} from {len(parts)} requests: covariances of {len(ordered)} sites come home, {home}")
    arguments = (COVARIANCE[method], rank if method == "pca_pairwise" else None)
    partials = [reduced(runner, some, ordered, span, watch, fits.partial, arguments) for some in parts]
    if method == "pca_pairwise":
        share = discarded(partials)
        STDERR.print(
            f"pca_pairwise from {len(parts)} requests: factors of rank {rank} leave out {share:.2g} of the pairs' differences"
        )
    return joined(partials, ordered, method, span, runner.model, contrast.fingerprint())


def hidden_size(runner: Runner) -> int:
    """The width of the residual stream."""
    return runner.hf.config.get_text_config().hidden_size


def sides(contrast: ContrastSet) -> tuple[tuple, tuple]:
    """Both sides' texts."""
    return contrast.positive, contrast.negative


def part(contrast: ContrastSet, start: int, size: int) -> ContrastSet:
    """Some pairs, or some texts of either side."""
    return ContrastSet(*(side[start : start + size] for side in sides(contrast)))


def reduced(
    runner: Runner, contrast: ContrastSet, sites: Sequence[Place], span: Reading, watch: Watch, reduce: Callable, arguments: tuple
) -> Any:
    """One request: what `reduce` makes of the states of all texts."""
    rows = runner.chat.rows([*contrast.positive, *contrast.negative])
    batches = list(runner.batches(rows))
    order = torch.tensor([i for _, _, numbers in batches for i in numbers]).argsort()
    read = [(batch, tokens_to_read(batch, span)) for batch, _, _ in batches]
    places = [runner.layout.place(site) for site in sites]
    found = traces.fit_there(runner.envoy, runner.remote, places, read, reduce, order, (len(contrast.positive), *arguments))
    watch(len(rows))
    return found


def unpacked(
    found: Tensor, runner: Runner, contrast: ContrastSet, sites: Sequence[Place], span: Reading, method: Method
) -> Directions:
    """The directions in what `kernels.fitted` returns."""
    columns = [runner.layout.columns(site) for site in sites]
    widths = [hidden_size(runner) if own is None else own[1] - own[0] for own in columns]
    data, directions = contrast.fingerprint(), dict[Place, Direction]()
    for site, width, numbers in zip(sites, widths, found.split([2 * width + 2 for width in widths]), strict=True):
        vector, origin, (norm, boundary) = numbers[:width].clone(), numbers[width:-2].clone(), numbers[-2:].tolist()
        decides = None if math.isnan(boundary) else boundary
        directions[site] = Direction(vector, site, span, method, origin, runner.model, data, norm, decides)
    return Directions(directions)
