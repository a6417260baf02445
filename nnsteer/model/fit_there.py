"""Directions from a model wherever it is: here from recorded activations, on a server from states
that stay there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
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
from nnsteer.program.direction import Direction, Directions, as_directions
from nnsteer.program.names import Method
from nnsteer.program.site import Head, Place
from nnsteer.program.span import Reading
from nnsteer.progress import STDERR, Watch, ignore
from nnsteer.texts.contrast import ContrastSet

Runner = Any
"""A `model.runner.Runner`, whose `fit` this is."""
RANK = 64  # of the factors of pca_pairwise, where the pairs take more than one request
KERNELS: dict[Method, Callable] = {
    "mean_difference": fits.mean_difference,
    "pca_pairwise": fits.pca_pairwise,
    "pca_center": fits.pca_center,
    "pca_diff": fits.pca_diff,
    "lda": fits.lda,
}


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
    """A direction per site. On a server, all of `pairs_at_once` texts a side are read and reduced
    in one request (by default as many as `ndif.estimate` allows): directions come home from one
    request, and from several what merges into them (`fit.partial`; `rank` is for pca_pairwise).
    Raises UserError for a method that does not merge."""
    ordered, function = sorted(sites, key=lambda site: site.order), fit.method_named(method)
    if runner.remote is None and method == "mean_difference":  # memory does not grow with the texts
        return fit.mean_difference(runner.moments(contrast, ordered, span, watch=watch))
    if runner.remote is None or method not in KERNELS:
        return as_directions(function(runner.record(contrast, ordered, span, watch)))
    at_once = pairs_at_once or estimate.pairs_at_once(len(ordered), hidden_size(runner))
    reduce = partial(reduced, runner, ordered, span, watch)
    starts = range(0, max(len(contrast.positive), len(contrast.negative)), at_once)
    if len(starts) == 1:
        numbers = reduce(contrast, fits.fitted, KERNELS[method])
        return unpacked(numbers, runner, contrast, ordered, span, method)
    several = f"{len(starts)} requests"
    if method not in COVARIANCE:
        texts = f"{method} of {len(contrast.positive)} texts"
        raise UserError(f"{texts} takes {several}: give fewer, or {', '.join(COVARIANCE)}")
    if COVARIANCE[method]:
        bytes_home = len(starts) * len(ordered) * 2 * hidden_size(runner) ** 2 * 4
        what = f"covariances of {len(ordered)} sites come home, {estimate.size(bytes_home)}"
        STDERR.print(f"{method} from {several}: {what}")
    arguments = (COVARIANCE[method], rank if method == "pca_pairwise" else None)
    parts = [part(contrast, start, at_once) for start in starts]
    partials = [reduce(some, fits.partial, *arguments) for some in parts]
    if method == "pca_pairwise":
        share = f"{discarded(partials):.2g} of the pairs' differences"
        STDERR.print(f"pca_pairwise from {several}: factors of rank {rank} leave out {share}")
    return joined(partials, ordered, method, span, runner.model, contrast.fingerprint())


def hidden_size(runner: Runner) -> int:
    """The width of the residual stream."""
    return runner.hf.config.get_text_config().hidden_size


def part(contrast: ContrastSet, start: int, size: int) -> ContrastSet:
    """Some pairs, or some texts of either side."""
    some = slice(start, start + size)
    return ContrastSet(contrast.positive[some], contrast.negative[some])


def reduced(
    runner: Runner,
    sites: Sequence[Place],
    span: Reading,
    watch: Watch,
    contrast: ContrastSet,
    reduce: Callable,
    *arguments: Any,
) -> Any:
    """One request: what `reduce` makes of the states of all texts."""
    rows = runner.chat.rows([*contrast.positive, *contrast.negative])
    batches = list(runner.batches(rows))
    order = torch.tensor([i for _, _, numbers in batches for i in numbers]).argsort()
    read = [(batch, tokens_to_read(batch, span)) for batch, _, _ in batches]
    call = (runner.layout.places(sites), read, reduce, order)
    made = traces.fit_there(
        runner.envoy, runner.remote, *call, (len(contrast.positive), *arguments)
    )
    watch(len(rows))
    return made


def unpacked(
    numbers: Tensor,
    runner: Runner,
    contrast: ContrastSet,
    sites: Sequence[Place],
    span: Reading,
    method: Method,
) -> Directions:
    """The directions in what `kernels.fits.fitted` returns: for each site vector, origin, norm and
    boundary, side by side."""
    hidden, data = hidden_size(runner), contrast.fingerprint()
    widths = [runner.layout.head_width if isinstance(site, Head) else hidden for site in sites]
    pieces = iter(numbers.split([n for width in widths for n in (width, width, 2)]))
    fitted: dict[Place, Direction] = {}
    for site, vector, origin, ends in zip(sites, pieces, pieces, pieces, strict=True):
        norm, boundary = ends.tolist()
        facts = (norm, None if math.isnan(boundary) else boundary)
        vector, origin = vector.clone(), origin.clone()
        fitted[site] = Direction(vector, site, span, method, origin, runner.model, data, *facts)
    return Directions(fitted)
