"""Clusters of points: how many there are is found, and one cloud stays one.

A mixture of Gaussians of one common covariance proposes groups, their number by the Bayesian information
criterion. A cloud that is not Gaussian is cut into several of them, so groups are then joined unless the
points themselves show a valley between the two: far fewer in a window between the centres than in one round
the smaller centre. All is a function of the set of points, not of their order.
"""

from collections.abc import Iterator

import numpy as np
from attrs import frozen
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.stats import binom

from fltheory.numerics.validation import Array, Integers

_LARGEST = 1000  # points among which groups are sought; the rest are assigned
_MOST = 100  # groups
_N_STEPS = 20  # of expectation and maximisation
_HOPE = 100.0  # of the last gain of a fit: it is given up where so much would not make it the best
_STRICT = 2.0  # times the penalty of the criterion, which is too weak for few points in many directions
_NULL = 1e-6  # relative standard deviation up to which a direction is constant
_FLOOR = 1e-4  # variance inside groups that is always there, relative to the total
_NEAREST = 4.0  # distance of two centres, in standard deviations, below which they are one
_SHALLOW = 0.5  # density between two centres, relative to that round the smaller, above which they are one
_ERROR = 1e-3  # probability at which a valley counts, were the density flat between two centres


@frozen(eq=False)
class Clusters:
    """Groups of points with a common covariance.

    Attributes
    ----------
    origin, directions
        (d,) and (d, r): coordinates (x - origin) @ directions, in which the covariance inside groups is 1.
    centres
        Of the groups in these coordinates, (k, r).
    shares
        Of the points, (k,).
    """

    origin: Array
    directions: Array
    centres: Array
    shares: Array

    @property
    def separation(self) -> float:
        """Distance of the two nearest centres in standard deviations inside groups; 0 for one group."""
        if len(self.centres) == 1:
            return 0.0
        distances = np.linalg.norm(self.centres[:, None] - self.centres, axis=-1)
        return float(distances[~np.eye(len(distances), dtype=bool)].min())

    def assign(self, *blocks: Array) -> Integers:
        """The most probable group of each point (..., d), given in the blocks they were found from."""
        x = (np.concatenate(blocks, axis=-1) - self.origin) @ self.directions
        score = x @ self.centres.T - 0.5 * (self.centres**2).sum(1) + np.log(self.shares)
        return np.asarray(score.argmax(-1))


def find_clusters(*blocks: Array) -> Clusters:
    """Groups of n points, given as blocks (n, d_j) of coordinates of one kind each.

    Affine maps of the points do not matter, but for the first proposals, in which each block has the same
    weight, and where there are less than two points a coordinate. The order of the points and that of the
    coordinates of a block do not matter.
    """
    units = np.concatenate([np.full(block.shape[1], _spread(block) or 1.0) for block in blocks])
    points = np.concatenate(blocks, axis=1)[_chosen(blocks)]
    scaled = points / units
    white, directions = _whitened(scaled)
    members = np.zeros(len(points), np.int64)
    if directions.size:
        members = _joined(white, _proposed(white, linkage(scaled, "ward")))
    groups = [white[members == c] for c in np.unique(members)]
    root = np.linalg.cholesky(np.linalg.inv(_within(white, members)))  # its inverse covariance
    return Clusters(
        points.mean(0),
        directions / units[:, None] @ root,
        np.stack([group.mean(0) for group in groups]) @ root,
        np.array([len(group) / len(white) for group in groups]),
    )


def _spread(block: Array) -> float:
    return float(np.sqrt(block.var(0).sum()))


def _chosen(blocks: tuple[Array, ...]) -> Integers:
    """Points among which groups are sought: evenly from all, sorted by what does not name coordinates."""
    unnamed = [np.sort(block, axis=1) for block in blocks]
    order = np.lexsort(np.concatenate([*blocks, *unnamed], axis=1).T)  # the last is compared first
    return np.asarray(order[np.linspace(0, len(order) - 1, min(len(order), _LARGEST)).astype(int)])


