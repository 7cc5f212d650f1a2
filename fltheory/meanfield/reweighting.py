"""Weighted neurons, and what fluctuations of the dual field at order 1/N make of their weights.

A neuron's weight changes with the distance of its output g = phi a^T from the mean output, in units
of the covariance of g (docs/theory.md, section 11). Given z the readout is Gaussian, so that it is
integrated exactly; what is left are sums over neurons, block by block.
"""

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy import linalg

from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array, Integers

_BLOCK = 1 << 21  # entries of the largest array that is made for some of the neurons
_LEAST_ROW = 256  # entries that each neuron takes part in at least
ROUNDING = 1e-10  # relative, added to covariances that may be singular


@frozen(eq=False)
class WeightedNeurons:
    """Neurons under the law (4a), their readouts integrated out: a | z ~ N(sigma_a^2 t^T phi, sigma_a^2).

    Attributes
    ----------
    preactivations, weights
        z (n, P) and the weights (n,), summing to 1.
    field
        t, (P, m).
    noise
        N T.
    member
        Which inputs are equivalent: the group of each, (P,). Averages over permutations inside a
        group are taken exactly.
    """

    preactivations: Array
    weights: Array
    nonlinearity: Nonlinearity
    field: Array
    noise: float
    readout_variance: float
    member: Integers

    @property
    def n_groups(self) -> int:
        """G."""
        return int(self.member.max()) + 1

    @cached_property
    def counts(self) -> Array:
        """Inputs in each group, (G,)."""
        return np.bincount(self.member).astype(float)

    @cached_property
    def gather(self) -> Array:
        """E (P, G) with orthonormal columns: E^T phi sums up groups, E spreads them evenly."""
        return np.asarray(np.eye(self.n_groups)[self.member] / np.sqrt(self.counts))

    def blocks(self) -> Iterator[tuple[slice, Array, Array]]:
        """Some neurons at a time: which, their phi (b, P) and their mean readouts (b, m)."""
        n, width = self.preactivations.shape
        size = max(1, _BLOCK // max(width * self.field.shape[1], _LEAST_ROW))
        for start in range(0, n, size):
            chosen = slice(start, start + size)
            phi = np.asarray(self.nonlinearity(self.preactivations[chosen]))
            yield chosen, phi, self.readout_variance * phi @ self.field

    def reduce(self, phi: Array) -> tuple[Array, Array]:
        """s = E^T phi (b, G), and the sum of squares of what is left in each group, (b, G)."""
        sums = phi @ self.gather
        squares = phi**2 @ (self.gather > 0)
        return sums, np.maximum(squares - sums**2, 0.0)

    def activations_times(self, values: Array) -> Array:
        """<phi v^T> for a v of each neuron, (n, k): (P, k)."""
        total = np.zeros((len(self.member), values.shape[1]))
        for chosen, phi, _ in self.blocks():
            total += phi.T @ (self.weights[chosen, None] * values[chosen])
        return total

    def average_kernel(self, weights: Array) -> Array:
        """sum_i weights_i phi_i phi_i^T, (P, P)."""
        total = np.zeros((len(self.member), len(self.member)))
        for chosen, phi, _ in self.blocks():
            total += phi.T @ (weights[chosen, None] * phi)
        return total


@frozen(eq=False)
class Fluctuations:
    """H = N T + Cov(phi a^T) on weighted neurons, symmetric under permutations inside groups.

    In the symmetric directions of the inputs it is a (G m, G m) matrix, in the others an (m, m)
    block a group.

    Attributes
    ----------
    mean
        <E^T phi a^T>, (G, m).
    inverse
        H^{-1} in the symmetric directions, (G, m, G, m).
    block_inverse
        In the others, (G, m, m); 0 for a group of one.
    log_det
        log det H.
    """

    mean: Array
    inverse: Array
    block_inverse: Array
    log_det: float

    @classmethod
    def of(cls, neurons: WeightedNeurons) -> "Fluctuations":
        """Averages over the neurons, their readouts exactly."""
        n_groups, m = neurons.n_groups, neurons.field.shape[1]
        mean, second = np.zeros((n_groups, m)), np.zeros((n_groups * m, n_groups * m))
        kernel, spread = np.zeros((n_groups, n_groups)), np.zeros((n_groups, m, m))
        for chosen, phi, readouts in neurons.blocks():
            weights = neurons.weights[chosen]
            sums, left = neurons.reduce(phi)
            outputs = (sums[:, :, None] * readouts[:, None, :]).reshape(len(phi), -1)
            mean += sums.T @ (weights[:, None] * readouts)
            second += outputs.T @ (weights[:, None] * outputs)
            kernel += sums.T @ (weights[:, None] * sums)
            spread += np.einsum("ng,ni,nj->gij", weights[:, None] * left, readouts, readouts, optimize=True)
            spread += neurons.readout_variance * (weights @ left)[:, None, None] * np.eye(m)
        second += neurons.readout_variance * np.kron(kernel, np.eye(m)) - np.outer(mean, mean)
        inverse, log_det = _invert(second, neurons.noise)
        many = neurons.counts > 1
        block_inverse = np.zeros_like(spread)
        for group in np.flatnonzero(many):
            within = spread[group] / (neurons.counts[group] - 1)
            block_inverse[group], part = _invert(within, neurons.noise)
            log_det += (neurons.counts[group] - 1) * part
        return cls(mean, inverse.reshape(n_groups, m, n_groups, m), block_inverse, log_det)


def _invert(covariance: Array, noise: float) -> tuple[Array, float]:
    """The inverse of N T + a covariance, and its log det."""
    matrix = covariance.copy()
    matrix[np.diag_indices_from(matrix)] += noise + ROUNDING * np.trace(covariance) / len(covariance)
    factor = linalg.cho_factor(matrix, lower=True)
    inverse = linalg.cho_solve(factor, np.eye(len(matrix)))
    return 0.5 * (inverse + inverse.T), 2.0 * float(np.log(np.diagonal(factor[0])).sum())


@frozen(eq=False)
class WidthCorrection:
    """What fluctuations of t at order 1/N make of each neuron, and of t: (17), (17c).

    A neuron's weight is multiplied by 1 - x with x = (a^T B a - 2 a^T u + const) / 2N, given its z.

    Attributes
    ----------
    field_change, field_error
        t_N - t and the standard error of its estimate from these neurons, (P, m).
    change
        <x> given each neuron's z, (n,).
    readout_change, readout_second_change
        <x a>, (n, m), and <x a a^T>, (n, m, m).
    log_det
        log det H.
    """

    neurons: WeightedNeurons
    field_change: Array
    field_error: Array
    change: Array
    readout_change: Array
    readout_second_change: Array
    log_det: float

    @classmethod
    def of(cls, neurons: WeightedNeurons, width: int) -> "WidthCorrection":
        """The correction at width N."""
        fluctuations = Fluctuations.of(neurons)
        curvature, drift, readouts = _quadratic_form(neurons, fluctuations)
        variance, weights = neurons.readout_variance, neurons.weights
        distance = _averaged(curvature, drift, readouts, variance)  # <q> given z up to a constant
        distance -= weights @ distance
        response = np.einsum("nij,nj->ni", curvature, readouts) - drift
        pulled = readouts * distance[:, None] + 2 * variance * response  # <(q - <q>) a> given z
        change, error = _field_change(neurons, fluctuations.inverse, pulled)
        for chosen, phi, _ in neurons.blocks():
            drift[chosen] += 0.5 * phi @ change  # u
        x = _averaged(curvature, drift, readouts, variance)
        x -= weights @ x
        first, second = _tilted(x, curvature, drift, readouts, variance)
        scale = 0.5 / width
        return cls(
            neurons,
            scale * change,
            scale * error,
            scale * x,
            scale * first,
            scale * second,
            fluctuations.log_det,
        )

    @property
    def size(self) -> float:
        """Root mean square change of a neuron's weight."""
        return math.sqrt(float(self.neurons.weights @ self.change**2))


def _quadratic_form(neurons: WeightedNeurons, fluctuations: Fluctuations) -> tuple[Array, Array, Array]:
    """B (n, m, m) and v (n, m) with q = a^T B a - 2 a^T v + const given z, and <a> given z, (n, m)."""
    n, m = len(neurons.weights), neurons.field.shape[1]
    curvature, drift, readouts = np.empty((n, m, m)), np.empty((n, m)), np.empty((n, m))
    inverse = fluctuations.inverse
    towards = np.tensordot(inverse, fluctuations.mean, 2)  # H^{-1} <g>, (G, m)
    for chosen, phi, means in neurons.blocks():
        sums, left = neurons.reduce(phi)
        block = np.tensordot(left, fluctuations.block_inverse, 1)
        for i in range(m):
            for j in range(i, m):
                block[:, i, j] += ((sums @ inverse[:, i, :, j]) * sums).sum(1)
                block[:, j, i] = block[:, i, j]
        curvature[chosen], drift[chosen], readouts[chosen] = block, sums @ towards, means
    return curvature, drift, readouts


def _averaged(curvature: Array, drift: Array, readouts: Array, variance: float) -> Array:
    """<a^T B a - 2 a^T u> over a of mean ``readouts`` and the given variance, (n,)."""
    trace = np.trace(curvature, axis1=1, axis2=2)
    square = np.einsum("ni,nij,nj->n", readouts, curvature, readouts, optimize=True)
    return np.asarray(square + variance * trace - 2 * (readouts * drift).sum(1))


def _tilted(
    x: Array, curvature: Array, drift: Array, readouts: Array, variance: float
) -> tuple[Array, Array]:
    """<x a> and <x a a^T> for x = a^T B a - 2 a^T u + const of mean ``x``: Wick's theorem."""
    pull = 2 * variance * (np.einsum("nij,nj->ni", curvature, readouts) - drift)
    first = readouts * x[:, None] + pull
    cross = pull[:, :, None] * readouts[:, None, :]
    second = (readouts[:, :, None] * readouts[:, None, :] + variance * np.eye(drift.shape[1])) * x[
        :, None, None
    ]
    return first, second + cross + cross.mT + 2 * variance**2 * curvature


def _field_change(neurons: WeightedNeurons, inverse: Array, pulled: Array) -> tuple[Array, Array]:
    """H^{-1} E[q (g - <g>)] and its standard error over neurons, (P, m) each: (17b) times 2 N."""
    n_groups, m = inverse.shape[:2]
    third, square = np.zeros((n_groups, m)), np.zeros((n_groups, m))
    flat = inverse.reshape(n_groups * m, -1)
    for chosen, phi, _ in neurons.blocks():
        sums, _ = neurons.reduce(phi)
        weights = neurons.weights[chosen]
        terms = (sums[:, :, None] * pulled[chosen][:, None, :]).reshape(len(phi), -1) @ flat
        third += (weights @ terms).reshape(n_groups, m)
        square += (weights**2 @ terms**2).reshape(n_groups, m)
    error = np.sqrt(np.maximum(square - (neurons.weights**2).sum() * third**2, 0.0))
    return neurons.gather @ third, neurons.gather @ error
