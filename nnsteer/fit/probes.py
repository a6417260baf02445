"""Linear probes as directions. A probe's length is the distance of the class means along it, and its `boundary` is where it
decides, in such lengths from the negative mean; `condition.probe` makes a condition of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from nnsteer.fit.activations import Activations
from nnsteer.fit.means import Read, as_moments, from_moments
from nnsteer.fit.moments import ClassMoments
from nnsteer.kernels import fits
from nnsteer.program.direction import Direction, Directions
from nnsteer.program.site import Place


def lda(read: Read) -> Directions:
    """Fisher's linear discriminant: the direction along which the class means lie furthest apart for the spread within the
    classes. The pooled covariance is shrunk towards a round one by `kernels.RIDGE`."""
    moments = as_moments(read, covariance=True)
    found = {site: _discriminant(positive, moments.negative[site]) for site, positive in moments.positive.items()}
    directions = from_moments(moments, "lda", lambda p, n: _discriminant(p, n)[0], covariance=True)
    decided = {site: replace(d, boundary=found[site][1]) for site, d in directions.items()}
    return Directions(decided)


def _discriminant(positive: ClassMoments, negative: ClassMoments) -> tuple[Tensor, float]:
    first, second = ((c.count, c.mean, c.covariance * c.count) for c in (positive, negative))
    return fits.discriminant(first, second, fits.RIDGE)


def logistic(activations: Activations) -> Directions:
    """Logistic regression with an L2 penalty of one over the number of texts (on states divided by their standard deviation)."""
    moments = activations.moments(covariance=False)
    directions: dict[Place, Direction] = {}
    for site, rows in activations.positive.items():
        weights, bias = _logistic(rows.double(), activations.negative[site].double())
        positive, negative = moments.positive[site], moments.negative[site]
        vector = _along(positive, negative, weights)
        distance = (positive.mean - negative.mean) @ weights
        boundary = (-bias - negative.mean @ weights) / distance
        single = from_moments(moments, "logistic", lambda *_, vector=vector: vector, covariance=False)[site]
        directions[site] = replace(single, boundary=boundary.item())
    return Directions(directions)


def _along(positive: ClassMoments, negative: ClassMoments, weights: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize(weights, dim=0)
    return unit * (unit @ (positive.mean - negative.mean))


def _logistic(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [hidden] and bias of the logit."""
    x = torch.cat([positive, negative])
    scale, centre = x.std(), x.mean(0)
    x = (x - centre) / scale
    y = torch.cat([torch.ones(len(positive)), -torch.ones(len(negative))]).double()

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.tensor(parameters, requires_grad=True)
        logits = x @ theta[:-1] + theta[-1]
        value = torch.nn.functional.softplus(-y * logits).mean() + 0.5 / len(x) * theta[:-1] @ theta[:-1]
        (gradient,) = torch.autograd.grad(value, theta)
        return value.item(), gradient.numpy()

    solution = torch.tensor(minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x)
    weights = solution[:-1] / scale
    return weights, solution[-1] - weights @ centre
