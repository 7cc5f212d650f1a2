"""A solution of the theory as the laws look at it: letters of the paper for what it reports."""

import math
from functools import cached_property

import numpy as np
from attrs import frozen

from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.model import Model
from fltheory.numerics.validation import Array, Integers
from fltheory.representation import Neurons

_MOST_INPUTS = 30  # of which all pairs are looked at by laws on drawn neurons
_N_BATCHES, _BATCH = 25, 1000  # of drawn neurons

# What an engine's averages may be off, relative: rounding, quasi-random points, EP's own error
# (it treats a readout as Gaussian inside a branch), and the number of particles.
_ACCURACY = {"closed form": 1e-6, "quadrature": 2e-3, "ep": 5e-3, "lattice": 5e-3, "particles": 5e-3}
_ACCURACY_OF_OTHERS = 1e-3


@frozen(eq=False)
class SolutionCase:
    """A solution and the accuracy that is asked of it.

    Attributes
    ----------
    theory
        The solution.
    tolerance
        Relative, of averages that it reports.
    seed
        Of drawn neurons.
    """

    theory: MeanFieldSolution
    tolerance: float
    seed: int

    @property
    def model(self) -> Model:
        return self.theory.model

    @property
    def is_closed_form(self) -> bool:
        """Whether the solution rests on formulas alone."""
        return self.theory.method == "closed form"

    @property
    def t(self) -> Array:
        """The dual field, (P, m)."""
        return self.theory.dual_field

    @cached_property
    def f(self) -> Array:
        """The mean output on the training inputs, Y - N T t, (P, m); zero at the prior."""
        noise = self.model.scaled_temperature
        return np.zeros_like(self.t) if np.isinf(noise) else self.model.task.targets - noise * self.t

    @cached_property
    def size(self) -> float:
        """The largest target: errors of outputs are relative to it."""
        return float(np.abs(self.model.task.targets).max()) or 1.0

    @cached_property
    def kernels(self) -> list[Array]:
        """<phi phi^T> of layers 0 (K_0 itself) to L."""
        return [self.theory.kernel(layer) for layer in range(self.model.n_hidden_layers + 1)]

    def covariance_below(self, layer: int) -> Array:
        """K_{l-1}, which includes sigma_l^2, (P, P)."""
        variance = self.model.weight_variances[layer - 1] if layer > 1 else 1.0
        return np.asarray(variance * self.kernels[layer - 1])

    @cached_property
    def second_moment(self) -> Array:
        """<a a^T> of all neurons, the condensed included, (m, m)."""
        total = np.zeros((self.t.shape[1],) * 2)
        for branch in self.theory.branches:
            spread = branch.readout_covariance + np.outer(branch.readout, branch.readout)
            total = total + branch.probability * spread
        for outlier in self.theory.outliers:
            total = total + np.outer(outlier.readout, outlier.readout)
        return np.asarray(total)

    @cached_property
    def prior_kernel(self) -> Array:
        """<phi phi^T> of layer L in a network that learns nothing, (P, P)."""
        kernel = self.model.input_kernel
        for variance in (*self.model.weight_variances[1:], 1.0):
            kernel = variance * self.model.nonlinearity.gaussian_kernel(kernel)
        return kernel

    @cached_property
    def chosen(self) -> Integers:
        """A few of the training inputs, evenly spread."""
        n = len(self.t)
        return np.unique(np.linspace(0, n - 1, min(n, _MOST_INPUTS)).astype(int))

    @cached_property
    def condensed(self) -> Neurons:
        """The condensed neurons as a batch of drawn ones has them: a = sqrt(n) a', z = sqrt(n) z'."""
        readouts, z = (
            math.sqrt(_BATCH) * np.array(rows).reshape(len(rows), width)
            for rows, width in (
                ([o.readout for o in self.theory.outliers], self.t.shape[1]),
                ([o.preactivations for o in self.theory.outliers], len(self.t)),
            )
        )
        return Neurons(np.asarray(self.model.nonlinearity(z)), z, readouts)

    def drawn(self, layer: int) -> list[Neurons]:
        """Independent batches of neurons of a layer."""
        first = _N_BATCHES * self.seed
        return [self.theory.neurons(_BATCH, layer, first + i) for i in range(_N_BATCHES)]

    @cached_property
    def readout_layer(self) -> list[Neurons]:
        """Those of the last layer."""
        return self.drawn(self.model.n_hidden_layers)


def default_tolerance(theory: MeanFieldSolution) -> float:
    """What the engine of a solution is held to."""
    return _ACCURACY.get(theory.method, _ACCURACY_OF_OTHERS)
