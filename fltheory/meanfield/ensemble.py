"""Answers for new inputs from weighted neurons: where the law of a neuron is known by its samples."""

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy import linalg

from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.positive import LowRankPlusBlocks
from fltheory.numerics.validation import Array

_ROUNDING = 1e-10  # added to covariances that may be singular
_LARGEST_DENSE = 1024  # outputs P m up to which their covariance is written out
_N_DIRECTIONS = 192  # of the outputs' fluctuations that are kept apart from inputs' own, beyond
_BLOCK = 1 << 21  # entries of the largest array that is made for some of the neurons
_N_REFINEMENTS = 5  # steps towards the covariance as it is
_TINY = 1e-300
_FLOOR = 1e-8  # relative size of a fluctuation that counts as none


@frozen(eq=False)
class NeuronEnsemble:
    """Neurons with weights, and what is known exactly of their mean output.

    Up to some size the covariance of all outputs is written out. Beyond, it is taken as a few
    directions plus what each input has for itself, found by passes over the neurons.

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

    @property
    def _is_dense(self) -> bool:
        return bool(self.outputs.size <= _LARGEST_DENSE)

    @cached_property
    def _mean(self) -> Array:
        """<phi a^T> of these neurons, (P, m)."""
        return np.asarray(self.activations.T @ (self.weights[:, None] * self.readouts))

    @cached_property
    def _surplus(self) -> Array:
        """By how much the exact mean output exceeds that of these neurons, (P, m)."""
        return np.asarray(self.outputs - self._mean)

    def training_variance(self) -> Array:
        """N times the variance of the outputs on the training inputs, (P, m): (16)."""
        if not self._is_dense:
            return self.noise - self.noise**2 * self._structured.inverse_diagonal()
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
        mean, variance = np.empty((2, len(spread), self.readouts.shape[1]))
        answer = self._answer_dense if self._is_dense else self._answer_structured
        size = max(1, _BLOCK // (len(centres) * mean.shape[1] ** 2))
        for start in range(0, len(spread), size):
            some = slice(start, start + size)
            columns = zip(centres.T[some], spread[some], strict=True)
            pairs = [moments(nonlinearity, centre, float(left)) for centre, left in columns]
            first, second = (np.stack(part, axis=1) for part in zip(*pairs, strict=True))
            mean[some], variance[some] = answer(first, second)
        return mean, np.maximum(variance, 0.0)

    def kernel(
        self, nonlinearity: Nonlinearity, centres: Array, rest: Array, seed: int, known: Array
    ) -> Array:
        """<phi_* phi_*^T>, (n', n'), for z_* of mean ``centres`` (n, n') and covariance ``rest`` (n', n').

        What activations on the training inputs explain of it is corrected by their ``known`` kernel (P, P).
        """
        values, vectors = np.linalg.eigh(rest)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        noise = np.random.default_rng(seed).standard_normal(centres.shape)
        activations = nonlinearity(centres + noise @ root.T)
        weighted = self.weights[:, None] * activations
        trained = self._kernel
        explained = linalg.cho_solve(linalg.cho_factor(trained), self.activations.T @ weighted)
        return np.asarray(activations.T @ weighted + explained.T @ (known - trained) @ explained)

    @cached_property
    def _kernel(self) -> Array:
        """<phi phi^T> of these neurons on the training inputs, kept from being singular, (P, P)."""
        kernel = self.activations.T @ (self.weights[:, None] * self.activations)
        kernel[np.diag_indices_from(kernel)] += _ROUNDING
        return np.asarray(kernel)

    def respond(self, right: Array) -> Array:
        """(N T + Cov(phi a^T))^{-1} b for b (P, m, k)."""
        if not self._is_dense:
            return self._regression(right)
        flat = right.reshape(self.outputs.size, -1)
        return np.asarray(linalg.cho_solve(self._factors[1], flat).reshape(right.shape))

    def cross(self, first: Array, regression: Array) -> Array:
        """Cov(phi_* a^T, phi a^T) b for b (P, m, k), with <phi_*> (n, n') given each neuron: (n', m, k)."""
        fitted = self.weights[:, None] * self._fitted(regression)
        products = self.readouts[:, :, None] * fitted[:, None, :]
        cross = first.T @ products.reshape(len(fitted), -1)
        return np.asarray(cross.reshape(first.shape[1], *regression.shape[1:]))

    # The covariance written out ------------------------------------------------------------------

    @cached_property
    def _trained(self) -> Array:
        """phi a^T of each neuron, centred, (n, P m)."""
        products = (self.activations[:, :, None] * self.readouts[:, None, :]).reshape(len(self.weights), -1)
        return np.asarray(products - self.weights @ products)

    @cached_property
    def _covariance(self) -> Array:
        return np.asarray(self._trained.T @ (self.weights[:, None] * self._trained))

    def _factor(self, ridge: float) -> tuple[Array, bool]:
        return linalg.cho_factor(self._covariance + (ridge + _ROUNDING) * np.eye(len(self._covariance)))

    @cached_property
    def _factors(self) -> tuple[tuple[Array, bool], tuple[Array, bool]]:
        return self._factor(0.0), self._factor(self.noise)

    def _answer_dense(self, first: Array, second: Array) -> tuple[Array, Array]:
        """Means and variances, (n', m) each, of inputs with <phi_*>, <phi_*^2> given each neuron, (n, n')."""
        bare, noisy = self._factors
        average, centred = self._centred(first)
        cross = self._trained.T @ (self.weights[:, None] * centred.reshape(len(first), -1))  # (P m, n' m)
        mean = average.ravel() + self._surplus.ravel() @ linalg.cho_solve(bare, cross)
        explained = (cross * linalg.cho_solve(noisy, cross)).sum(0).reshape(average.shape)
        total = (second * self.weights[:, None]).T @ self.readouts**2 - average**2
        return mean.reshape(average.shape), total - explained

    def _centred(self, first: Array) -> tuple[Array, Array]:
        """The average (n', m) of <phi_*> a^T, and each neuron's distance from it, (n, n', m)."""
        average = first.T @ (self.weights[:, None] * self.readouts)
        return average, first[:, :, None] * self.readouts[:, None, :] - average

    # The covariance as directions and blocks -----------------------------------------------------

    def _blocks(self) -> Iterator[tuple[Array, Array]]:
        """Weights (b,) and centred outputs (b, P m) of some neurons at a time."""
        size = max(1, _BLOCK // self.outputs.size)
        for start in range(0, len(self.weights), size):
            chosen = slice(start, start + size)
            products = self.activations[chosen, :, None] * self.readouts[chosen, None, :] - self._mean
            yield self.weights[chosen], products.reshape(len(products), -1)

    @cached_property
    def _directions(self) -> Array:
        """Q (P m, k), orthonormal, nearly the leading directions of the covariance: a random range finder."""
        probes = np.random.default_rng(0).standard_normal((self.outputs.size, _N_DIRECTIONS))
        images = np.zeros_like(probes)
        for weights, outputs in self._blocks():
            images += outputs.T @ (weights[:, None] * (outputs @ probes))
        return np.asarray(np.linalg.qr(images)[0])

    @cached_property
    def _structured(self) -> LowRankPlusBlocks:
        """N T + Cov(phi a^T), inputs being independent but for a few common directions."""
        n, m = self.outputs.shape
        directions = self._directions
        inside, own = np.zeros((directions.shape[1],) * 2), np.zeros((n, m, m))
        for weights, outputs in self._blocks():
            along = outputs @ directions
            inside += along.T @ (weights[:, None] * along)
            left = (outputs - along @ directions.T).reshape(-1, n, m)
            own += np.einsum("b,bpi,bpj->pij", weights, left, left, optimize=True)
        values, vectors = np.linalg.eigh(inside)
        factor = directions @ (vectors * np.sqrt(np.maximum(values, 0.0)))
        floor = self.noise + _ROUNDING + _FLOOR * np.trace(own, axis1=1, axis2=2).max()
        return LowRankPlusBlocks(factor, own + floor * np.eye(m))

    @cached_property
    def _correction(self) -> Array:
        """What to add to readouts so that the mean outputs are exact, over the activations: (P, m)."""
        return np.asarray(linalg.cho_solve(linalg.cho_factor(self._kernel), self._surplus))

    def _fitted(self, regression: Array) -> Array:
        """Centred sums over the outputs of each neuron, (P, m, k) -> (n, k)."""
        along = self.activations @ regression.reshape(len(regression), -1)
        fitted = np.einsum("bi,bik->bk", self.readouts, along.reshape(len(along), *regression.shape[1:]))
        return np.asarray(fitted - self.weights @ fitted)

    def _covariances(self, values: Array) -> Array:
        """Of the outputs with centred values of each neuron, (n, k) -> (P, m, k)."""
        weighted = self.weights[:, None] * self.readouts
        products = weighted[:, :, None] * values[:, None, :]
        cross = self.activations.T @ products.reshape(len(values), -1)
        return np.asarray(cross.reshape(*self.outputs.shape, -1))

    def _regression(self, cross: Array) -> Array:
        """(N T + Cov(phi a^T))^{-1} b, (P, m, k): conjugate gradients from what the few directions say."""
        solution = self._structured.solve(cross)
        left = cross - self.noise * solution - self._covariances(self._fitted(solution))
        direction = near = self._structured.solve(left)
        power = (left * near).sum((0, 1))
        for _ in range(_N_REFINEMENTS):
            image = self.noise * direction + self._covariances(self._fitted(direction))
            length = power / np.maximum((direction * image).sum((0, 1)), _TINY)
            solution, left = solution + length * direction, left - length * image
            near = self._structured.solve(left)
            power, previous = (left * near).sum((0, 1)), power
            direction = near + power / np.maximum(previous, _TINY) * direction
        return solution

    def _answer_structured(self, first: Array, second: Array) -> tuple[Array, Array]:
        """Like ``_answer_dense``: what a regression on the outputs leaves, and the noise it brings in."""
        average, centred = self._centred(first)
        mean = average + (first.T * self.weights) @ self.activations @ self._correction
        centred = centred.reshape(len(first), -1)
        regression = self._regression(self._covariances(centred))  # (P, m, n' m)
        left = self.weights @ (centred - self._fitted(regression)) ** 2
        variance = (left + self.noise * (regression**2).sum((0, 1))).reshape(average.shape)
        return mean, variance + ((second - first**2) * self.weights[:, None]).T @ self.readouts**2


def moments(nonlinearity: Nonlinearity, mean: Array, variance: float) -> tuple[Array, Array]:
    """<phi> and <phi^2> for z ~ N(mean, variance), of the shape of ``mean``."""
    if variance < _ROUNDING:
        values = nonlinearity(mean)
        return values, values**2
    sd = np.full_like(mean, math.sqrt(variance))
    x, log_weights = nonlinearity.gaussian_rule(mean, sd, half_width=7.0, spacing=0.35)
    values = nonlinearity(mean[..., None] + sd[..., None] * x)
    weights = np.exp(log_weights)
    return (values * weights).sum(-1), (values**2 * weights).sum(-1)
