"""The mean-field equations of a deep network of ReLU and kin, all layers at once: (R1)-(R7)."""

from functools import cached_property
from typing import Self

import numpy as np
from attrs import evolve, frozen

from fltheory.meanfield.quadrature.groups import GroupedTargets
from fltheory.meanfield.rectified.classes import ClassMatrix
from fltheory.meanfield.rectified.lattice import LayerProblem
from fltheory.meanfield.rectified.layer import ChainLayer
from fltheory.meanfield.rectified.nodes import Lattice
from fltheory.numerics.validation import Array


@frozen(eq=False)
class ChainProblem:
    """What is to be solved.

    Attributes
    ----------
    groups
        The classes of inputs.
    slopes
        s_- and s_+.
    weight_variances
        sigma_1^2 ... sigma_L^2, the first of which is part of ``groups.variances`` already.
    readout_variance, noise
        sigma_a^2 and N T.
    lattice
        The nodes of the integrals.
    """

    groups: GroupedTargets
    slopes: tuple[float, float]
    weight_variances: tuple[float, ...]
    readout_variance: float
    noise: float
    lattice: Lattice

    @property
    def counts(self) -> Array:
        """n_c, (C,)."""
        return self.groups.counts

    @property
    def n_hidden_layers(self) -> int:
        """L."""
        return len(self.weight_variances)


@frozen(eq=False)
class ChainState:
    """Order parameters: t (C, m), Kt_1 ... Kt_{L-1}, and zbar^T K^{-1} zbar of condensed neurons (L, C)."""

    field: Array
    conjugates: tuple[ClassMatrix, ...]
    amplitudes: Array

    def pack(self, counts: Array) -> Array:
        """t and Kt as one vector of numbers of order one."""
        rows, columns = np.triu_indices(len(counts))
        scale = np.sqrt(np.outer(counts, counts))[rows, columns]
        parts = [self.field.ravel()]
        for conjugate in self.conjugates:
            parts += [scale * conjugate.blocks[rows, columns], conjugate.diagonal]
        return np.concatenate(parts)

    def unpack(self, x: Array, counts: Array) -> Self:
        """The state with t and Kt from a vector."""
        rows, columns = np.triu_indices(len(counts))
        scale = np.sqrt(np.outer(counts, counts))[rows, columns]
        field, rest = np.split(x, [self.field.size])
        conjugates = []
        for part in np.split(rest, len(self.conjugates)):
            blocks = np.empty((len(counts),) * 2)
            blocks[rows, columns] = blocks[columns, rows] = part[: len(rows)] / scale
            conjugates.append(ClassMatrix(blocks, part[len(rows) :]))
        return evolve(self, field=field.reshape(self.field.shape), conjugates=tuple(conjugates))


@frozen(eq=False)
class ChainPoint:
    """All layers at one state: forward the kernels (6), backward the messages (7)."""

    problem: ChainProblem
    state: ChainState

    @cached_property
    def conjugates(self) -> tuple[ClassMatrix, ...]:
        """Kt_1 ... Kt_L, the last from t."""
        last = self.problem.readout_variance * self.state.field @ self.state.field.T
        return (*self.state.conjugates, ClassMatrix(last, np.zeros(len(last))))

    @cached_property
    def layers(self) -> tuple[ChainLayer, ...]:
        """One after another, each on the kernel of the one below."""
        problem, found = self.problem, list[ChainLayer]()
        below = ClassMatrix(np.zeros((len(problem.counts),) * 2), problem.groups.variances)
        for number, variance in enumerate((*problem.weight_variances[1:], 1.0), start=1):
            found.append(self.layer_on(number, below))
            if number < problem.n_hidden_layers:
                below = found[-1].kernel * variance
        return tuple(found)

    def layer_on(self, number: int, below: ClassMatrix) -> ChainLayer:
        """A layer (1 to L) on a given kernel from below."""
        problem, conjugate = self.problem, self.conjugates[number - 1]
        bulk = LayerProblem(problem.counts, conjugate, below, problem.slopes, problem.lattice)
        return ChainLayer(bulk, self.state.amplitudes[number - 1])

    def kernel(self, number: int) -> ClassMatrix:
        """<phi phi^T> of a layer (1 to L), condensed neurons included."""
        return self.layers[number - 1].kernel

    @cached_property
    def output_gap(self) -> Array:
        """Y - N T t - <phi a^T>, (C, m)."""
        problem, t = self.problem, self.state.field
        outputs = self.layers[-1].kernel.on_sums(problem.counts) @ t / problem.counts[:, None]
        return np.asarray(problem.groups.targets - problem.noise * t - problem.readout_variance * outputs)

    @cached_property
    def residual(self) -> Array:
        """What the state's vector is off: the gap of (5), and message - Kt for (7)."""
        above = zip(self.layers[1:], self.problem.weight_variances[1:], strict=True)
        gaps = [layer.message * variance for layer, variance in above]
        off = ChainState(
            self.output_gap,
            tuple(gap + kt * -1.0 for gap, kt in zip(gaps, self.state.conjugates, strict=True)),
            self.state.amplitudes,
        )
        return off.pack(self.problem.counts)

    @property
    def excess(self) -> Array:
        """lambda - 1 of each ray, (L, C): zero where neurons have condensed."""
        return np.stack([layer.excess for layer in self.layers])

    @cached_property
    def value(self) -> float:
        """J, (R7)."""
        problem, t = self.problem, self.state.field
        weighted = problem.counts[:, None] * t
        value = float((weighted * (0.5 * problem.noise * t - problem.groups.targets)).sum())
        *hidden, last = self.layers
        value += last.bulk.log_partition + 0.5 * float(last.amplitudes @ last.excess)
        for layer in hidden:
            bulk = layer.bulk
            value -= 0.5 * bulk.conjugate.trace_with(bulk.kernel, problem.counts) - bulk.log_partition
            value -= 0.5 * float(layer.amplitudes.sum())
        return value

    @cached_property
    def gains(self) -> tuple[float, ...]:
        """lambda_1 ... lambda_L: at most 1."""
        return tuple(layer.gain for layer in self.layers)

    @property
    def edge(self) -> float:
        """Largest probability at an end of a lattice."""
        return max(layer.bulk.edge for layer in self.layers)
