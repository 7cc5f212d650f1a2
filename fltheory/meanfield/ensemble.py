"""Answers for new inputs from weighted neurons: where the law of a neuron is known by its samples."""

import math
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy import linalg

from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.gaussian import grid_for
from fltheory.numerics.validation import Array

_ROUNDING = 1e-10  # added to covariances that may be singular


@frozen(eq=False)
class NeuronEnsemble:
    """Neurons with weights, and what is known exactly of their mean output.

    Attributes
    ----------
    activations, readouts
        phi on the training inputs (n, P), and a (n, m).
    weights
        Of the neurons, (n,), summing to 1.
    outputs
        <phi a^T> of the law that they are drawn from, (P, m).
    noise
        N T.
    """

    activations: Array
    readouts: Array
    weights: Array
    outputs: Array
    noise: float

    @cached_property
    def _trained(self) -> Array:
        """phi a^T of each neuron, centred, (n, P m)."""
        products = (self.activations[:, :, None] * self.readouts[:, None, :]).reshape(len(self.weights), -1)
        return np.asarray(products - self.weights @ products)

    @cached_property
    def _surplus(self) -> Array:
        """By how much the exact mean output exceeds that of these neurons, (P m,)."""
        mean = self.activations.T @ (self.weights[:, None] * self.readouts)
        return np.asarray((self.outputs - mean).ravel())

    @cached_property
    def _covariance(self) -> Array:
        return np.asarray(self._trained.T @ (self.weights[:, None] * self._trained))

    def _factor(self, ridge: float) -> tuple[Array, bool]:
        return linalg.cho_factor(self._covariance + (ridge + _ROUNDING) * np.eye(len(self._covariance)))

    @cached_property
    def _factors(self) -> tuple[tuple[Array, bool], tuple[Array, bool]]:
        return self._factor(0.0), self._factor(self.noise)

    def training_variance(self) -> Array:
        """N times the variance of the outputs on the training inputs, (P, m): (16)."""
        explained = linalg.cho_solve(self._factors[1], self._covariance)
        variance = np.diagonal(self._covariance) - (self._covariance * explained).sum(0)
        return np.asarray(np.maximum(variance, 0.0).reshape(self.outputs.shape))

    def predict(self, nonlinearity: Nonlinearity, centres: Array, spread: Array) -> tuple[Array, Array]:
        """Mean outputs (15) and N times their variance (16) on new inputs, (n', m) each.

        The outputs on the training inputs, whose mean is known, are control variates: a new input
        that is a training input is predicted exactly.

        Parameters
        ----------
        centres, spread
            Mean of z_* given each neuron, (n, n'), and its variance, (n',).
        """
        bare, noisy = self._factors
        mean, variance = np.empty((2, len(spread), self.readouts.shape[1]))
        for index, (centre, left) in enumerate(zip(centres.T, spread, strict=True)):
            first, second = _moments(nonlinearity, centre, float(left))
            products = first[:, None] * self.readouts
            average = self.weights @ products
            cross = self._trained.T @ (self.weights[:, None] * (products - average))  # (P m, m)
            mean[index] = average + self._surplus @ linalg.cho_solve(bare, cross)
            total = self.weights @ (second[:, None] * self.readouts**2) - average**2
            variance[index] = total - (cross * linalg.cho_solve(noisy, cross)).sum(0)
        return mean, np.maximum(variance, 0.0)

    def kernel(self, nonlinearity: Nonlinearity, centres: Array, rest: Array, seed: int) -> Array:
        """<phi_* phi_*^T>, (n', n'), for z_* of mean ``centres`` (n, n') and covariance ``rest`` (n', n')."""
        values, vectors = np.linalg.eigh(rest)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        noise = np.random.default_rng(seed).standard_normal(centres.shape)
        activations = nonlinearity(centres + noise @ root.T)
        return np.asarray(activations.T @ (self.weights[:, None] * activations))


def _moments(nonlinearity: Nonlinearity, mean: Array, variance: float) -> tuple[Array, Array]:
    """<phi> and <phi^2> for z ~ N(mean, variance), of the shape of ``mean``."""
    if variance < _ROUNDING:
        values = nonlinearity(mean)
        return values, values**2
    nodes, log_weights = grid_for(math.sqrt(variance))
    values = nonlinearity(mean[:, None] + math.sqrt(variance) * nodes)
    return values @ np.exp(log_weights), values**2 @ np.exp(log_weights)
