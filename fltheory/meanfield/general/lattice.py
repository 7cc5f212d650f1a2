"""The first hidden layer under a conjugate kernel, by a lattice in its latent xi.

Kt = V c V^T + diag(d) + E with few directions V (P, r). exp(phi^T V c V^T phi / 2) is an average over
xi ~ N(0, 1_r) of exp(xi^T R^T phi), R = V c^{1/2}. Within a peak the width of xi is at least about one,
so that a cubic lattice is accurate to exp(-2 pi^2 / spacing^2), and no peak is missed: nodes are added
wherever the density, found at the neighbours, asks for them.
"""

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy import linalg
from scipy.special import logsumexp, softmax

from fltheory.errors import ConvergenceError
from fltheory.meanfield.general.conjugate import ConjugateKernel
from fltheory.meanfield.general.core import QuadraticState, solve_core
from fltheory.meanfield.general.layer import CoreSolution
from fltheory.meanfield.general.nodes import NodeEP, NodeMoments, joined
from fltheory.meanfield.general.symmetric import coordinates, n_coordinates, unit_matrices
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array, Integers

Node = tuple[int, ...]

_CUT = 8.0  # log weight below the best node up to which neighbours are added
_SEED_CUT = 24.0  # and for the first nodes, which may be off their peaks
_KEPT = 14.0  # log weight below the sum from which a node does not count
_MOST_NODES = 6000
_EP_TOLERANCE, _EP_RANGE = 1e-3, (1e-5, 1e-3)  # on moments at a node, per residual, and its bounds
_CANDIDATES = 5  # drawn for each neuron that is kept
_N_EXACT = 32768  # neurons on which EP's kernel is checked
_BATCH = 64  # nodes at a time


