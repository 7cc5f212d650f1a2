"""Single neurons of all hidden layers of a network on any input kernel."""

from functools import cached_property

import numpy as np
from attrs import frozen
from scipy import linalg

from fltheory.meanfield.barriers import LatentDensity, part_neurons
from fltheory.meanfield.ensemble import moments
from fltheory.meanfield.general.layer import HiddenState
from fltheory.meanfield.general.search import LayerPair
from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior, NewInputs
from fltheory.numerics.validation import Array

_N_NEURONS = 8192  # of the first layer, that answer for new inputs
_ROUNDING = 1e-10  # added to a kernel of neurons, which may be singular


@frozen(eq=False)
class GeneralDeepPosterior(NeuronPosterior):
    """Two hidden layers or more, bounded phi, any kernel.

    New inputs are answered layer by layer. The variance of the outputs has no term from fluctuations of
    the kernels of hidden layers.

    Attributes
    ----------
    pair
        The first layer, and those above it, at the solution.
    seed
        Of the neurons that answer for new inputs.
    """

    pair: LayerPair
    seed: int

    @property
    def above(self) -> NeuronPosterior:
        """The layers above the first: a network on its kernel."""
        return self.pair.readout.posterior

    @property
    def _state(self) -> HiddenState:
        return self.pair.hidden.state

    @property
    def field(self) -> Array:
        return self.pair.readout.field

    @property
    def branches(self) -> BranchTable:
        return self.above.branches

    def is_discrete(self, layer: int) -> bool:
        """Whether a barrier that grows with P parts the neurons of a hidden layer."""
        if layer > 1:
            return self.above.is_discrete(layer - 1)
        density = LatentDensity(self._first_layer[1] @ self._state.conjugate.root)
        return part_neurons(density.modes(), density, len(self.field))

    def kernel_parts(self, layer: int) -> KernelParts:
        if layer > 1:
            return self.above.kernel_parts(layer - 1)
        state = self._state
        mean = state.mean_activations[None]
        return KernelParts(state.kernel - mean.T @ mean, mean)

    def conjugate_kernel(self, layer: int) -> Array:
        if layer > 1:
            return self.above.conjugate_kernel(layer - 1)
        return self._state.conjugate.total

    def draw(self, n: int, layer: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
        if layer > 1:
            return self.above.draw(n, layer - 1, rng)
        return self._state.draw(n, rng) @ self._state.factor.T, None

    def training_variance(self) -> Array:
        return self.above.training_variance()

    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        return self.above.predict(self._passed(inputs))

    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        passed = self._passed(inputs)
        if layer > 1:
            return self.above.kernel(layer - 1, passed)
        return passed.own / self.pair.readout.weight_variance

    @cached_property
    def _first_layer(self) -> tuple[Array, Array]:
        """g (n, q) and phi(F g) (n, P) of drawn neurons of the first layer."""
        z, _ = self.draw(_N_NEURONS, 1, np.random.default_rng(self.seed))
        return z @ np.linalg.pinv(self._state.factor).T, np.asarray(self._state.nonlinearity(z))

    def _passed(self, inputs: NewInputs) -> NewInputs:
        """K_1 between new inputs and all; what the training inputs explain is corrected by what is known."""
        (latent, trained), n = self._first_layer, _N_NEURONS
        weights, rest = inputs.regression(self._state.factor)
        phi = self._state.nonlinearity
        centres = latent @ weights.T
        pairs = zip(centres.T, np.maximum(np.diagonal(rest), 0.0), strict=True)
        first = np.stack([moments(phi, centre, float(left))[0] for centre, left in pairs], 1)
        gram = trained.T @ trained / n
        gram[np.diag_indices_from(gram)] += _ROUNDING
        explained = linalg.cho_solve(linalg.cho_factor(gram), trained.T @ first / n)  # (P, n')
        known = self._state.kernel
        values, vectors = np.linalg.eigh(rest)
        noise = np.random.default_rng([self.seed, 1]).standard_normal(centres.shape)
        new = np.asarray(phi(centres + noise @ (vectors * np.sqrt(np.maximum(values, 0.0))).T))
        own = new.T @ new / n + explained.T @ (known - gram) @ explained
        variance = self.pair.readout.weight_variance
        return NewInputs(variance * explained.T @ known, variance * 0.5 * (own + own.T))
