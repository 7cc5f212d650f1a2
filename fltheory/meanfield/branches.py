"""Where to look for branches, and which of those found are distinct and physical."""

import itertools
import math

import numpy as np

from fltheory.meanfield.ep import BranchMoments
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array

_ALL_CODES = 6  # distinct targets up to which every 0/1 code is a start: 2^6 branches
_N_DIRECTIONS = 24  # half-space patterns beyond
_SOFTEST = 10.0  # variance of the readout, in units of the prior's, above which EP is not trusted
_LOWEST = 100.0  # log weight below the best branch at which one is forgotten


def neuron_states(nonlinearity: Nonlinearity, scale: float) -> tuple[Array, Array]:
    """The preactivations at which a neuron is least and most active, and phi there: (2,), (2,)."""
    z = scale * np.linspace(-3.0, 3.0, 61)
    values = np.asarray(nonlinearity(z), dtype=float)
    extremes = np.array([values.argmin(), values.argmax()])
    return z[extremes], values[extremes]


def distinct_rows(targets: Array) -> tuple[Array, Array]:
    """The distinct rows of Y (equal to ten digits), (R, m), and which one each input has, (P,)."""
    digits = 10 - math.ceil(math.log10(max(np.abs(targets).max(), 1e-300)))
    _, first, member = np.unique(
        np.round(targets, digits), axis=0, return_index=True, return_inverse=True
    )
    return targets[first], member.reshape(-1)


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


def starting_sites(patterns: Array, nonlinearity: Nonlinearity, scale: float) -> Array:
    """EP sites that push neurons towards the patterns, (5, B, P).

    A site on h of weight phi gives a = sigma_a^2 t^T phi, the readout of a neuron with these
    activations; the site on z holds the neuron in that state, by a push where the state lies at
    infinity and by a Gaussian where it is a finite extremum of phi.
    """
    z, values = neuron_states(nonlinearity, scale)
    outermost = np.abs(z) > 2.9 * scale
    states = patterns.astype(int)
    sites = np.zeros((5, *patterns.shape))
    sites[0] = np.where(outermost, 0.0, 1.0)[states] / scale**2
    sites[3] = np.where(outermost, np.sign(z) / scale, z / scale**2)[states]
    sites[4] = values[states]
    return sites


def distinct(branches: BranchMoments, *, separation: float, worst_change: float) -> Array:
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
    return np.array(kept, dtype=int)


def _floor(branches: BranchMoments, kept: list[int]) -> float:
    return -np.inf if not kept else float(branches.log_partition[kept[0]]) - _LOWEST


def is_physical(branches: BranchMoments, readout_variance: float) -> Array:
    """Whether a branch's readout is as narrow as real ones are; EP over-weights shallow ones."""
    widest = np.linalg.eigvalsh(branches.readout_covariance)[:, -1]
    return np.asarray(widest < _SOFTEST * readout_variance)