@frozen(eq=False)
class LatticeState(QuadraticState):
    """The layer under one Kt.

    Attributes
    ----------
    latents, weights
        xi at the nodes that count, (S, r), and their shares, (S,).
    moments
        phi at each.
    sites
        Of EP, (2, S, P).
    """

    factor: Array
    nonlinearity: Nonlinearity
    conjugate: ConjugateKernel
    log_partition: float
    latents: Array
    weights: Array
    moments: NodeMoments
    sites: Array
    kernel: Array

    def _along(self) -> tuple[Array, Array]:
        """V^T <phi> (S, r) and Cov(V^T phi) (S, r, r) at the nodes."""
        v, found = self.conjugate.directions, self.moments
        projected = v.T @ found.factors
        own = np.einsum("pi,sp,pj->sij", v, found.unexplained, v, optimize=True)
        return found.activations @ v, projected @ projected.swapaxes(1, 2) + own

    @property
    def mean_activations(self) -> Array:
        return np.asarray(self.weights @ self.moments.activations)

    def quadratic(self) -> tuple[Array, Array]:
        mean, covariance = self._along()
        turned = np.stack([mean @ unit for unit in unit_matrices(mean.shape[1])], axis=1)
        second = mean[:, :, None] * mean[:, None, :] + covariance
        return coordinates(second), np.einsum("ski,sij,slj->skl", turned, covariance, turned, optimize=True)

    def response(self) -> Array:  # half the covariance of q
        means, spread = self.quadratic()
        centred = means - self.weights @ means
        between = centred.T @ (self.weights[:, None] * centred)
        return np.asarray(0.5 * between + 2.0 * np.tensordot(self.weights, spread, 1))

    def kernel_directions(self) -> Array:
        means, _ = self.quadratic()
        centred, v, found = means - self.weights @ means, self.conjugate.directions, self.moments
        along = found.activations @ v
        projected = np.einsum("spq,pi->sqi", found.factors, v, optimize=True)
        changes = np.empty((n_coordinates(v.shape[1]), len(v), len(v)))
        for k, unit in enumerate(unit_matrices(v.shape[1])):
            tilted = np.einsum("spq,sqi,si->sp", found.factors, projected, along @ unit, optimize=True)
            cross = (found.activations * self.weights[:, None]).T @ tilted
            shares = 0.5 * self.weights * centred[:, k]
            changes[k] = cross + cross.T + second_moment(found, shares)
        return changes

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        latent, weights = self._weighted(n * _CANDIDATES, rng)
        kept = np.searchsorted(np.cumsum(weights), (rng.random() + np.arange(n)) / n)
        return np.asarray(latent[rng.permutation(np.minimum(kept, len(weights) - 1))])

    @cached_property
    def exact_kernel(self) -> Array:
        """<phi phi^T>_1 over neurons of the exact law: what EP at the nodes may miss, (P, P)."""
        latent, weights = self._weighted(_N_EXACT, np.random.default_rng(0))
        phi = np.asarray(self.nonlinearity(latent @ self.factor.T))
        return np.asarray((phi.T * weights) @ phi)

    def _weighted(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draws g of EP's Gaussians at the nodes, (n, q), and weights for the exact law (4), (n,).

        That law is an average over nodes, so that a draw is weighed given its node.
        """
        node = np.sort(rng.choice(len(self.weights), size=n, p=self.weights))
        latent, log_density = np.empty((n, self.factor.shape[1])), np.log(self.weights[node])
        for index, pull, root in self._gaussians(np.unique(node)):
            rows = slice(*np.searchsorted(node, [index, index + 1]))
            white = rng.standard_normal(latent[rows].shape)
            whitened_mean = linalg.solve_triangular(root, pull, lower=True)
            latent[rows] = linalg.solve_triangular(root, (whitened_mean + white).T, lower=True, trans="T").T
            log_density[rows] += np.log(np.diagonal(root)).sum() - 0.5 * (white**2).sum(1)
        xi = self.latents[node]
        phi = np.asarray(self.nonlinearity(latent @ self.factor.T))
        diagonal, remainder = self.conjugate.single()
        exponent = ((phi @ self.conjugate.root) * xi).sum(1) - 0.5 * (xi**2).sum(1)
        exponent += 0.5 * (phi**2 @ diagonal + ((phi @ remainder) * phi).sum(1))
        return latent, softmax(exponent - 0.5 * (latent**2).sum(1) - log_density)

    def _gaussians(self, nodes: Integers) -> Iterator[tuple[int, Array, Array]]:
        """Each node with precision times mean (q,) of g there and the Cholesky factor of its precision."""
        diagonal, remainder = self.conjugate.single()
        ep = NodeEP(self.factor, self.nonlinearity, np.empty((0, 0)), diagonal, remainder)
        for start in range(0, len(nodes), _BATCH):
            some = nodes[start : start + _BATCH]
            sites = self.sites[:, some]
            yield from zip(some, sites[1] @ self.factor, ep.precision_factors(sites)[0], strict=True)


def second_moment(moments: NodeMoments, weights: Array) -> Array:
    """sum_s weights_s <phi phi^T>_s, (P, P); weights (S,) of any sign."""
    phi = moments.activations
    total = (phi * weights[:, None]).T @ phi
    for sign in (1.0, -1.0):
        chosen = sign * weights > 0
        scaled = moments.factors[chosen] * np.sqrt(np.abs(weights[chosen]))[:, None, None]
        flat = scaled.swapaxes(0, 1).reshape(phi.shape[1], -1)
        total += sign * (flat @ flat.T)
    total[np.diag_indices_from(total)] += weights @ moments.unexplained
    return np.asarray(total)


class Lattice:
    """Finds the layer's state under any Kt, remembering EP's sites from one to the next.

    Parameters
    ----------
    factor
        F (P, q) with K_0 = F F^T.
    patterns
        Activations around which peaks may be, (B, P).
    spacing
        Of nodes.
    """

    def __init__(self, factor: Array, nonlinearity: Nonlinearity, patterns: Array, spacing: float) -> None:
        self.factor, self.nonlinearity, self.patterns = factor, nonlinearity, patterns
        self.spacing, self._tolerance = spacing, 1e-5
        self._stored: dict[Node, tuple[Array, Array]] = {}
        self._near: dict[Node, float] = {}  # distance in log weight from the best node, last time

    def expect(self, residual: float) -> None:
        """Tell the tolerance of EP's moments at a node from the residual of the search."""
        self._tolerance = float(np.clip(_EP_TOLERANCE * residual, *_EP_RANGE))

    def at_overlap(
        self, conjugate: ConjugateKernel, overlap: Array, *, tolerance: float, max_iterations: int
    ) -> CoreSolution:
        """See ``HiddenLayer``."""
        return solve_core(self, conjugate, overlap, tolerance=tolerance, max_iterations=max_iterations)

    def __call__(self, conjugate: ConjugateKernel) -> LatticeState:
        root = conjugate.root
        diagonal, remainder = conjugate.single()
        seeds = self._seeds(root)
        todo = dict.fromkeys([*(n for n, a in self._near.items() if a < _CUT), *seeds])
        costs: dict[Node, float] = {}
        parts: list[tuple[list[Node], NodeMoments]] = []
        first = True
        while todo:
            nodes = list(todo)
            found = self._evaluate(nodes, root, diagonal, remainder)
            xi = self.spacing * np.array(nodes, dtype=float)
            new = 0.5 * (xi**2).sum(1) - found.log_partition
            costs.update(zip(nodes, new.tolist(), strict=True))
            parts.append((nodes, found))
            lowest = min(costs.values())
            reach = {node: _SEED_CUT if first and node in seeds else _CUT for node in nodes}
            centres = [node for node in costs if costs[node] < lowest + reach.get(node, _CUT)]
            todo = dict.fromkeys(n for node in centres for n in _neighbours(node) if n not in costs)
            first = False
            if len(costs) + len(todo) > _MOST_NODES:
                raise ConvergenceError(
                    f"the first hidden layer needs more than {_MOST_NODES} nodes for {root.shape[1]} "
                    "outputs; try fewer outputs or a higher temperature"
                )
        if not np.isfinite(lowest):
            raise ConvergenceError("expectation propagation fails in the first hidden layer")
        self._near = {node: cost - lowest for node, cost in costs.items()}
        return self._state(conjugate, parts)

    def _seeds(self, root: Array) -> set[Node]:
        seeds = {tuple(int(k) for k in np.round(x / self.spacing)) for x in self.patterns @ root}
        return {*seeds, (0,) * root.shape[1]}

    def _evaluate(self, nodes: list[Node], root: Array, diagonal: Array, remainder: Array) -> NodeMoments:
        starts = [self._start(node) for node in nodes]
        sites = np.stack([start[0] for start in starts], axis=1)
        means = np.stack([start[1] for start in starts])
        fields = self.spacing * np.array(nodes, dtype=float) @ root.T
        ep = NodeEP(self.factor, self.nonlinearity, fields, diagonal, remainder)
        change = ep.run(sites, means, tolerance=self._tolerance, max_iterations=60)
        found = ep.moments(sites, means, change)
        for index, node in enumerate(nodes):
            if np.isfinite(found.log_partition[index]):
                self._stored[node] = (sites[:, index].copy(), found.activations[index])
            else:
                self._stored.pop(node, None)
        return found

    def _start(self, node: Node) -> tuple[Array, Array]:
        for candidate in (node, *_neighbours(node)):
            if candidate in self._stored:
                sites, means = self._stored[candidate]
                return sites.copy(), means.copy()
        n_inputs = len(self.factor)
        return np.zeros((2, n_inputs)), np.full(n_inputs, float(self.patterns.mean()))

    def _state(self, conjugate: ConjugateKernel, parts: list[tuple[list[Node], NodeMoments]]) -> LatticeState:
        nodes = [node for some, _ in parts for node in some]
        latents = self.spacing * np.array(nodes, dtype=float)
        log_weights = np.concatenate([found.log_partition for _, found in parts]) - 0.5 * (latents**2).sum(1)
        log_sum = float(logsumexp(log_weights))
        counted = log_weights > log_sum - _KEPT
        ends = np.cumsum([len(some) for some, _ in parts])[:-1]
        chosen = [np.flatnonzero(part) for part in np.split(counted, ends)]
        moments = joined([found.select(c) for (_, found), c in zip(parts, chosen, strict=True)])
        weights = np.exp(log_weights[counted] - log_sum)
        weights /= weights.sum()
        cell = latents.shape[1] * (math.log(self.spacing) - 0.5 * math.log(2 * math.pi))
        kept = [node for node, c in zip(nodes, counted, strict=True) if c]
        return LatticeState(
            self.factor,
            self.nonlinearity,
            conjugate,
            log_sum + cell,
            latents[counted],
            weights,
            moments,
            np.stack([self._stored[node][0] for node in kept], axis=1),
            second_moment(moments, weights),
        )


def _neighbours(node: Node) -> Iterator[Node]:
    for axis, value in enumerate(node):
        for step in (-1, 1):
            yield (*node[:axis], value + step, *node[axis + 1 :])
