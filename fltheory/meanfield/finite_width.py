"""One hidden layer at finite width: the corrections of order 1/N, docs/theory.md section 11.

Any engine's answers, plus what a sum over drawn neurons says that the change of their weights does.
"""

import math
from functools import cached_property

import numpy as np
from attrs import evolve, frozen
from scipy import linalg
from scipy.special import softmax

from fltheory.meanfield.ensemble import moments
from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior, NewInputs
from fltheory.meanfield.quadrature.groups import GroupedTargets
from fltheory.meanfield.reweighting import ROUNDING, WeightedNeurons, WidthCorrection
from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.model import Model
from fltheory.numerics.validation import Array, Integers

_N_NEURONS = 16384
_PER_ENTRY = 12  # neurons for each entry of the covariance's diagonal: its inverse is biased by 1/12
_LARGEST = 3000  # entries of t, equivalent inputs counted once: the covariance is written out
_MOST_STORED = 60_000_000  # preactivations
_LARGEST_CHANGE = 0.5  # root mean square change of a neuron's weight beyond which 1/N is not small
_LEAST_SHARE = 1e-3  # of a branch, relative to infinite width


@frozen(eq=False)
class FiniteWidthPosterior(NeuronPosterior):
    """One hidden layer at order 1/N: another engine's answers, and what reweighted neurons change.

    Attributes
    ----------
    base
        The law at infinite width.
    model
        The network and the task.
    correction
        On neurons drawn from ``base``.
    seed
        Of the noise of new preactivations.
    """

    base: NeuronPosterior
    model: Model
    correction: WidthCorrection
    seed: int

    @cached_property
    def _weight_changes(self) -> Array:
        return np.asarray(-self._neurons.weights * self.correction.change)

    @property
    def _neurons(self) -> WeightedNeurons:
        return self.correction.neurons

    @cached_property
    def field(self) -> Array:
        return np.asarray(self.base.field + self.correction.field_change)

    @cached_property
    def _kernel(self) -> Array:
        change = self._neurons.average_kernel(self._weight_changes)
        return self.base.kernel_parts(1).total + _symmetrise(change, self._neurons.member)

    def kernel_parts(self, layer: int) -> KernelParts:
        patterns = self.branches.patterns
        return KernelParts(self._kernel - patterns.T @ patterns, patterns)

    def conjugate_kernel(self, layer: int) -> Array:
        return np.asarray(self.model.readout_variance * self.field @ self.field.T)

    @cached_property
    def _shares(self) -> Array:
        """The probability that each neuron belongs to each branch of ``base``, by its readout, (n, B)."""
        table, neurons = self.base.branches, self._neurons
        readouts = np.concatenate([means for _, _, means in neurons.blocks()])
        log_shares = np.empty((len(readouts), len(table.probabilities)))
        for b, (mean, covariance) in enumerate(zip(table.readout, table.readout_covariance, strict=True)):
            root = np.linalg.cholesky(covariance)
            white = linalg.solve_triangular(root, (readouts - mean).T, lower=True)
            log_shares[:, b] = np.log(table.probabilities[b]) - 0.5 * (white**2).sum(0)
            log_shares[:, b] -= np.log(np.diagonal(root)).sum()
        return np.asarray(softmax(log_shares, axis=1))

    @cached_property
    def branches(self) -> BranchTable:
        table, neurons, correction = self.base.branches, self._neurons, self.correction
        weights = neurons.weights[:, None]
        old = table.probabilities[:, None]
        probabilities = table.probabilities + self._weight_changes @ self._shares
        probabilities = np.maximum(probabilities, _LEAST_SHARE * table.probabilities)
        new = probabilities[:, None]
        activations = old * table.activations
        for chosen, phi, _ in neurons.blocks():
            change = (self._weight_changes[chosen, None] * self._shares[chosen]).T @ phi
            activations += change @ neurons.gather @ neurons.gather.T
        shares = weights * self._shares
        readout = (old * table.readout - shares.T @ correction.readout_change) / new
        outer = table.readout[:, :, None] * table.readout[:, None, :]
        second = old[:, :, None] * (table.readout_covariance + outer)
        second -= np.tensordot(shares, correction.readout_second_change, (0, 0))
        covariance = second / new[:, :, None] - readout[:, :, None] * readout[:, None, :]
        order = np.argsort(-probabilities)
        return BranchTable(
            probabilities[order] / probabilities.sum(),
            readout[order],
            covariance[order],
            (activations / new)[order],
        )

    def draw(self, n: int, layer: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
        """Reweighted neurons; readouts have the mean and the covariance of the law at order 1/N."""
        correction, neurons = self.correction, self._neurons
        weights = np.maximum(neurons.weights + self._weight_changes, 0.0)
        chosen = rng.choice(len(weights), size=n, p=weights / weights.sum())
        z = neurons.preactivations[chosen]
        variance, m = neurons.readout_variance, neurons.field.shape[1]
        before = variance * np.asarray(neurons.nonlinearity(z)) @ neurons.field
        share = np.maximum(1.0 - correction.change[chosen], ROUNDING)[:, None]
        mean = (before - correction.readout_change[chosen]) / share
        second = before[:, :, None] * before[:, None, :] + variance * np.eye(m)
        second = (second - correction.readout_second_change[chosen]) / share[:, :, None]
        values, vectors = np.linalg.eigh(second - mean[:, :, None] * mean[:, None, :])
        noise = np.sqrt(np.maximum(values, 0.0)) * rng.standard_normal((n, m))
        return z, mean + np.einsum("nij,nj->ni", vectors, noise)

    def training_variance(self) -> Array:
        return self.base.training_variance()

    def _given_neurons(self, inputs: NewInputs) -> tuple[Array, Array]:
        """The regression of z_* on z (n', P), and what it leaves, (n', n')."""
        weights = inputs.cross @ np.linalg.pinv(self.model.input_kernel, hermitian=True)
        return weights, inputs.own - weights @ inputs.cross.T

    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        """The mean changes by a sum over neurons; what it should be on the training inputs is known."""
        mean, variance = self.base.predict(inputs)
        neurons, correction = self._neurons, self.correction
        regression, rest = self._given_neurons(inputs)
        spread = np.maximum(np.diagonal(rest), 0.0)
        change = np.zeros_like(mean)
        cross = np.zeros((len(mean), len(neurons.member)))
        trained = np.zeros_like(neurons.field)
        for chosen, phi, _ in neurons.blocks():
            centres = regression @ neurons.preactivations[chosen].T
            columns = zip(centres, spread, strict=True)
            new = np.stack([moments(neurons.nonlinearity, c, float(v))[0] for c, v in columns], axis=1)
            pull = neurons.weights[chosen, None] * correction.readout_change[chosen]
            change -= new.T @ pull
            trained -= phi.T @ pull
            cross += new.T @ (neurons.weights[chosen, None] * phi)
        missing = -neurons.noise * correction.field_change - trained
        return mean + change + cross @ np.linalg.solve(self._sample_kernel, missing), variance

    @cached_property
    def _sample_kernel(self) -> Array:
        kernel = self._neurons.average_kernel(self._neurons.weights)
        kernel[np.diag_indices_from(kernel)] += ROUNDING * np.trace(kernel) / len(kernel)
        return kernel

    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        regression, rest = self._given_neurons(inputs)
        values, vectors = np.linalg.eigh(rest)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        rng = np.random.default_rng(self.seed)
        total = np.asarray(self.base.kernel(layer, inputs)).copy()
        for chosen, _, _ in self._neurons.blocks():
            centres = self._neurons.preactivations[chosen] @ regression.T
            new = self._neurons.nonlinearity(centres + rng.standard_normal(centres.shape) @ root.T)
            total += new.T @ (self._weight_changes[chosen, None] * new)
        return total


def _symmetrise(kernel: Array, member: Integers) -> Array:
    """The average over permutations of inputs inside groups, (P, P)."""
    if len(np.unique(member)) == len(member):
        return kernel
    counts = np.bincount(member).astype(float)
    indicator = np.eye(len(counts))[member]
    diagonal = np.diagonal(kernel) @ indicator
    total = indicator.T @ kernel @ indicator
    pairs = np.outer(counts, counts) - np.diag(counts)
    between = (total - np.diag(diagonal)) / np.maximum(pairs, 1.0)
    result = between[np.ix_(member, member)]
    result[np.diag_indices_from(result)] = (diagonal / counts)[member]
    return np.asarray(result)


def corrected(solution: MeanFieldSolution, seed: int) -> MeanFieldSolution:
    """The solution for one hidden layer with its corrections of order 1/N, at the model's width.

    Raises
    ------
    ValueError
        If neurons condense or the network is deeper or lazy, if the covariance of a neuron's outputs is too
        large to write out, or the width so small that the correction is not small.
    """
    model = solution.model
    _check_case(solution)
    if math.isinf(model.scaled_temperature):
        return solution  # the prior of each neuron, at any width
    neurons = _draw(solution, seed)
    correction = WidthCorrection.of(neurons, model.width)
    if not correction.size < _LARGEST_CHANGE:
        raise ValueError(
            f"width: expected one at which corrections of order 1/N are small; at {model.width} they change "
            f"the weights of neurons by {correction.size:.0%} (root mean square)"
        )
    return evolve(
        solution,
        neuron=FiniteWidthPosterior(solution.neuron, model, correction, seed),
        free_energy=solution.free_energy + 0.5 * correction.log_det / model.width,
    )


def uncorrected(solution: MeanFieldSolution) -> MeanFieldSolution:
    """The solution at infinite width that a corrected one rests on, for another search to start from."""
    neuron = solution.neuron
    return evolve(solution, neuron=neuron.base) if isinstance(neuron, FiniteWidthPosterior) else solution


def _check_case(solution: MeanFieldSolution) -> None:
    if solution.model.n_hidden_layers > 1:
        raise ValueError(
            "finite_width: expected False for nonlinear networks with more than one hidden layer, whose "
            f"corrections are not known; got {solution.model.n_hidden_layers} layers"
        )
    if solution.model.is_lazy:
        raise ValueError("finite_width: expected False for lazy networks, whose corrections are not known")
    if solution.outliers:
        raise ValueError(
            "finite_width: expected False where neurons condense, since their corrections are not known; "
            f"got a solution with {len(solution.outliers)} outliers"
        )


def _draw(solution: MeanFieldSolution, seed: int) -> WeightedNeurons:
    """Independent neurons of a solution, as many as the size of H asks for."""
    model, field = solution.model, solution.neuron.field
    member = _equivalent_inputs(model)
    size = (int(member.max()) + 1) * field.shape[1]
    n = max(_N_NEURONS, _PER_ENTRY * size)
    if size > _LARGEST or n * len(member) > _MOST_STORED:
        raise ValueError(
            f"finite_width: expected False for so many inputs, since the covariance of the outputs is "
            f"written out, with at most {_LARGEST} rows and {_MOST_STORED // len(member)} neurons to "
            f"estimate it; got {size} rows and {n} neurons"
        )
    z, _ = solution.neuron.draw(n, 1, np.random.default_rng(seed))
    return WeightedNeurons(
        z,
        np.full(n, 1.0 / n),
        model.nonlinearity,
        field,
        model.scaled_temperature,
        model.readout_variance,
        member,
    )


def _equivalent_inputs(model: Model) -> Integers:
    """The group of each input, (P,): of the same norm and target where K_0 is diagonal, else its own."""
    kernel = model.input_kernel
    if np.count_nonzero(kernel - np.diag(np.diagonal(kernel))):
        return np.arange(len(kernel))
    return GroupedTargets.of(model.task.targets, np.diagonal(kernel)).member.astype(np.int64)
