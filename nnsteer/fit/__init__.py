"""Activations to directions and editors, one per site."""

from collections.abc import Callable, Mapping

from nnsteer import registry
from nnsteer.fit.activations import Activations
from nnsteer.fit.combine import mean, orthogonal, total
from nnsteer.fit.controls import norm_matched, permuted, random_like
from nnsteer.fit.erasers import leace, orth, quadratic, quadratic_lda
from nnsteer.fit.means import mean_difference, regressed
from nnsteer.fit.pca import pca_center, pca_diff, pca_pairwise
from nnsteer.fit.probes import lda, logistic
from nnsteer.program.direction import Directions
from nnsteer.program.names import Method

MethodFunction = Callable[[Activations], Directions]

METHODS: Mapping[str, MethodFunction] = {
    "mean_difference": mean_difference,
    "pca_pairwise": pca_pairwise,
    "pca_center": pca_center,
    "pca_diff": pca_diff,
    "lda": lda,
    "logistic": logistic,
}


def method_named(name: str) -> MethodFunction:
    """One of METHODS, or one from outside. Raises UserError for a name that nothing has."""
    return registry.named("nnsteer.methods", METHODS, name)


__all__ = [
    "METHODS",
    "Method",
    "lda",
    "leace",
    "logistic",
    "mean",
    "mean_difference",
    "method_named",
    "norm_matched",
    "orth",
    "orthogonal",
    "pca_center",
    "pca_diff",
    "pca_pairwise",
    "permuted",
    "quadratic",
    "quadratic_lda",
    "random_like",
    "regressed",
    "total",
]
