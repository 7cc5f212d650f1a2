"""Single neurons of all layers of a deep network whose kernels are class blocks."""

import math
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy import linalg

from fltheory.meanfield.barriers import part_neurons
from fltheory.meanfield.deep.draws import draw_latents, draw_preactivations
from fltheory.meanfield.deep.equations import DeepState
from fltheory.meanfield.deep.layer import LayerState
from fltheory.meanfield.ensemble import NeuronEnsemble
from fltheory.meanfield.factorised import FactorisedPosterior
from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior, NewInputs
from fltheory.numerics.validation import Array, Integers

_N_NEURONS = 8192  # of each layer, that answer for new inputs
_DISTINCT = 1e-3  # probability of a branch that counts
_ROUNDING = 1e-10  # added to kernels that may be singular


@frozen(eq=False)
class DeepPosterior(NeuronPosterior):
    """Several hidden layers, bounded phi, diagonal K_0.

    New inputs are answered layer by layer: given the neurons drawn for a layer, their preactivations on
    new inputs are Gaussian. The variance of the outputs has no term from fluctuations of the kernels.

    Attributes
    ----------
    state
        All layers at the solution; one row a class.
    seed
        Of the neurons that answer for new inputs.
    """

    state: DeepState
    seed: int

    @property
    def _member(self) -> Integers:
        return self.state.equations.groups.member

    @property
    def depth(self) -> int:
        """L."""
        return len(self.state.layers)

    @property
    def field(self) -> Array:
        return np.asarray(self.state.solved.field[self._member])

    @cached_property
    def readout(self) -> FactorisedPosterior:
        """The readout layer: given what inputs of a class have in common, that of a single hidden layer."""
        state, field = self._unfolded[-1], self.state.solved.field
        sites = state.layer.sites(state.points.latents)
        dual = self.state.equations.readout.dual(sites, state.points)
        return FactorisedPosterior(dual(field), field, self.seed)

    @property
    def branches(self) -> BranchTable:
        return self.readout.branches

    @cached_property
    def _unfolded(self) -> tuple[LayerState, ...]:
        return tuple(state.unfolded() for state in self.state.layers)

    def patterns(self, layer: int) -> tuple[Array, Array]:
        """Probabilities (B,) of the branches of a layer, most probable first, and <phi> in each, (B, P)."""
        state = self._unfolded[layer - 1]
        shares = state.branch_weights
        probabilities = shares.sum(0)
        order = np.argsort(-probabilities)[: np.count_nonzero(probabilities)]
        activations = (shares.T @ state.moments.mean)[order] / probabilities[order][:, None]
        return probabilities[order], activations[:, self._member]

    def is_discrete(self, layer: int) -> bool:
        """Whether a barrier that grows with P parts the probable branches of a hidden layer."""
        state = self._unfolded[layer - 1]
        proposal = state.points.proposal
        probable = proposal.modes[state.branch_weights.sum(0) > _DISTINCT]
        return part_neurons(probable, state.layer.log_density, len(self.field))

    def kernel_parts(self, layer: int) -> KernelParts:
        total = self.state.kernels[layer - 1].expand(self._member)
        probabilities, activations = self.patterns(layer)
        patterns = np.sqrt(probabilities)[:, None] * activations
        return KernelParts(total - patterns.T @ patterns, patterns)

    def conjugate_kernel(self, layer: int) -> Array:
        if layer == self.depth:
            return np.asarray(self.state.equations.readout.readout_variance * self.field @ self.field.T)
        conjugates = self.state.equations.unpack(self.state.numbers)[1]
        return conjugates[layer - 1].expand(self._member)

    def draw(self, n: int, layer: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
        state = self.state.layers[layer - 1]
        latents = draw_latents(state, n, rng)
        z = draw_preactivations(state.layer, latents, self._member, rng)
        if layer < self.depth:
            return z, None
        scale = math.sqrt(self.state.equations.readout.readout_variance)
        return z, scale * latents[:, : state.layer.rank]

    def training_variance(self) -> Array:
        return self.readout.training_variance()

    # New inputs ----------------------------------------------------------------------------------

    @cached_property
    def _neurons(self) -> tuple[Array, ...]:
        """Preactivations of drawn neurons of each layer, (n, P), and the readouts of the last, (n, m)."""
        rng = np.random.default_rng(self.seed)
        drawn = [self.draw(_N_NEURONS, layer, rng) for layer in range(1, self.depth + 1)]
        readouts = drawn[-1][1]
        assert readouts is not None
        return (*(z for z, _ in drawn), readouts)

    @cached_property
    def _ensemble(self) -> NeuronEnsemble:
        z, readouts = self._neurons[-2:]
        solution = self.readout.solution
        return NeuronEnsemble(
            self.state.equations.readout.nonlinearity(z),
            readouts,
            np.full(len(z), 1.0 / len(z)),
            solution.outputs[self._member],
            solution.dual.noise,
        )

    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        centres, rest = self._given_neurons(self._propagated(inputs, self.depth), self.depth)
        spread = np.maximum(np.diagonal(rest), 0.0)
        return self._ensemble.predict(self.state.equations.readout.nonlinearity, centres, spread)

    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        variance = self.state.equations.weight_variances[layer] if layer < self.depth else 1.0
        return np.asarray(self._propagated(inputs, layer + 1).own / variance)

    def _propagated(self, inputs: NewInputs, layer: int) -> NewInputs:
        """K_{layer-1} between new inputs and all."""
        for below in range(1, layer):
            inputs = self._above(inputs, below)
        return inputs

    def _above(self, inputs: NewInputs, layer: int) -> NewInputs:
        """K_layer, given K_{layer-1}; what training inputs explain is corrected by what is known there."""
        phi, variances = self.state.equations.readout.nonlinearity, self.state.equations.weight_variances
        centres, rest = self._given_neurons(inputs, layer)
        values, vectors = np.linalg.eigh(rest)
        rng = np.random.default_rng([self.seed, layer])
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        new = np.asarray(phi(centres + rng.standard_normal(centres.shape) @ root.T))
        trained = np.asarray(phi(self._neurons[layer - 1]))
        n, variance = len(new), variances[layer] if layer < self.depth else 1.0
        gram = trained.T @ trained / n
        gram[np.diag_indices_from(gram)] += _ROUNDING
        explained = linalg.cho_solve(linalg.cho_factor(gram), trained.T @ new / n)  # (P, n')
        known = self.state.kernels[layer - 1].expand(self._member)
        own = new.T @ new / n + explained.T @ (known - gram) @ explained
        return NewInputs(variance * explained.T @ known, variance * own)

    def _given_neurons(self, inputs: NewInputs, layer: int) -> tuple[Array, Array]:
        """Mean of z_* given the neurons of a layer, (n, n'), and its covariance, (n', n')."""
        equations = self.state.equations
        if layer == 1:
            weights = inputs.cross / equations.groups.variances[self._member]
        else:
            below = equations.unpack(self.state.numbers)[0][layer - 2].expand(self._member)
            weights = linalg.solve(below, inputs.cross.T, assume_a="pos").T
        rest = inputs.own - weights @ inputs.cross.T
        return self._neurons[layer - 1] @ weights.T, 0.5 * (rest + rest.T)
