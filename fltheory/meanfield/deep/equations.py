"""The mean-field equations of a deep network in a few numbers a layer: docs/theory.md (6), (7a) and (8).

Unknowns are the conjugate kernels of the hidden layers. A pass forward gives the kernels, t is the
minimum of S at the last of them, and the messages back, less the unknowns, are what should vanish.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from attrs import evolve, frozen

from fltheory.meanfield.deep.blocks import ClassBlocks, ClassSymmetry
from fltheory.meanfield.deep.layer import Layer, LayerPoints, LayerState
from fltheory.meanfield.deep.readout import Readout, ReadoutSolution
from fltheory.meanfield.quadrature.groups import GroupedTargets
from fltheory.numerics.validation import Array

_LEAST_ESS = 0.02  # below which points say nothing


@frozen(eq=False)
class DeepEquations:
    """The equations on frozen points, one set a layer.

    Attributes
    ----------
    weight_variances
        sigma_1^2 ... sigma_L^2.
    field_tolerance
        On the residual of (5) in the problem of the readout.
    """

    readout: Readout
    weight_variances: tuple[float, ...]
    points: tuple[LayerPoints, ...]
    field_tolerance: float

    @property
    def groups(self) -> GroupedTargets:
        return self.readout.groups

    @property
    def symmetry(self) -> ClassSymmetry:
        return self.readout.symmetry

    @property
    def n_inputs(self) -> float:
        """P, which makes small kernels and blocks of conjugate kernels numbers of order one."""
        return float(self.groups.counts.sum())

    def is_readout(self, index: int) -> bool:
        """Whether a layer, from 0, is the last."""
        return index == len(self.weight_variances) - 1

    @property
    def n_unknowns(self) -> int:
        """Of all layers."""
        return 2 * (len(self.weight_variances) - 1) * self.symmetry.n_unknowns

    def unpack(self, numbers: Array) -> tuple[list[ClassBlocks], list[ClassBlocks]]:
        """K_1 ... K_{L-1}, factors sigma^2 included, and Kt_1 ... Kt_{L-1}."""
        symmetry, p = self.symmetry, self.n_inputs
        pairs = numbers.reshape(len(self.weight_variances) - 1, 2, -1)
        kernels = [symmetry.unpack(pair[0] / p, 1.0).nonnegative for pair in pairs]
        return kernels, [symmetry.unpack(pair[1], p).nonnegative for pair in pairs]

    def pack(self, kernels: Sequence[ClassBlocks], conjugates: Sequence[ClassBlocks]) -> Array:
        """The unknown numbers."""
        symmetry, p = self.symmetry, self.n_inputs
        pairs = zip(kernels, conjugates, strict=True)
        return np.concatenate(
            [part for k, kt in pairs for part in (p * symmetry.pack(k, 1.0), symmetry.pack(kt, p))]
        )

    def hidden_layer(self, conjugate: ClassBlocks, below: ClassBlocks | None) -> Layer:
        """The law of neurons (4) at Kt_l and K_{l-1}; None below the first layer."""
        counts = self.groups.counts
        root = np.empty((len(counts), 0)) if below is None else below.root
        variances = self.groups.variances if below is None else below.diagonal
        return Layer(conjugate.root, root, variances, conjugate.diagonal, counts, self.readout.nonlinearity)

    def images(self, index: int) -> Array:
        """The symmetries on the latents of a layer, from 0."""
        n = len(self.groups.counts)
        if self.is_readout(index):
            return self.readout.images
        return self.symmetry.images(self.symmetry.permutations, n if index else 0)

    def above(self, state: LayerState, layer: int) -> ClassBlocks:
        """K_l = sigma_{l+1}^2 <phi phi^T> of layer l, symmetric among classes."""
        return self.symmetry.of_blocks(state.kernel).scaled(self.weight_variances[layer])

    def __call__(self, numbers: Array, near: "DeepState") -> "DeepState | None":
        """The equations at these unknowns, from a state nearby; None where the points do not serve."""
        return self.solve(numbers, near.solved.field, near if near.equations is self else None)

    def solve(self, numbers: Array, field: Array, near: "DeepState | None" = None) -> "DeepState | None":
        """All layers at these unknowns, t sought from ``field``; what is as in ``near`` is not redone."""
        kernels, conjugates = self.unpack(numbers)
        depth = len(conjugates)
        same = np.zeros((depth, 2), dtype=bool)
        if near is not None:
            same = (numbers == near.numbers).reshape(depth, 2, -1).all(2)
        if not all((kernel.diagonal > 0).all() for kernel in kernels):
            return None
        states = []
        for index, conjugate in enumerate(conjugates):
            if near is not None and same[index, 1] and (index == 0 or same[index - 1, 0]):
                states.append(near.hidden[index])
                continue
            layer = self.hidden_layer(conjugate, kernels[index - 1] if index else None)
            states.append(layer.at(self.points[index]))
            if not states[-1].relative_ess > _LEAST_ESS:
                return None
        if near is not None and same[-1, 0]:
            return DeepState(self, numbers, tuple(states), near.solved)
        solved = self.readout.solve(field, kernels[-1], self.points[-1], self.field_tolerance)
        if not (solved.state.relative_ess > _LEAST_ESS and solved.residual < 1e3 * self.field_tolerance):
            return None
        return DeepState(self, numbers, tuple(states), solved)


@frozen(eq=False)
class DeepState:
    """All layers at some unknowns, t being converged.

    Attributes
    ----------
    numbers
        The unknowns, (2 (L - 1) k,).
    hidden
        Layers 1 to L - 1.
    solved
        The readout layer.
    """

    equations: DeepEquations
    numbers: Array
    hidden: tuple[LayerState, ...]
    solved: ReadoutSolution

    @property
    def layers(self) -> tuple[LayerState, ...]:
        """Layers 1 to L."""
        return (*self.hidden, self.solved.state)

    @property
    def relative_ess(self) -> float:
        """Effective share of the points, in the worst layer."""
        return min(state.relative_ess for state in self.layers)

    @cached_property
    def residual(self) -> Array:
        """(6) and (7) less the unknowns."""
        equations, variances = self.equations, self.equations.weight_variances[1:]
        kernels = [equations.above(state, index + 1) for index, state in enumerate(self.hidden)]
        pairs = zip(variances, self.layers[1:], strict=True)
        messages = [state.message.scaled(variance) for variance, state in pairs]
        return equations.pack(kernels, messages) - self.numbers

    @cached_property
    def kernels(self) -> tuple[ClassBlocks, ...]:
        """<phi phi^T> of layers 1 to L."""
        return tuple(self.equations.symmetry.of_blocks(state.kernel) for state in self.layers)

    @property
    def action(self) -> float:
        """J, (8)."""
        equations, total = self.equations, self.solved.grouped.value
        variances = equations.weight_variances[1:]
        pairs = zip(variances, *equations.unpack(self.numbers), self.hidden, strict=True)
        for variance, kernel, conjugate, state in pairs:
            cost = conjugate.trace_with(kernel, equations.groups.counts) / variance
            total += state.log_partition - 0.5 * cost
        return total


def cooled(equations: DeepEquations, noise: float) -> DeepEquations:
    """The same at another N T."""
    return evolve(equations, readout=evolve(equations.readout, noise=noise))