def _whitened(points: Array) -> tuple[Array, Array]:
    """Points (n, r) of covariance 1 and the directions (d, r) that make them.

    Constant directions are left out, and the least ones where there are more than half as many as points:
    in as many as points any two groups can be told apart.
    """
    centred = points - points.mean(0)
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    kept = values > _NULL * max(values.max(), np.finfo(float).tiny)
    kept[max(len(points) // 2, 1) :] = False
    directions = vectors[kept].T / values[kept] * np.sqrt(len(points))
    return centred @ directions, directions


def _numbers(most: int) -> Iterator[int]:
    """1, 2, 3, ... and from 10 on in steps of a fifth."""
    k = 1
    while k <= most:
        yield k
        k = max(k + 1, int(1.2 * k))


@frozen(eq=False)
class _Proposal:
    """Groups (n,) of a mixture that was started from ``number`` groups, and its criterion."""

    criterion: float
    number: int
    members: Integers


def _proposed(x: Array, tree: Array) -> Integers:
    """The groups of the mixture with the least Bayesian information criterion, (n,).

    Numbers of all sizes are tried: of groups that differ in several ways at once (all codes of four
    classes) the criterion falls from 4 to 8 to 16, and no number between is better than half of it.
    """
    numbers = list(_numbers(min(max(len(x) // 3, 1), _MOST)))
    best = _Proposal(np.inf, 1, np.zeros(len(x), np.int64))
    best = _best(x, tree, numbers, best)
    i = numbers.index(best.number)
    between = range(numbers[max(i - 1, 0)] + 1, numbers[min(i + 1, len(numbers) - 1)])
    return _best(x, tree, [k for k in between if k != best.number], best).members


def _best(x: Array, tree: Array, numbers: list[int], best: _Proposal) -> _Proposal:
    for k in numbers:
        criterion, members = _mixture(x, fcluster(tree, k, "maxclust").astype(np.int64) - 1, best.criterion)
        if criterion < best.criterion:
            best = _Proposal(criterion, k, members)
    return best


def _mixture(x: Array, members: Integers, best: float) -> tuple[float, Integers]:
    """The criterion of a mixture fitted to x (n, r) from given groups, and the groups that it has.

    Given up where it is clearly not going to be better than the best so far.
    """
    (n, r), k = x.shape, int(members.max()) + 1
    penalty = _STRICT * (k * r + (k - 1) + r * (r + 1) / 2) * np.log(n)
    weights, likelihood = np.eye(k)[members], -np.inf
    for _ in range(_N_STEPS):
        previous = likelihood
        likelihood, weights = _step(x, weights)
        gain = likelihood - previous
        if gain < 1e-5 * n or penalty - 2.0 * (likelihood + _HOPE * gain) > best:
            break
    return penalty - 2.0 * likelihood, weights.argmax(1)


def _step(x: Array, weights: Array) -> tuple[float, Array]:
    """One step of expectation and maximisation: log-likelihood, and the weights (n, k) under it."""
    n = len(x)
    total = weights.sum(0)
    centres = (weights.T @ x) / total[:, None]
    covariance = (x.T @ x - (centres.T * total) @ centres) / n + _FLOOR * np.eye(x.shape[1])
    root = np.linalg.cholesky(np.linalg.inv(covariance))
    y, c = x @ root, centres @ root
    score = y @ c.T - 0.5 * (c**2).sum(1) + np.log(total / n)
    top = score.max(1, keepdims=True)
    weights = np.exp(score - top)
    norm = weights.sum(1, keepdims=True)
    evidence = (top + np.log(norm))[:, 0] - 0.5 * (y**2).sum(1)
    likelihood = float(evidence.sum() + n * np.log(np.diagonal(root)).sum())
    return likelihood, weights / norm + np.finfo(float).tiny


def _within(x: Array, members: Integers) -> Array:
    """Covariance inside groups, (r, r)."""
    names, index = np.unique(members, return_inverse=True)
    rest = x - np.stack([x[members == c].mean(0) for c in names])[index]
    covariance: Array = rest.T @ rest / max(len(x) - len(names), 1)
    return covariance + _FLOOR * np.eye(x.shape[1])


def _joined(x: Array, members: Integers) -> Integers:
    """Groups joined, those that are least apart first, until there is a valley between any two."""
    while members.max() > 0:
        members = np.unique(members, return_inverse=True)[1]
        y = x @ np.linalg.cholesky(np.linalg.inv(_within(x, members)))
        groups = [y[members == c] for c in range(members.max() + 1)]
        probability, _, i, j = max(_neighbours(groups), default=(0.0, 0.0, 0, 0))
        if probability < _ERROR:
            break
        members = np.where(members == j, i, members)
    return members


def _neighbours(groups: list[Array]) -> Iterator[tuple[float, float, int, int]]:
    """Each group i and the one nearest to it, j: how probable their valley is by chance, and -distance."""
    centres = np.stack([group.mean(0) for group in groups])
    distances = np.linalg.norm(centres[:, None] - centres, axis=-1)
    np.fill_diagonal(distances, np.inf)
    for i in range(len(groups) if len(groups) > 1 else 0):
        j = int(distances[i].argmin())
        yield _no_valley(groups[i], groups[j]), -float(distances[i, j]), i, j


def _no_valley(one: Array, other: Array) -> float:
    """Probability of so few points between two groups, were the density no lower there than in the smaller.

    Along the line of the centres: in the window between them that holds least, against one round the
    smaller group's median, of one or of two standard deviations on either side, whichever shows more.
    """
    large, small = (one, other) if len(one) >= len(other) else (other, one)
    axis = small.mean(0) - large.mean(0)
    axis /= np.linalg.norm(axis)
    line = np.sort(np.concatenate([small, large]) @ axis)
    begin, end = float(np.median(large @ axis)), float(np.median(small @ axis))
    if end - begin < _NEAREST:
        return 1.0
    width = max(1.0, end - begin - 4.0)
    starts = np.linspace(begin + 1.0, end - 1.0 - width, 9)
    between = int((np.searchsorted(line, starts + width) - np.searchsorted(line, starts)).min())
    return 2.0 * min(_as_dense(line, end, half, between, width) for half in (1.0, 2.0))


def _as_dense(line: Array, centre: float, half: float, between: int, width: float) -> float:
    """Probability of ``between`` points on a length ``width``, at the density within ``half`` of a centre."""
    around = int(np.searchsorted(line, centre + half) - np.searchsorted(line, centre - half))
    if between / width > _SHALLOW * around / (2.0 * half):
        return 1.0
    return float(binom.sf(around - 1, around + between, 2.0 * half / (2.0 * half + width)))
