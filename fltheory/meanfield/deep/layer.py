"""The law of one neuron over its few latents, for class-block kernels: docs/theory.md (4b) and 5.1."""

import math
from functools import cached_property

import numpy as np
from attrs import evolve, frozen
from scipy.special import logsumexp, softmax

from fltheory.meanfield.deep.blocks import ClassBlocks
from fltheory.meanfield.deep.sites import ClassSites, SiteMoments
from fltheory.meanfield.fractions import ImposedFractions, Mixing
from fltheory.meanfield.quadrature.proposal import Proposal, branch_shares, log_mixture
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.newton import minimise_batch
from fltheory.numerics.validation import Array
from fltheory.numerics.weights import relative_ess

_NEAR = 0.1  # distance below which two modes are one
_CUT = 25.0  # log weight below the best mode at which one is left out of the proposal
_CUT_IMPOSED = 300.0  # and where shares of modes are imposed
_SOFTEST = 0.15  # curvature that the Gaussian of a mode has at least; the prior's is 1
_MOST_IMAGES = 6  # of every point, where points are shown with their images
_LOG_2PI = math.log(2 * math.pi)


@frozen(eq=False)
class Layer:
    """Neurons with latents x = (xi, v) ~ N(0, 1): fields h = R xi and means u = V v of z.

    Attributes
    ----------
    field_root, mean_root
        R (G, r), and V (G, q) with q = 0 where inputs of a class have nothing in common.
    variances, curvatures
        D and d of the single inputs, (G,).
    counts
        Inputs of each class, (G,).
    """

    field_root: Array
    mean_root: Array
    variances: Array
    curvatures: Array
    counts: Array
    nonlinearity: Nonlinearity

    @property
    def rank(self) -> int:
        """r, the number of latents that set the fields."""
        return int(self.field_root.shape[1])

    @property
    def n_latents(self) -> int:
        """r + q."""
        return self.rank + int(self.mean_root.shape[1])

    def fields(self, latents: Array) -> Array:
        """h, (S, G)."""
        return np.asarray(latents[:, : self.rank] @ self.field_root.T)

    def sites(self, latents: Array) -> ClassSites:
        """The single inputs at latents (S, n)."""
        means = np.zeros((1, len(self.counts)))
        if self.n_latents > self.rank:
            means = latents[:, self.rank :] @ self.mean_root.T
        return ClassSites(self.variances, self.nonlinearity, means, self.curvatures)

    def action(self, latents: Array) -> tuple[Array, Array, Array]:
        """A(x), the density of x being exp(-A), with its first two derivatives."""
        r, counts = self.rank, self.counts
        at = self.sites(latents).moments(self.fields(latents))
        value = 0.5 * (latents**2).sum(1) - at.log_z @ counts
        pull = np.concatenate([(counts * at.mean) @ self.field_root, (counts * at.push) @ self.mean_root], 1)
        hessian = np.tile(np.eye(self.n_latents), (len(latents), 1, 1))
        hessian[:, :r, :r] -= _between(self.field_root, counts * at.variance, self.field_root)
        hessian[:, r:, r:] -= _between(self.mean_root, counts * at.spread, self.mean_root)
        mixed = _between(self.field_root, counts * at.mixed, self.mean_root)
        hessian[:, :r, r:] -= mixed
        hessian[:, r:, :r] -= mixed.swapaxes(1, 2)
        return value, latents - pull, hessian

    def activations(self, latents: Array) -> Array:
        """<phi> at the latents, (S, G)."""
        return self.sites(latents).moments(self.fields(latents)).mean

    def log_density(self, latents: Array) -> Array:
        """log of N(x | 0, 1) prod Z_c^n_c, whose integral is Z, (S,)."""
        log_z = self.sites(latents).cumulants(self.fields(latents))[0]
        return np.asarray(log_z @ self.counts - 0.5 * (latents**2).sum(1) - 0.5 * _LOG_2PI * latents.shape[1])

    def find_points(
        self,
        images: Array,
        starts: Array,
        n_points: int,
        seed: int,
        fractions: ImposedFractions | None = None,
    ) -> "LayerPoints":
        """Frozen points under a Laplace mixture over all modes of the latents' density.

        Of modes that the symmetries ``images`` (M, n, n) map to one another, only one is sampled.
        ``fractions`` are those of codes by <phi> of the classes, if they are imposed.

        Raises
        ------
        MissingCodeError
            If no mode has one of the codes.
        """
        modes, values, hessians, are_minima = minimise_batch(
            self.action, starts, tolerance=1e-6, max_iterations=50, max_step=2.0
        )
        kept, sizes, cut = list[int](), list[float](), _CUT if fractions is None else _CUT_IMPOSED
        lowest = values[are_minima].min() if are_minima.any() else values.min()
        for index in np.argsort(values):
            orbit = images @ modes[index]
            near = np.abs(orbit[:, None] - modes[kept]).max(2) < _NEAR
            if are_minima[index] and not near.any() and values[index] < lowest + cut:
                kept.append(int(index))
                sizes.append(len(images) / (np.abs(orbit - modes[index]).max(1) < _NEAR).sum())
        if not kept:
            kept, sizes = [int(values.argmin())], [1.0]
        curvature, axes = np.linalg.eigh(hessians[kept])
        curvature = np.maximum(curvature, _SOFTEST)
        log_weights = -values[kept] - 0.5 * np.log(curvature).sum(1) + np.log(sizes)
        roots = axes / np.sqrt(curvature)[:, None, :]
        tails = np.empty((0, self.n_latents, self.n_latents))
        proposal = Proposal.imposing(
            fractions, self.activations, modes[kept], roots, log_weights, tails, n_points, seed
        )
        return LayerPoints.under(proposal, images)

    def at(self, points: "LayerPoints", sites: ClassSites | None = None) -> "LayerState":
        """Averages over the layer's neurons by weighted points; ``sites`` are those there, if at hand."""
        latents = points.latents
        moments = (sites or self.sites(latents)).moments(self.fields(latents))
        log_prior = -0.5 * (latents**2).sum(1) - 0.5 * _LOG_2PI * latents.shape[1]
        return LayerState.of(self, points, moments, moments.log_z @ self.counts + log_prior)


