"""Where the readout a is sampled: quasi-random points around the modes of its density.

The average over the m-dimensional a is taken by importance sampling from a mixture of Gaussians, one a
branch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from attrs import evolve, frozen
from scipy.special import logsumexp, softmax
from scipy.stats import norm, qmc

from fltheory.meanfield.branches import code_patterns, neuron_states
from fltheory.meanfield.fractions import ImposedFractions, Mixing
from fltheory.meanfield.outliers import Ray
from fltheory.meanfield.quadrature.groups import GroupedTargets
from fltheory.meanfield.quadrature.sites import TAIL, IndependentSites
from fltheory.numerics.newton import minimise_batch
from fltheory.numerics.validation import Array

_NARROW, _WIDE = 1.15, 2.5  # widths of the Gaussians of the proposal, over the Laplace approximation
_CUT = 30.0  # log weight below the best mode at which one is left out of the proposal
_CUT_IMPOSED = 300.0  # and where shares are imposed
_SOFTEST = 0.02  # curvature of a mode, in units of the prior's, that its Gaussian has at least
_FLAT = 1e-3  # and below which it is the end of a ray, not a mode
_REACHES = (3.0, 6.0, 12.0, 24.0)  # standard deviations of the prior along a ray where modes are sought
_TAIL_SHARE = 0.3  # of the points


@frozen(eq=False)
class Proposal:
    """Frozen points in a, under a mixture of two Gaussians a branch, a narrow and a wide one.

    Where phi has a slope at infinity, a long one along each ray is added.

    Attributes
    ----------
    points, log_density
        a (S, m) and the mixture's log density there (S,).
    shares
        Probability that a point belongs to each branch, (S, B).
    modes, mode_weights
        The branches' modes, (B, m), and their probabilities where nothing is imposed, (B,).
    means, roots, weights
        The components of the mixture, for k rays: (2 B + k, m), (2 B + k, m, m), (2 B + k,).
    mixing
        How branches add up.
    """

    points: Array
    log_density: Array
    shares: Array
    modes: Array
    mode_weights: Array
    means: Array
    roots: Array
    weights: Array
    mixing: Mixing

    @classmethod
    def imposing(
        cls,
        fractions: ImposedFractions | None,
        activations: Callable[[Array], Array],
        modes: Array,
        roots: Array,
        log_weights: Array,
        tails: Array,
        n_points: int,
        seed: int,
    ) -> Self:
        """Like ``around``; where shares of codes are imposed, ``activations`` (n, G) at (n, m) tell these.

        Raises
        ------
        MissingCodeError
            If no mode has one of the codes.
        """
        if fractions is None:
            mixing = Mixing.free(len(modes))
            return cls.around(modes, roots, log_weights, mixing, tails, n_points, seed)
        at_modes = activations(modes)
        mixing = fractions.mixing(at_modes)
        fractions.require(mixing, at_modes)
        drawn = cls.around(modes, roots, log_weights, mixing, tails, n_points, seed)
        shares = mixing.restricted(drawn.shares, activations(drawn.points))
        restricted: Self = evolve(drawn, shares=shares)
        return restricted

    @classmethod
    def around(
        cls,
        modes: Array,
        roots: Array,
        log_weights: Array,
        mixing: Mixing,
        tails: Array,
        n_points: int,
        seed: int,
    ) -> Self:
        """Quasi-random points around modes with covariances root root^T, (B, m, m), and log weights (B,).

        The same sequence serves every component; a fifth of the points is spread evenly over
        branches, and a fifth of each branch's is wide, for densities that are not Gaussian. ``tails``
        are roots of Gaussians around the origin, (k, m, m).
        """
        n_branches, m = modes.shape
        weights = mixing.weights(log_weights)
        even = 0.8 * weights + 0.2 / n_branches
        means = np.concatenate([modes, modes, np.zeros((len(tails), m))])
        share = _TAIL_SHARE if len(tails) else 0.0
        weighted = (1.0 - share) * np.concatenate([0.8 * even, 0.2 * even])
        weighted = np.concatenate([weighted, np.full(len(tails), share / max(1, len(tails)))])
        roots_of_all = np.concatenate([_NARROW * roots, _WIDE * roots, tails])
        counts = (n_points * weighted).astype(int) + 1
        sequence = qmc.Sobol(m, seed=seed).random(1 << math.ceil(math.log2(counts.max())))
        standard = norm.ppf(np.clip(sequence, 1e-12, 1 - 1e-12))
        points = np.concatenate(
            [mean + standard[:n] @ root.T for mean, root, n in zip(means, roots_of_all, counts, strict=True)]
        )
        mixed = counts / counts.sum()
        log_density = logsumexp(log_mixture(points, means, roots_of_all, mixed), axis=1)
        free = softmax(log_weights)
        shares = branch_shares(points, modes, _NARROW * roots, free)
        return cls(points, log_density, shares, modes, free, means, roots_of_all, mixed, mixing)

    def imposed(self, points: Array, weights: Array, activations: Array, probabilities: Array) -> Array:
        """Weights (n,) of neurons at points (n, m), such that branches have their probabilities (B,)."""
        if self.mixing.is_free:
            return weights
        narrow = self.roots[: len(self.modes)]
        belonging = branch_shares(points, self.modes, narrow, self.mode_weights)
        belonging = self.mixing.restricted(belonging, activations)
        return self.mixing.imposed(weights, belonging, probabilities)


def branch_shares(points: Array, modes: Array, roots: Array, weights: Array) -> Array:
    """Probability that each point (S, m) belongs to each of the Gaussian branches, (S, B)."""
    return np.asarray(softmax(log_mixture(points, modes, roots, weights), axis=1))


def log_mixture(points: Array, means: Array, roots: Array, weights: Array) -> Array:
    """log weight plus log density of each Gaussian component at each point, (S, B)."""
    n_points, m = points.shape
    result = np.empty((n_points, len(means)))
    for b, (mean, root, weight) in enumerate(zip(means, roots, weights, strict=True)):
        white = np.linalg.solve(root, (points - mean).T)
        log_det = np.log(np.abs(np.linalg.det(root)))
        result[:, b] = np.log(max(weight, 1e-300)) - 0.5 * (white**2).sum(0) - log_det
    return np.asarray(result - 0.5 * m * math.log(2 * math.pi))


def find_proposal(
    groups: GroupedTargets,
    sites: IndependentSites,
    field: Array,
    readout_variance: float,
    known_modes: Array,
    rays: Sequence[Ray],
    n_points: int,
    seed: int,
    fractions: ImposedFractions | None = None,
) -> Proposal:
    """Laplace mixture over all modes of a's density at t, from every code, known and random starts.

    The flat ends of ``rays``, along which a neuron condenses, are no modes. Modes share as imposed
    ``fractions`` say, if any.

    Raises
    ------
    ValueError
        If a code of them has no mode.
    """

    def action(a: Array) -> tuple[Array, Array, Array]:  # A(a) of (8'') with its derivatives
        log_z, mean, variance = sites.cumulants(a @ field.T)
        counts = groups.counts
        value = 0.5 * (a**2).sum(1) / readout_variance - log_z @ counts
        gradient = a / readout_variance - (mean * counts) @ field
        hessian = np.eye(a.shape[1]) / readout_variance
        return value, gradient, hessian - np.einsum("bg,gi,gj->bij", variance * counts, field, field)

    states = neuron_states(sites.nonlinearity, float(np.sqrt(sites.variances.max())))
    activations = np.asarray(sites.nonlinearity(states))[code_patterns(groups.targets).astype(int)]
    starts = readout_variance * (activations * groups.counts) @ field
    m = field.shape[1]
    random = np.random.default_rng(seed).standard_normal((16, m))
    spread = max(float(np.sqrt(readout_variance)), float(np.abs(starts).max()))
    scale = math.sqrt(readout_variance)
    along = [scale * reach * ray.direction for ray in rays for reach in _REACHES]
    starts = np.concatenate(
        [starts, known_modes, np.zeros((1, m)), spread * random, *np.reshape(along, (-1, 1, m))]
    )
    points, values, hessians, are_minima = minimise_batch(action, starts, max_step=max(2.0, 5 * scale))
    kept: list[int] = []
    cut = _CUT if fractions is None else _CUT_IMPOSED
    for index in np.argsort(values):
        near = np.linalg.norm(points[kept] - points[index], axis=1) < 0.3 * scale
        if are_minima[index] and not near.any() and values[index] < values.min() + cut:
            kept.append(int(index))
    curvature, modes = np.linalg.eigh(hessians[kept])
    if rays and (curved := curvature[:, 0] > _FLAT / readout_variance).any():
        kept, curvature, modes = list(np.array(kept)[curved]), curvature[curved], modes[curved]
    curvature = np.maximum(curvature, _SOFTEST / readout_variance)  # a flat mode is not infinitely wide
    roots = modes / np.sqrt(curvature)[:, None, :]
    log_weights = -values[kept] - 0.5 * np.log(curvature).sum(1)
    tails = np.reshape([scale * _stretched(ray) for ray in rays], (-1, m, m))
    return Proposal.imposing(
        fractions,
        lambda a: sites.cumulants(a @ field.T)[1],
        points[kept],
        roots,
        log_weights,
        tails,
        n_points,
        seed,
    )


def _stretched(ray: Ray) -> Array:
    """1 + (s - 1) u u^T with s^2 the variance of a neuron along the ray, as far as it is followed."""
    u = ray.direction
    along = min(TAIL, 1.0 / math.sqrt(max(1.0 - ray.strength, 1e-9)))
    return np.asarray(np.eye(len(u)) + (along - 1.0) * np.outer(u, u))
