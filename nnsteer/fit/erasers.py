"""Affine maps that remove a concept or carry one class onto the other, by `concept-erasure`."""

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
CLASSES = ("negative", "positive")
Factors = tuple[Tensor, Tensor, Tensor, Tensor]
"""left and right [rank, hidden], center and shift [hidden]"""
FactorsOf = Callable[[ClassMoments, ClassMoments], tuple[Factors, Gate | None]]


def leace(read: Read) -> dict[Place, Editor]:
    """The smallest edit after which no linear probe tells the classes apart (Belrose et al. 2023),
    about all states' mean."""
    return _fit(read, "leace", lambda *sides: (_erase("leace", *sides), None))


def orth(read: Read) -> dict[Place, Editor]:
    """Removes the mean-difference direction about the mean of all states (steering-llama3 `--leace
    orth`). With a multiple of the mean difference added it is ACE."""
    return _fit(read, "orth", lambda *sides: (_erase("orth", *sides), None))


def quadratic(read: Read, target: Target) -> dict[Place, Editor]:
    """Optimal transport of all states, taken as one Gaussian, onto the target class's
    (steering-llama3 `quad`)."""

    def factors(positive: ClassMoments, negative: ClassMoments) -> tuple[Factors, None]:
        classes = [negative, positive, merged(positive, negative)]
        return _transport(classes, 2, CLASSES.index(target)), None

    return _fit(read, f"quadratic to {target}", factors)


def quadratic_lda(read: Read, target: Target) -> dict[Place, Editor]:
    """The same from the other class alone: a token is moved when the linear discriminant, against
    the mean of all states, says that it is of the other class (steering-llama3 `quadlda`)."""
    to = CLASSES.index(target)

    def factors(positive: ClassMoments, negative: ClassMoments) -> tuple[Factors, Gate]:
        _, right, center, _ = _erase("leace", positive, negative)
        gate = Gate(right[0].float(), (right[0] @ center).item(), above=target == "negative")
        return _transport([negative, positive], 1 - to, to), gate

    return _fit(read, f"quadratic-lda to {target}", factors)


def _erase(
    method: Literal["leace", "orth"], positive: ClassMoments, negative: ClassMoments
) -> Factors:
    both = merged(positive, negative)
    gap = positive.mean - negative.mean
    fitter = LeaceFitter(len(both.mean), 1, method=method, dtype=torch.float64)
    fitter.n = torch.tensor(both.count)
    fitter.mean_x = both.mean
    fitter.sigma_xz_ = (positive.count * negative.count / both.count * gap)[:, None]
    if method == "leace":
        fitter.sigma_xx_ = both.covariance * both.count
    left, right = fitter.eraser.proj_left, fitter.eraser.proj_right
    if left.norm() == 0:
        mistake = f"the class means are {gap.norm():.2g} apart, too close to erase (see svd_tol)"
        raise UserError(f"{method}: {mistake}; give other texts")
    sign = torch.sign(right[0] @ gap)  # it points from the negative to the positive class
    return sign * left.mT, sign * right, both.mean, torch.zeros_like(both.mean)


def _transport(classes: list[ClassMoments], source: int, to: int) -> Factors:
    hidden = len(classes[0].mean)
    fitter = QuadraticFitter(hidden, len(classes), dtype=torch.float64)
    fitter.n = torch.tensor([c.count for c in classes], dtype=torch.float64)
    fitter.mean_x = torch.stack([c.mean for c in classes])
    fitter.sigma_xx_ = torch.stack([c.covariance * c.count for c in classes])
    editor = fitter.editor()
    identity, means = torch.eye(hidden, dtype=torch.float64), editor.class_means
    return identity, identity - editor.ot_maps[source, to], means[source], means[to] - means[source]


def _fit(read: Read, method: str, factors_of: FactorsOf) -> dict[Place, Editor]:
    read = as_moments(read, covariance=True)
    editors = {}
    for site, positive in read.positive.items():
        factors, gate = factors_of(positive, read.negative[site])
        left, right, center, shift = (t.float().contiguous() for t in factors)
        editors[site] = Editor(
            left, right, center, shift, gate, site, read.span, method, read.model, read.data
        )
    return editors
