"""Linear probes as directions. A probe is as long as the class means are apart along it, and its
`boundary` is where it decides, in such lengths from the negative mean; `condition.probe` makes a
condition of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from nnsteer.fit.activations import Activations
from nnsteer.fit.means import Read, as_moments, mean_difference
from nnsteer.kernels import fits
from nnsteer.program.direction import Direction, Directions
from nnsteer.program.site import Place


def lda(read: Read) -> Directions:
    """Fisher's linear discriminant: the direction along which the class means lie furthest apart
    for the spread within the classes. The pooled covariance is shrunk towards a round one by
    `kernels.fits.RIDGE`."""
    moments = as_moments(read, covariance=True)
    directions: dict[Place, Direction] = {}
    for site, mean in mean_difference(moments).items():
        classes = moments.positive[site], moments.negative[site]
        first, second = ((part.count, part.mean, part.covariance * part.count) for part in classes)
        vector, boundary = fits.discriminant(first, second, fits.RIDGE)
        directions[site] = replace(mean, vector=vector.float(), method="lda", boundary=boundary)
    return Directions(directions)


def logistic(activations: Activations) -> Directions:
    """Logistic regression with an L2 penalty of one over the number of texts (on states divided by
    their standard deviation)."""
    moments = activations.moments(covariance=False)
    directions: dict[Place, Direction] = {}
    for site, mean in mean_difference(moments).items():
        classes = activations.positive[site], activations.negative[site]
        weights, bias = logit(*(states.double() for states in classes))
        negative = moments.negative[site].mean
        gap = moments.positive[site].mean - negative
        boundary = ((-bias - negative @ weights) / (gap @ weights)).item()
        unit = torch.nn.functional.normalize(weights, dim=0)
        vector = (unit * (unit @ gap)).float()
        directions[site] = replace(mean, vector=vector, method="logistic", boundary=boundary)
    return Directions(directions)


def logit(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [hidden] and bias of the logit that tells states [text, hidden] apart."""
    x = torch.cat([positive, negative])
    scale, centre = x.std(), x.mean(0)
    x = (x - centre) / scale
    y = torch.cat([torch.ones(len(positive)), -torch.ones(len(negative))]).double()

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.tensor(parameters, requires_grad=True)
        logits = x @ theta[:-1] + theta[-1]
        penalty = 0.5 / len(x) * theta[:-1] @ theta[:-1]
        value = torch.nn.functional.softplus(-y * logits).mean() + penalty
        (gradient,) = torch.autograd.grad(value, theta)
        return value.item(), gradient.numpy()

    start = np.zeros(x.shape[1] + 1)
    solution = torch.tensor(minimize(loss, start, jac=True, method="L-BFGS-B").x)
    weights = solution[:-1] / scale
    return weights, solution[-1] - weights @ centre
