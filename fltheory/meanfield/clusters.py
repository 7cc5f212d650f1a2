"""Clusters of neurons that share a code, as Gaussians, and jumps between them."""

import math
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy import linalg
from scipy.special import logsumexp

from fltheory.meanfield.law import LatentLaw
from fltheory.numerics.positive import cholesky_batch
from fltheory.numerics.validation import Array, Integers

_N_LLOYD = 6
_BEND = 1e-4  # step of the difference that gives phi'', in units of the prior's width


@frozen(eq=False)
class GaussianClusters:
    """A mixture of Gaussians for the latent g.

    Attributes
    ----------
    weights
        Their shares, (B,), summing to 1.
    means, roots
        (B, q), and Cholesky factors of the covariances, (B, q, q).
    """

    weights: Array
    means: Array
    roots: Array

    @cached_property
    def _inverse_roots(self) -> Array:
        one = np.eye(self.means.shape[1])
        return np.stack([linalg.solve_triangular(root, one, lower=True) for root in self.roots])

    @cached_property
    def _log_norms(self) -> Array:
        return np.asarray(np.log(self.weights) - np.log(np.diagonal(self.roots, axis1=1, axis2=2)).sum(1))

    def squared_distances(self, latent: Array) -> Array:
        """From each centre, in units of its covariance, (n, B)."""
        distances = np.empty((len(latent), len(self.weights)))
        for b, (mean, inverse) in enumerate(zip(self.means, self._inverse_roots, strict=True)):
            distances[:, b] = (((latent - mean) @ inverse.T) ** 2).sum(1)
        return distances

    def log_joint(self, latent: Array) -> Array:
        """Log density of g and the cluster, up to the constant that ``log_density`` lacks, (n, B)."""
        return np.asarray(self._log_norms - 0.5 * self.squared_distances(latent))

    def log_density(self, latent: Array) -> Array:
        """Log density of the mixture, without -q log(2 pi) / 2, (n,)."""
        return np.asarray(logsumexp(self.log_joint(latent), axis=1))

    def whiten(self, latent: Array, member: Integers) -> Array:
        """g in the coordinates of its cluster, (n, q)."""
        white = np.empty_like(latent)
        for b in np.unique(member):
            white[member == b] = (latent[member == b] - self.means[b]) @ self._inverse_roots[b].T
        return white

    def colour(self, white: Array, member: Integers) -> Array:
        """The inverse of ``whiten``, (n, q)."""
        latent = np.empty_like(white)
        for b in np.unique(member):
            latent[member == b] = self.means[b] + white[member == b] @ self.roots[b].T
        return latent

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """n latents of the mixture, (n, q)."""
        member = rng.choice(len(self.weights), size=n, p=self.weights)
        return self.colour(rng.standard_normal((n, self.means.shape[1])), member)

    def jump(
        self, law: LatentLaw, latent: Array, rng: np.random.Generator, *, renewal: float
    ) -> tuple[Array, float]:
        """One Metropolis step of each neuron to a cluster chosen by weight, and the share accepted.

        A neuron draws the cluster that it is in from what the mixture says, keeps its place in the
        cluster's white coordinates but for a share ``renewal`` (from 0: none, to 1: all, an
        independent proposal), and takes this place in the new cluster. With the cluster as part of
        its state this is reversible for the mixture, so the ratio of pi_t to the mixture's density
        decides.
        """
        joint = self.log_joint(latent)
        own = _choose(joint, rng)
        white = self.whiten(latent, own)
        white = math.sqrt(1.0 - renewal**2) * white + renewal * rng.standard_normal(white.shape)
        proposal = self.colour(white, rng.choice(len(self.weights), size=len(latent), p=self.weights))
        change = law.log_density(proposal) - self.log_density(proposal)
        change += logsumexp(joint, axis=1) - law.log_density(latent)
        accepted = np.log(rng.random(len(latent))) < change
        return np.where(accepted[:, None], proposal, latent), float(accepted.mean())


def _choose(log_joint: Array, rng: np.random.Generator) -> Integers:
    """One column for each row, with probability in proportion to exp, (n,): the largest of Gumbel's sums."""
    return np.asarray((log_joint + rng.gumbel(size=log_joint.shape)).argmax(1), dtype=np.int64)


def cluster_centres(points: Array, n_clusters: int, rng: np.random.Generator) -> Array:
    """Centres by Lloyd's k-means on points (n, d), each with two points at least, (B, d)."""
    centres = _spread_centres(points, n_clusters, rng)
    for _ in range(_N_LLOYD):
        member = nearest(points, centres)
        counts = np.bincount(member, minlength=len(centres))
        total = np.eye(len(centres))[:, member] @ points
        centres = total[counts > 1] / counts[counts > 1, None]
    while (counts := np.bincount(nearest(points, centres), minlength=len(centres))).min() < 2:
        centres = centres[counts > 1]
    return np.asarray(centres)


def nearest(points: Array, centres: Array) -> Integers:
    """The centre (B, d) that is closest to each point (n, d), (n,)."""
    return np.asarray(((centres**2).sum(1) - 2 * points @ centres.T).argmin(1), dtype=np.int64)


def _spread_centres(points: Array, n_clusters: int, rng: np.random.Generator) -> Array:
    """Points drawn one after the other in proportion to the squared distance from those drawn, (B, d)."""
    chosen = [int(rng.integers(len(points)))]
    distance = ((points - points[chosen[0]]) ** 2).sum(1)
    while len(chosen) < n_clusters and distance.sum() > 0:
        chosen.append(int(rng.choice(len(points), p=distance / distance.sum())))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
    return points[chosen]


def fit_clusters(law: LatentLaw, latent: Array, member: Integers) -> GaussianClusters:
    """Gaussians for clusters of particles, of which each has at least two.

    Means are the particles'. Covariances are theirs too as far as there are enough of them, and
    else those of the law's expansion.
    """
    counts = np.bincount(member[member >= 0])
    rank = latent.shape[1]
    means, covariances = np.empty((len(counts), rank)), np.empty((len(counts), rank, rank))
    for b, count in enumerate(counts):
        inside = latent[member == b]
        means[b] = inside.mean(0)
        scatter = (inside - means[b]).T @ (inside - means[b])
        covariances[b] = (scatter + rank * _expanded_covariance(law, inside)) / (count + rank)
    return GaussianClusters(counts / counts.sum(), means, cholesky_batch(covariances)[0])


def _expanded_covariance(law: LatentLaw, latent: Array) -> Array:
    """Of g by the second-order expansion of the exponent, averaged over the particles of a cluster, (q, q).

    The prior's where this is not positive.
    """
    phi, factor = law.nonlinearity, law.factor
    z = latent @ factor.T
    step = _BEND * max(1.0, float(np.sqrt((factor**2).sum(1).max())))
    bend = (phi.derivative(z + step) - phi.derivative(z - step)) / (2 * step)
    slope = phi.derivative(z).mean(0)
    curvature = law.conjugate * np.outer(slope, slope)
    curvature[np.diag_indices_from(curvature)] += (law.pull(np.asarray(phi(z))) * bend).mean(0)
    one = np.eye(factor.shape[1])
    precision = one - factor.T @ curvature @ factor
    if not np.isfinite(precision).all() or np.linalg.eigvalsh(precision)[0] <= 0:
        return one
    return np.asarray(np.linalg.inv(precision))
