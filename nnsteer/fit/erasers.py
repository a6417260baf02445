"""Affine maps that remove a concept or carry one class onto the other, fitted by `concept-erasure` from moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from concept_erasure import LeaceFitter, QuadraticFitter
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.fit.means import Read, as_moments
from nnsteer.fit.moments import ClassMoments, merged
from nnsteer.program.editor import Editor, Gate
from nnsteer.program.site import Place

Target = Literal["positive", "negative"]
Factors = tuple[Tensor, Tensor, Tensor, Tensor]
"""left and right [rank, hidden], center and shift [hidden]"""
FactorsOf = Callable[[ClassMoments, ClassMoments], tuple[Factors, Gate | None]]


def leace(read: Read) -> dict[Place, Editor]:
    """The smallest edit after which no linear probe tells the classes apart (Belrose et al. 2023), about all states' mean."""
    return _fit(read, "leace", lambda positive, negative: _erase(positive, negative, "leace"))


def orth(read: Read) -> dict[Place, Editor]:
    """Removes the mean-difference direction about the mean of all states (steering-llama3 `--leace orth`). With a multiple of
    the mean difference added it is ACE."""
    return _fit(read, "orth", lambda positive, negative: _erase(positive, negative, "orth"))


def quadratic(read: Read, target: Target) -> dict[Place, Editor]:
    """Optimal transport of all states, taken as one Gaussian, onto the target class's (steering-llama3 `quad`)."""

    def factors(positive: ClassMoments, negative: ClassMoments) -> tuple[Factors, None]:
        classes = [negative, positive, merged(positive, negative)]
        return _transport(classes, 2, _number(target)), None

    return _fit(read, f"quadratic to {target}", factors)


def quadratic_lda(read: Read, target: Target) -> dict[Place, Editor]:
    """The same from the other class alone: a token is moved when the linear discriminant, against the mean of all states, says
    that it is of the other class (steering-llama3 `quadlda`)."""

    def factors(positive: ClassMoments, negative: ClassMoments) -> tuple[Factors, Gate]:
        to = _number(target)
        _, right, center, _ = _erase(positive, negative, "leace")[0]
        gate = Gate(right[0].float(), (right[0] @ center).item(), above=target == "negative")
        return _transport([negative, positive], 1 - to, to), gate

    return _fit(read, f"quadratic-lda to {target}", factors)


def _number(target: Target) -> int:
    return 1 if target == "positive" else 0


def _erase(positive: ClassMoments, negative: ClassMoments, method: Literal["leace", "orth"]) -> tuple[Factors, None]:
    both = merged(positive, negative)
    fitter = LeaceFitter(len(both.mean), 1, method=method, dtype=torch.float64)
    fitter.n = torch.tensor(both.count)
    fitter.mean_x = both.mean
    share = positive.count * negative.count / both.count
    fitter.sigma_xz_ = (share * (positive.mean - negative.mean))[:, None]
    if method == "leace":
        fitter.sigma_xx_ = both.covariance * both.count
    eraser = fitter.eraser
    if eraser.proj_left.norm() == 0:
        distance = (positive.mean - negative.mean).norm()
        raise UserError(f"{method}: the class means are {distance:.2g} apart, too close to erase (see svd_tol); give other texts")
    # the discriminant points from the negative to the positive class
    sign = torch.sign(eraser.proj_right[0] @ (positive.mean - negative.mean))
    return (sign * eraser.proj_left.mT, sign * eraser.proj_right, both.mean, torch.zeros_like(both.mean)), None


def _transport(classes: list[ClassMoments], source: int, to: int) -> Factors:
    fitter = QuadraticFitter(len(classes[0].mean), len(classes), dtype=torch.float64)
    fitter.n = torch.tensor([c.count for c in classes], dtype=torch.float64)
    fitter.mean_x = torch.stack([c.mean for c in classes])
    fitter.sigma_xx_ = torch.stack([c.covariance * c.count for c in classes])
    editor = fitter.editor()
    identity = torch.eye(len(classes[0].mean), dtype=torch.float64)
    means = editor.class_means
    return identity, identity - editor.ot_maps[source, to], means[source], means[to] - means[source]


def _fit(read: Read, method: str, factors_of: FactorsOf) -> dict[Place, Editor]:
    moments = as_moments(read, covariance=True)
    editors = {}
    for site, positive in moments.positive.items():
        factors, gate = factors_of(positive, moments.negative[site])
        left, right, center, shift = (t.float().contiguous() for t in factors)
        editors[site] = Editor(left, right, center, shift, gate, site, moments.span, method, moments.model, moments.data)
    return editors
