"""Lazy networks at infinite width: Gaussian processes of the prior's kernels, docs/theory.md section 7.

Divided by sqrt(N), the sum over neurons reaches any targets by changes of order N^(-1/2) of each
neuron. So single neurons keep the law of the prior, at any temperature, and only outputs learn.
"""

import math
from functools import cached_property

import numpy as np
from attrs import frozen

from fltheory.meanfield.feasible import check_range
from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior, NewInputs
from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.model import Model
from fltheory.numerics.gaussian import gaussian_mean
from fltheory.numerics.validation import Array

_RANK_CUT = 1e-10  # relative eigenvalue of the kernel that counts as zero at T = 0
_CHUNK = 512  # new inputs that are predicted at once


def prior_kernels(model: Model, input_kernel: Array) -> list[Array]:
    """<phi phi^T>_l of the prior for l = 1 ... L, on inputs whose K_0 is given, (n, n) each."""
    kernels, covariance = [], input_kernel
    for variance in (*model.weight_variances[1:], 1.0):
        kernels.append(model.nonlinearity.gaussian_kernel(covariance))
        covariance = variance * kernels[-1]
    return kernels


def solve_lazy(model: Model) -> MeanFieldSolution:
    """The posterior of a lazy network.

    Its ``free_energy`` is -S for S = -tr Y^T t / 2, of the whole network and not per neuron: the
    evidence of a lazy network is of order one. S obeys dS/dY = -t and dS/dT = |t|^2 / 2 as S of
    (8) does with N T for T.

    Raises
    ------
    ValueError
        If T = 0 and the targets are outside the range of the kernel.
    """
    neuron = LazyPosterior(model)
    targets = model.task.targets
    if model.temperature == 0.0:
        check_range(neuron.kernels[-1], targets, model.input_kernel)
    free_energy = 0.5 * float((targets * neuron.field).sum())
    certificate = None if model.nonlinearity.is_bounded else 0.0
    return MeanFieldSolution(model, neuron, free_energy, neuron.residual, certificate, 0, "closed form")


@frozen(eq=False)
class LazyPosterior(NeuronPosterior):
    """Neurons of the prior and a Gaussian process of outputs, of any depth."""

    model: Model

    @cached_property
    def kernels(self) -> list[Array]:
        """<phi phi^T>_l for l = 1 ... L on the training inputs, (P, P) each."""
        return prior_kernels(self.model, self.model.input_kernel)

    def _covariance(self, layer: int) -> Array:
        """Of z^l, (P, P): K_{l-1}."""
        if layer == 1:
            return self.model.input_kernel
        return np.asarray(self.model.weight_variances[layer - 1] * self.kernels[layer - 2])

    @cached_property
    def _modes(self) -> tuple[Array, Array, Array]:
        """Eigenvalues of sigma_a^2 K_L, eigenvectors, and 1 / (T + eigenvalue): (P,), (P, P), (P,).

        At T = 0 the last is 0 in the null space.
        """
        values, vectors = np.linalg.eigh(self.model.readout_variance * self.kernels[-1])
        values = np.maximum(values, 0.0)
        total = self.model.temperature + values
        fitted = (values > _RANK_CUT * values[-1]) | (self.model.temperature > 0)
        return values, vectors, np.divide(1.0, total, out=np.zeros_like(total), where=fitted)

    @cached_property
    def field(self) -> Array:
        """t = (T + sigma_a^2 K)^{-1} Y, (P, m)."""
        _, vectors, inverse = self._modes
        return np.asarray(vectors @ (inverse[:, None] * (vectors.T @ self.model.task.targets)))

    @property
    def residual(self) -> float:
        """The largest absolute entry of Y - T t - sigma_a^2 K t."""
        if math.isinf(self.model.temperature):
            return 0.0
        output = self.model.readout_variance * self.kernels[-1] @ self.field
        gap = self.model.task.targets - self.model.temperature * self.field - output
        return float(np.abs(gap).max())

    @property
    def log_evidence(self) -> float:
        """The log density of the targets, of the whole network; at T = 0 that within the kernel's range."""
        inverse = self._modes[2]
        if math.isinf(self.model.temperature):
            return -math.inf
        log_det = -float(np.log(inverse[inverse > 0]).sum())
        n, m = int((inverse > 0).sum()), self.model.task.n_outputs
        fit = float((self.model.task.targets * self.field).sum())
        return -0.5 * (fit + m * (log_det + n * math.log(2 * math.pi)))

    def _mean_activation(self, layer: int) -> Array:
        phi, variance = self.model.nonlinearity, np.diagonal(self._covariance(layer))
        return gaussian_mean(phi, np.zeros(len(variance)), variance, phi.gaussian_rule)

    @property
    def branches(self) -> BranchTable:
        m = self.model.task.n_outputs
        covariance = self.model.readout_variance * np.eye(m)
        activation = self._mean_activation(self.model.n_hidden_layers)
        return BranchTable(np.ones(1), np.zeros((1, m)), covariance[None], activation[None])

    def kernel_parts(self, layer: int) -> KernelParts:
        pattern = self._mean_activation(layer)[None]
        return KernelParts(self.kernels[layer - 1] - pattern.T @ pattern, pattern)

    def conjugate_kernel(self, layer: int) -> Array:
        """sigma_a^2 t t^T in the last layer, whose effect on a neuron is of order 1 / N; 0 below."""
        if layer < self.model.n_hidden_layers:
            return np.zeros_like(self.model.input_kernel)
        return np.asarray(self.model.readout_variance * self.field @ self.field.T)

    def draw(self, n: int, layer: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
        values, vectors = np.linalg.eigh(self._covariance(layer))
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        z = rng.standard_normal((n, len(root))) @ root.T
        if layer < self.model.n_hidden_layers:
            return z, None
        scale = math.sqrt(self.model.readout_variance)
        return z, scale * rng.standard_normal((n, self.model.task.n_outputs))

    def training_variance(self) -> Array:
        values, vectors, inverse = self._modes
        return self._times_width(vectors**2 @ (values - values**2 * inverse))

    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        """Mean outputs and, for the interface's sake, N times their variance, which is of order one."""
        _, vectors, inverse = self._modes
        n, variance = len(inputs.own), self.model.readout_variance
        means, variances = [], []
        for start in range(0, n, _CHUNK):
            part = slice(start, start + _CHUNK)
            cross, own = self._new_kernel(NewInputs(inputs.cross[part], inputs.own[part, part]))
            means.append(variance * cross @ self.field)
            explained = (variance * cross @ vectors) ** 2 @ inverse
            variances.append(variance * np.diagonal(own) - explained)
        return np.concatenate(means), self._times_width(np.concatenate(variances))

    def _times_width(self, variance: Array) -> Array:
        return np.outer(self.model.width * np.maximum(variance, 0.0), np.ones(self.model.task.n_outputs))

    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        return prior_kernels(self.model, inputs.own)[layer - 1]

    def _new_kernel(self, inputs: NewInputs) -> tuple[Array, Array]:
        """<phi_* phi^T> (n, P) and <phi_* phi_*^T> (n, n) of the last layer."""
        n = len(inputs.own)
        both = np.block([[inputs.own, inputs.cross], [inputs.cross.T, self.model.input_kernel]])
        kernel = prior_kernels(self.model, both)[-1]
        return kernel[:n, n:], kernel[:n, :n]