@frozen(eq=False)
class LayerPoints:
    """Points that stay where they are while the layer changes.

    Attributes
    ----------
    proposal
        What they were drawn from, without the images of its modes.
    images
        The symmetries on latents, (M, n, n).
    log_density
        Of the proposal made symmetric, at the points, (S,).
    """

    proposal: Proposal
    images: Array
    log_density: Array

    @classmethod
    def under(cls, proposal: Proposal, images: Array) -> "LayerPoints":
        return cls(proposal, images, _symmetric_log_density(proposal, images, proposal.points))

    @property
    def latents(self) -> Array:
        """x, (S, n)."""
        return self.proposal.points

    @property
    def modes(self) -> Array:
        """All modes, (B, n), those that differ by a symmetry included."""
        modes = np.concatenate(list(self.proposal.modes @ self.images.swapaxes(1, 2)))
        kept: list[int] = []
        for index in range(len(modes)):
            if not (np.abs(modes[kept] - modes[index]).max(1) < _NEAR).any():
                kept.append(index)
        return np.asarray(modes[kept])

    def log_density_at(self, latents: Array) -> Array:
        """Of the symmetric proposal, (S,)."""
        return _symmetric_log_density(self.proposal, self.images, latents)


@frozen(eq=False)
class LayerState:
    """A layer with weighted points.

    Attributes
    ----------
    log_partition
        log Z.
    branch_weights
        Of the points in each branch, (S, B), summing to 1.
    moments
        Of single inputs at the points.
    """

    layer: Layer
    points: LayerPoints
    log_partition: float
    branch_weights: Array
    moments: SiteMoments

    @classmethod
    def of(cls, layer: Layer, points: LayerPoints, moments: SiteMoments, log_density: Array) -> "LayerState":
        log_weights = log_density - points.log_density
        log_z = float(logsumexp(log_weights)) - math.log(len(log_weights))
        branch_weights = softmax(log_weights)[:, None] * points.proposal.shares
        return cls(layer, points, log_z, branch_weights, moments)

    @cached_property
    def weights(self) -> Array:
        """Of the points, (S,), summing to 1."""
        return np.asarray(self.branch_weights.sum(1))

    @property
    def relative_ess(self) -> float:
        """Effective share of the points."""
        return relative_ess(self.weights)

    @cached_property
    def kernel(self) -> ClassBlocks:
        """<phi phi^T>."""
        return self._blocks(self.moments.mean, self.moments.variance)

    @cached_property
    def message(self) -> ClassBlocks:
        """What (7a) sends down, over sigma_l^2: 2 d log Z / d K_{l-1}."""
        return self._blocks(self.moments.push, self.moments.spread)

    def _blocks(self, first: Array, second: Array) -> ClassBlocks:
        weighted = self.weights[:, None] * first
        return ClassBlocks(weighted.T @ first, self.weights @ second)

    def unfolded(self) -> "LayerState":
        """The same with the images of all modes and points, or of some points if images are many."""
        images, proposal, n = self.points.images, self.points.proposal, len(self.points.images)
        if n == 1:
            return self
        some = slice(None, None, max(1, n // _MOST_IMAGES))
        points = np.concatenate(list(proposal.points[some] @ images.swapaxes(1, 2)))
        modes, index = _distinct_images(proposal.modes, images)
        roots = np.stack([images[m] @ proposal.roots[b] for m, b in index])
        tiled = np.tile(self.points.log_density[some], n)
        sources = [b for _, b in index]
        weights = proposal.mode_weights[sources] / np.bincount(sources)[sources]
        everywhere = evolve(
            proposal,
            points=points,
            log_density=tiled,
            shares=branch_shares(points, modes, roots, weights),
            modes=modes,
            mode_weights=weights,
            roots=roots,
            mixing=Mixing.free(len(modes)),
        )
        moments = self.layer.sites(points).moments(self.layer.fields(points))
        folded = evolve(self.points, proposal=everywhere, log_density=tiled)
        of_points = np.tile(self.weights[some], n)
        branch_weights = (of_points / of_points.sum())[:, None] * everywhere.shares
        return LayerState(self.layer, folded, self.log_partition, branch_weights, moments)


def _between(left: Array, values: Array, right: Array) -> Array:
    """left^T diag(values) right for each row of values (S, G)."""
    return np.asarray((left.T[None] * values[:, None, :]) @ right)


def _distinct_images(modes: Array, images: Array) -> tuple[Array, list[tuple[int, int]]]:
    """Modes with their images (B, n), each with the image and the mode that it comes from."""
    found, index = list[Array](), list[tuple[int, int]]()
    for b, mode in enumerate(modes):
        for m, image in enumerate(images @ mode):
            if all(np.abs(other - image).max() > _NEAR for other in found):
                found.append(image)
                index.append((m, b))
    return np.array(found), index


def _symmetric_log_density(proposal: Proposal, images: Array, latents: Array) -> Array:
    each = [
        logsumexp(log_mixture(latents @ image.T, proposal.means, proposal.roots, proposal.weights), axis=1)
        for image in images
    ]
    return np.asarray(logsumexp(each, axis=0) - math.log(len(images)))
