"""Where to look for branches, and which of those found are distinct and physical."""

import itertools
import math

import numpy as np
from scipy import optimize

from fltheory.meanfield.ep import BranchMoments
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array, Booleans, Integers

_ALL_CODES = 6  # distinct targets up to which every 0/1 code is a start: 2^6 branches
_N_DIRECTIONS = 24  # half-space patterns beyond
_MOST_GROUPS = 32  # distinct targets up to which a code has an entry for each
_N_DIRECTIONS_TOLD = 3  # of the targets, beyond
_COVERED = 0.999  # share of the particles whose codes are branches of their own
_SOFTEST = 10.0  # variance of the readout, in units of the prior's, above which EP is not trusted
_INSIDE, _NEAR = 9.0, 2.5  # squared distances, in units of a branch's covariance, from its centre
_MINOR = 4.0  # log weight by which a part may fall short of the whole
_LOWEST = 100.0  # log weight below the best branch at which one is forgotten


def neuron_states(nonlinearity: Nonlinearity, scale: float) -> Array:
    """The preactivations within +-3 ``scale`` at which a neuron is least and most active, (2,)."""
    z = scale * np.linspace(-3.0, 3.0, 61)
    values = np.asarray(nonlinearity(z), dtype=float)
    return z[[values.argmin(), values.argmax()]]


def distinct_rows(targets: Array) -> tuple[Array, Integers]:
    """The distinct rows of Y (equal to ten digits), (R, m), and which one each input has, (P,)."""
    largest = np.abs(targets).max()
    digits = 10 - math.ceil(math.log10(largest)) if largest > 0 else 0
    _, first, member = np.unique(np.round(targets, digits), axis=0, return_index=True, return_inverse=True)
    return targets[first], member.reshape(-1).astype(np.int64)


def input_groups(targets: Array) -> Integers:
    """Groups of inputs over which a neuron's code is told, 0 to R - 1, (P,).

    Those of equal targets if they are few, else the octants of the targets' leading directions.
    """
    rows, member = distinct_rows(targets)
    if len(rows) <= _MOST_GROUPS:
        return member
    centred = targets - targets.mean(0)
    leading = np.linalg.svd(centred, full_matrices=False)[2][:_N_DIRECTIONS_TOLD]
    octant = (centred @ leading.T > 0) @ (2 ** np.arange(len(leading)))
    return np.unique(octant, return_inverse=True)[1].reshape(-1).astype(np.int64)


def activity_codes(activations: Array, groups: Integers, threshold: float) -> Booleans:
    """Whether the mean activation (n, P) on each group of inputs (P,) is above a threshold, (n, R)."""
    share = np.eye(groups.max() + 1)[groups] / np.bincount(groups)
    return np.asarray(activations @ share > threshold)


def occupied_codes(codes: Booleans, weights: Array) -> Integers:
    """The branch of each particle (n,), most probable first: its code (n, R), or the nearest common one.

    Common are the most probable codes that together have nearly all of the weight (n,).
    """
    distinct_codes, member = np.unique(codes, axis=0, return_inverse=True)
    probability = np.bincount(member.reshape(-1), weights)
    order = np.argsort(-probability, kind="stable")
    n_common = int(np.searchsorted(np.cumsum(probability[order]), _COVERED * probability.sum())) + 1
    common = distinct_codes[order[:n_common]].astype(float)
    differing = distinct_codes.sum(1)[:, None] + common.sum(1) - 2 * distinct_codes @ common.T
    nearest: Integers = differing.argmin(1)
    return nearest[member.reshape(-1)]


