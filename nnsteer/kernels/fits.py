"""The arithmetic of directions that can be fitted next to a model: functions of both classes' states, [text, hidden] each.

This file travels to a server, by source, as `ops` does: torch alone, no decorators, no defaults. Each kernel returns the vector
[hidden] and, for a probe, its boundary; all compute in fp64. `fit` runs the same functions here.
"""

from __future__ import annotations

import torch

RIDGE = 0.1  # of the mean variance, added to every variance of a covariance


def mean_difference(positive, negative):
    """See `fit.mean_difference`."""
    return positive.double().mean(0) - negative.double().mean(0), None


def pca_pairwise(positive, negative):
    """See `fit.pca_pairwise`."""
    return principal(positive.double() - negative.double(), positive, negative)


def pca_center(positive, negative):
    """See `fit.pca_center`."""
    return principal(centred(torch.cat([positive, negative]).double()), positive, negative)


def pca_diff(positive, negative):
    """See `fit.pca_diff`."""
    return principal(centred(positive.double() - negative.double()), positive, negative)


def lda(positive, negative):
    """See `fit.lda`."""
    classes = [(len(x), x.double().mean(0), scatter(x.double())) for x in (positive, negative)]
    return discriminant(*classes, RIDGE)


def centred(rows):
    """Rows about their mean."""
    return rows - rows.mean(0)


def scatter(rows):
    """The sum of squared deviations from the mean, [hidden, hidden]."""
    return centred(rows).mT @ centred(rows)


def principal(rows, positive, negative):
    """The top right singular vector of `rows`, with the sign of most pairs and the mean distance of the pairs along it."""
    unit = top_singular(rows)
    return oriented(unit, (positive - negative).double() @ unit), None


def oriented(unit, along):
    """A unit vector with the sign of most pairs and, as its length, their mean distance; `along` [pair] are their differences
    along it."""
    sign = 1.0 if (along > 0).sum() >= (along < 0).sum() else -1.0
    return unit * (sign * along.mean().abs())


def top_singular(rows):
    """The top right singular vector, [hidden], through the smaller of the two Gram matrices."""
    if rows.shape[0] < rows.shape[1]:
        left = torch.linalg.eigh(rows @ rows.mT).eigenvectors[:, -1]
        return torch.nn.functional.normalize(left @ rows, dim=0)
    return torch.linalg.eigh(rows.mT @ rows).eigenvectors[:, -1]


def discriminant(positive, negative, ridge):
    """Fisher's discriminant from each class's (count, mean [hidden], scatter [hidden, hidden]), as a vector whose length is the
    distance of the means along it, and its boundary; `ridge` of the mean variance is added to every variance."""
    n, mean, squares = positive
    m, other, more = negative
    covariance = (squares + more) / (n + m)
    weights = torch.linalg.solve(
        covariance + ridge * covariance.diagonal().mean() * torch.eye(len(mean), dtype=mean.dtype, device=mean.device),
        mean - other,
    )
    unit = torch.nn.functional.normalize(weights, dim=0)
    odds = torch.log(torch.tensor(n / m, dtype=mean.dtype))
    boundary = 0.5 - odds / ((mean - other) @ weights).cpu()
    return unit * (unit @ (mean - other)), boundary.item()


def fitted(rows, lengths, back, split, kernel):
    """Directions at every site, from states [row, hidden] and their norms [row] of each batch and site. `back` puts the batches'
    rows in order, of which the first `split` are positive. One fp32 tensor: for each site in turn the vector, the origin, the
    mean norm and the boundary (NaN without one)."""
    numbers = []
    for positive, negative, norm in by_site(rows, lengths, back, split):
        vector, boundary = kernel(positive, negative)
        rest = torch.tensor([norm.mean().item(), float("nan") if boundary is None else boundary])
        numbers += [vector.float().cpu(), negative.double().mean(0).float().cpu(), rest]
    return torch.cat(numbers)


def partial(rows, lengths, back, split, covariance, rank):
    """What directions can be made of when not all texts are read in one go, for each site: both classes' counts, means, mean
    norms and, with `covariance`, scatters; with a `rank` also the truncated singular value decomposition of the pairs'
    differences."""
    found = []
    for positive, negative, norm in by_site(rows, lengths, back, split):
        site = {"norms": [norm[:split].mean().item(), norm[split:].mean().item()], "counts": [split, len(norm) - split]}
        classes = [positive.double(), negative.double()]
        site["means"] = [x.mean(0).float().cpu() for x in classes]
        site["scatters"] = [scatter(x).float().cpu() for x in classes] if covariance else None
        if rank is not None:
            left, values, right = torch.linalg.svd(classes[0] - classes[1], full_matrices=False)
            site["left"], site["right"] = (left * values)[:, :rank].float().cpu(), right[:rank].float().cpu()
            site["discarded"] = ((values[rank:] ** 2).sum() / (values**2).sum()).item()
        found.append(site)
    return found


def by_site(rows, lengths, back, split):
    """For each site the positive states, the negative ones and the norms of all."""
    for i in range(len(rows[0])):
        states = torch.cat([batch[i] for batch in rows])[back]
        yield states[:split], states[split:], torch.cat([batch[i] for batch in lengths])[back].double()
