"""Single neurons of both hidden layers of a network on any input kernel."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy import linalg
from scipy.special import softmax

from fltheory.meanfield.ensemble import moments
from fltheory.meanfield.gaussian_mixture import MixturePosterior
from fltheory.meanfield.general.nodes import NodeEP
from fltheory.meanfield.general.search import LayerPair
from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior, NewInputs
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array, Integers

_CANDIDATES = 5  # drawn for each neuron of the first layer that is kept
_N_NEURONS = 8192  # of the first layer, that answer for new inputs
_N_EXACT = 32768  # of them, on which EP's kernel is checked
_BATCH = 64  # nodes at a time
_ROUNDING = 1e-10  # added to a kernel of neurons, which may be singular


@frozen(eq=False)
class GeneralDeepPosterior(NeuronPosterior):
    """Two hidden layers, bounded phi, any kernel.

    New inputs are answered layer by layer. The variance of the outputs has no term from fluctuations of
    the kernel of the first layer.

    Attributes
    ----------
    pair
        Both layers at the solution.
    factor
        F (P, q) with K_0 = F F^T.
    seed
        Of the neurons that answer for new inputs.
    """

    pair: LayerPair
    factor: Array
    seed: int

    @cached_property
    def readout_layer(self) -> MixturePosterior:
        """The second layer: a single hidden layer on the kernel of the first."""
        return MixturePosterior(self.pair.readout.point)

    @property
    def _nonlinearity(self) -> Nonlinearity:
        return self.pair.readout.point.problem.nonlinearity

    @property
    def field(self) -> Array:
        return self.pair.readout.point.field

    @property
    def branches(self) -> BranchTable:
        return self.readout_layer.branches

    def kernel_parts(self, layer: int) -> KernelParts:
        if layer == 2:
            return self.readout_layer.kernel_parts(1)
        state = self.pair.hidden.state
        mean = (state.weights @ state.moments.activations)[None]
        return KernelParts(state.kernel - mean.T @ mean, mean)

    def conjugate_kernel(self, layer: int) -> Array:
        if layer == 2:
            return self.readout_layer.conjugate_kernel(1)
        return self.pair.hidden.state.conjugate.total

    def draw(self, n: int, layer: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
        if layer == 2:
            return self.readout_layer.draw(n, 1, rng)
        latent, weights = self._weighted(n * _CANDIDATES, rng)
        kept = np.searchsorted(np.cumsum(weights), (rng.random() + np.arange(n)) / n)
        kept = rng.permutation(np.minimum(kept, len(weights) - 1))
        return latent[kept] @ self.factor.T, None

    @cached_property
    def exact_first_kernel(self) -> Array:
        """<phi phi^T>_1 over neurons of the exact law at this Kt_1: what EP at the nodes may miss, (P, P)."""
        latent, weights = self._weighted(_N_EXACT, np.random.default_rng([self.seed, 2]))
        phi = np.asarray(self._nonlinearity(latent @ self.factor.T))
        return np.asarray((phi.T * weights) @ phi)

    def _weighted(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draws g of EP's Gaussians at the nodes, (n, q), and weights for the exact law (4), (n,).

        That law is an average over nodes, so that a draw is weighed given its node.
        """
        state = self.pair.hidden.state
        node = np.sort(rng.choice(len(state.weights), size=n, p=state.weights))
        latent, log_density = np.empty((n, self.factor.shape[1])), np.log(state.weights[node])
        for index, pull, root in self._gaussians(np.unique(node)):
            rows = slice(*np.searchsorted(node, [index, index + 1]))
            white = rng.standard_normal(latent[rows].shape)
            whitened_mean = linalg.solve_triangular(root, pull, lower=True)
            latent[rows] = linalg.solve_triangular(root, (whitened_mean + white).T, lower=True, trans="T").T
            log_density[rows] += np.log(np.diagonal(root)).sum() - 0.5 * (white**2).sum(1)
        xi = state.latents[node]
        phi = np.asarray(self._nonlinearity(latent @ self.factor.T))
        diagonal, remainder = state.conjugate.single()
        exponent = ((phi @ state.conjugate.root) * xi).sum(1) - 0.5 * (xi**2).sum(1)
        exponent += 0.5 * (phi**2 @ diagonal + ((phi @ remainder) * phi).sum(1))
        return latent, softmax(exponent - 0.5 * (latent**2).sum(1) - log_density)

    def _gaussians(self, nodes: Integers) -> Iterator[tuple[int, Array, Array]]:
        """Each node with precision times mean (q,) of g there and the Cholesky factor of its precision."""
        state = self.pair.hidden.state
        diagonal, remainder = state.conjugate.single()
        ep = NodeEP(self.factor, self._nonlinearity, np.empty((0, 0)), diagonal, remainder)
        for start in range(0, len(nodes), _BATCH):
            some = nodes[start : start + _BATCH]
            sites = state.sites[:, some]
            yield from zip(some, sites[1] @ self.factor, ep.precision_factors(sites)[0], strict=True)

    def training_variance(self) -> Array:
        return self.readout_layer.training_variance()

    def predict(self, inputs: NewInputs) -> tuple[Array, Array]:
        return self.readout_layer.predict(self._above(inputs))

    def kernel(self, layer: int, inputs: NewInputs) -> Array:
        above = self._above(inputs)
        if layer == 2:
            return self.readout_layer.kernel(1, above)
        return above.own / self.pair.readout.weight_variance

    @cached_property
    def _first_layer(self) -> tuple[Array, Array]:
        """g (n, q) and phi(F g) (n, P) of drawn neurons of the first layer."""
        z, _ = self.draw(_N_NEURONS, 1, np.random.default_rng(self.seed))
        return z @ np.linalg.pinv(self.factor).T, np.asarray(self._nonlinearity(z))

    def _above(self, inputs: NewInputs) -> NewInputs:
        """K_1 between new inputs and all; what the training inputs explain is corrected by what is known."""
        (latent, trained), n = self._first_layer, _N_NEURONS
        weights, rest = inputs.regression(self.factor)
        centres = latent @ weights.T
        pairs = zip(centres.T, np.maximum(np.diagonal(rest), 0.0), strict=True)
        first = np.stack([moments(self._nonlinearity, centre, float(left))[0] for centre, left in pairs], 1)
        gram = trained.T @ trained / n
        gram[np.diag_indices_from(gram)] += _ROUNDING
        explained = linalg.cho_solve(linalg.cho_factor(gram), trained.T @ first / n)  # (P, n')
        known = self.pair.hidden.state.kernel
        values, vectors = np.linalg.eigh(rest)
        noise = np.random.default_rng([self.seed, 1]).standard_normal(centres.shape)
        new = np.asarray(self._nonlinearity(centres + noise @ (vectors * np.sqrt(np.maximum(values, 0.0))).T))
        own = new.T @ new / n + explained.T @ (known - gram) @ explained
        variance = self.pair.readout.weight_variance
        return NewInputs(variance * explained.T @ known, variance * 0.5 * (own + own.T))