def code_patterns(targets: Array) -> Array:
    """0/1 patterns over the inputs from which branches may start, (B, P).

    Every code over the distinct rows of Y if they are few, else half-spaces 1[Y u > theta].
    """
    rows, member = distinct_rows(targets)
    if len(rows) <= _ALL_CODES:
        codes = np.array(list(itertools.product([0.0, 1.0], repeat=len(rows))))
        return codes[:, member]
    directions = np.random.default_rng(0).standard_normal((_N_DIRECTIONS, targets.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    projected = np.concatenate([directions, np.eye(targets.shape[1])]) @ targets.T
    thresholds = np.stack([np.zeros(len(projected)), projected.mean(1)], axis=1)
    above = (projected[:, None, :] > thresholds[:, :, None]).reshape(-1, len(targets))
    patterns = np.concatenate([above, ~above, np.zeros((1, len(targets)), bool)])
    return np.unique(patterns, axis=0).astype(float)


def distinct(branches: BranchMoments, *, separation: float, worst_change: float) -> Integers:
    """Indices of converged branches that differ from one another, most probable first."""
    usable = branches.proper & (branches.change <= worst_change)
    kept: list[int] = []
    for index in np.argsort(-branches.log_partition):
        if not usable[index] or branches.log_partition[index] < _floor(branches, kept):
            continue
        gap = np.abs(branches.activations[kept] - branches.activations[index]).max(1)
        gap += np.abs(branches.readout[kept] - branches.readout[index]).max(1)
        if (gap > separation).all():
            kept.append(int(index))
    return np.array(kept, dtype=np.int64)


def _floor(branches: BranchMoments, kept: list[int]) -> float:
    return -np.inf if not kept else float(branches.log_partition[kept[0]]) - _LOWEST


def is_physical(branches: BranchMoments, readout_variance: float) -> Booleans:
    """Whether a branch's readout is as narrow as real ones are; EP over-weights shallow ones."""
    widest = np.linalg.eigvalsh(branches.readout_covariance)[:, -1]
    return np.asarray(widest < _SOFTEST * readout_variance)


def covers_others(branches: BranchMoments) -> Booleans:
    """Whether a wide branch counts again what narrower ones inside it describe better.

    Where one branch is about to split in two, EP finds the whole and the halves. Of a branch and a
    narrower one near its centre, or two anywhere inside it, the narrower ones stay.
    """
    spread = np.linalg.eigvalsh(branches.readout_covariance)[:, -1]
    apart = branches.readout[None] - branches.readout[:, None]  # (of the wide one, of the other, m)
    distance = np.einsum("bci,bij,bcj->bc", apart, np.linalg.inv(branches.readout_covariance), apart)
    comparable = branches.log_partition[None] > branches.log_partition[:, None] - _MINOR
    narrower = (spread[None] < 0.7 * spread[:, None]) & comparable
    inside, near = narrower & (distance < _INSIDE), narrower & (distance < _NEAR)
    return np.asarray((inside.sum(1) >= 2) | near.any(1))


def mode_sites(
    factor: Array,
    field: Array,
    readout_variance: float,
    nonlinearity: Nonlinearity,
    patterns: Array,
    seed: int,
    n_random: int = 16,
) -> Array:
    """EP sites at the modes of a neuron's density in its latent (g, alpha), (5, B, P).

    Each mode is climbed to from a 0/1 pattern or from a random neuron of the prior; its sites are
    the second-order expansion of each factor h phi(z) there, with which EP starts at the mode.

    Parameters
    ----------
    factor, field, readout_variance
        F (P, q), t (P, m) and sigma_a^2.
    patterns
        Shape (B, P).
    n_random
        Number of random neurons.
    """
    rank = factor.shape[1]
    scaled_field = math.sqrt(readout_variance) * field
    scale = math.sqrt(max(float((factor**2).sum(1).max(initial=0.0)), 1e-20))
    pushed = 0.5 * neuron_states(nonlinearity, scale)[patterns.astype(int)] @ np.linalg.pinv(factor).T
    random = np.random.default_rng(seed).standard_normal((n_random, rank))
    latent = np.concatenate([pushed, random])
    start = np.concatenate([latent, nonlinearity(latent @ factor.T) @ scaled_field], axis=1)

    def energy(flat: Array) -> tuple[float, Array]:
        x = flat.reshape(start.shape)
        z, h = x[:, :rank] @ factor.T, x[:, rank:] @ scaled_field.T
        phi = nonlinearity(z)
        gradient = x - np.concatenate([(h * nonlinearity.derivative(z)) @ factor, phi @ scaled_field], 1)
        return float(0.5 * (x**2).sum() - (h * phi).sum()), gradient.ravel()

    found = optimize.minimize(
        energy, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 150, "maxcor": 20}
    )
    x = _separated(found.x.reshape(start.shape))
    z, h = x[:, :rank] @ factor.T, x[:, rank:] @ scaled_field.T
    step = 1e-4 * scale
    slope = nonlinearity.derivative(z)
    bend = (nonlinearity.derivative(z + step) - nonlinearity.derivative(z - step)) / (2 * step)
    zz, zh = -h * bend, -slope
    return np.stack([zz, zh, np.zeros_like(z), h * slope + zz * z + zh * h, nonlinearity(z) + zh * z])


def _separated(x: Array) -> Array:
    """One of each group of points closer than a fraction of the prior's width."""
    kept: list[int] = []
    for index in range(len(x)):
        if (np.linalg.norm(x[kept] - x[index], axis=1) > 0.3).all():
            kept.append(index)
    return x[kept]
