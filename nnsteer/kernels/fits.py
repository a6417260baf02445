"""Directions fitted next to a model: functions of both classes' states, [text, hidden] each, to a
vector [hidden] and, for a probe, its boundary, in fp64. `fit` runs and describes the same here.

This file travels to a server, by source: torch alone, no decorators, no defaults.
"""

from __future__ import annotations

import torch

RIDGE = 0.1  # of the mean variance, added to every variance of a covariance


def mean_difference(positive, negative):
    return positive.double().mean(0) - negative.double().mean(0), None


def pca_pairwise(positive, negative):
    return principal(positive.double() - negative.double(), positive, negative)


def pca_center(positive, negative):
    return principal(centred(torch.cat([positive, negative]).double()), positive, negative)


def pca_diff(positive, negative):
    return principal(centred(positive.double() - negative.double()), positive, negative)


def lda(positive, negative):
    classes = [(len(x), x.double().mean(0), scatter(x.double())) for x in (positive, negative)]
    return discriminant(*classes, RIDGE)


def centred(rows):
    """Rows about their mean."""
    return rows - rows.mean(0)


def scatter(rows):
    """The sum of squared deviations from the mean, [hidden, hidden]."""
    return centred(rows).mT @ centred(rows)


def principal(rows, positive, negative):
    """The top right singular vector of `rows`, `oriented` by the pairs."""
    unit = top_singular(rows)
    return oriented(unit, (positive - negative).double() @ unit), None


def oriented(unit, along):
    """A unit vector with the sign of most pairs and, as its length, their mean distance; `along`
    [pair] are their differences along it."""
    sign = 1.0 if (along > 0).sum() >= (along < 0).sum() else -1.0
    return unit * (sign * along.mean().abs())


def top_singular(rows):
    """The top right singular vector, [hidden], through the smaller of the two Gram matrices."""
    if rows.shape[0] < rows.shape[1]:
        left = torch.linalg.eigh(rows @ rows.mT).eigenvectors[:, -1]
        return torch.nn.functional.normalize(left @ rows, dim=0)
    return torch.linalg.eigh(rows.mT @ rows).eigenvectors[:, -1]


def discriminant(positive, negative, ridge):
    """Fisher's discriminant from each class's (count, mean [hidden], scatter [hidden, hidden]), as
    long as the means are apart along it, and its boundary; `ridge` of the mean variance is added to
    every variance."""
    n, mean, squares = positive
    m, other, more = negative
    gap = mean - other
    covariance = (squares + more) / (n + m)
    identity = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
    rounded = covariance + ridge * covariance.diagonal().mean() * identity
    weights = torch.linalg.solve(rounded, gap)
    unit = torch.nn.functional.normalize(weights, dim=0)
    odds = torch.log(torch.tensor(n / m, dtype=mean.dtype))
    boundary = 0.5 - odds / (gap @ weights).cpu()
    return unit * (unit @ gap), boundary.item()


def fitted(rows, lengths, back, split, kernel):
    """Directions at every site, from each batch's and site's states [row, hidden] and norms [row].
    `back` puts their rows in order, of which the first `split` are positive. One fp32 tensor: for
    each site the vector, the origin, the mean norm and the boundary (NaN without one)."""
    numbers = []
    for positive, negative, norm in by_site(rows, lengths, back, split):
        vector, boundary = kernel(positive, negative)
        rest = torch.tensor([norm.mean().item(), float("nan") if boundary is None else boundary])
        numbers += [vector.float().cpu(), negative.double().mean(0).float().cpu(), rest]
    return torch.cat(numbers)


def partial(rows, lengths, back, split, covariance, rank):
    """What directions can be made of when not all texts are read in one go, for each site: both
    classes' counts, means, mean norms and, with `covariance`, scatters; with a `rank` also the
    truncated singular value decomposition of the pairs' differences."""
    sites = []
    for positive, negative, norm in by_site(rows, lengths, back, split):
        classes = [positive.double(), negative.double()]
        site = {
            "norms": [norm[:split].mean().item(), norm[split:].mean().item()],
            "counts": [split, len(norm) - split],
            "means": [x.mean(0).float().cpu() for x in classes],
            "scatters": [scatter(x).float().cpu() for x in classes] if covariance else None,
        }
        if rank is not None:
            left, values, right = torch.linalg.svd(classes[0] - classes[1], full_matrices=False)
            site["left"] = (left * values)[:, :rank].float().cpu()
            site["right"] = right[:rank].float().cpu()
            site["discarded"] = ((values[rank:] ** 2).sum() / (values**2).sum()).item()
        sites.append(site)
    return sites


def by_site(rows, lengths, back, split):
    """For each site the positive states, the negative ones and the norms of all."""
    for i in range(len(rows[0])):
        states = torch.cat([batch[i] for batch in rows])[back]
        norms = torch.cat([batch[i] for batch in lengths])[back]
        yield states[:split], states[split:], norms.double()
