"""Neurons of a hidden layer at fixed latents: expectation propagation over preactivations alone.

At latent xi the law of a neuron is N(z | 0, K_0) prod_mu exp(h_mu phi(z_mu) + d_mu phi(z_mu)^2 / 2), with
h = R xi and what the remainder E of the conjugate kernel adds by mean field, E <phi>. Sites are
Gaussians in z_mu alone: arrays (2, S, P) of precisions and precision times mean, for S latents ("nodes").
"""

from collections.abc import Iterator

import attrs
import numpy as np
from attrs import evolve, frozen

from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.positive import cholesky_batch, whiten_batch
from fltheory.numerics.validation import Array, Booleans, Integers

_BATCH = 64  # nodes at a time: what fits a cache
_LEAST_PRECISION = 1e-3  # of a cavity
_FLOOR = 1e-10  # variance left to an input without any
_UNSETTLED = 0.05  # change of moments above which EP has not found a node
_RULE = {"half_width": 6.0, "spacing": 0.5}  # of averages over z


@frozen(eq=False)
class NodeMoments:
    """What EP knows at each of S nodes.

    Attributes
    ----------
    log_partition
        log Z with the remainder's part, (S,); -inf where EP failed.
    activations
        <phi>, (S, P).
    factors, unexplained
        G (S, P, q) and rho (S, P): Cov(phi) = G G^T + diag(rho).
    """

    log_partition: Array
    activations: Array
    factors: Array
    unexplained: Array

    def select(self, index: Integers) -> "NodeMoments":
        """Only these nodes."""
        parts = (self.log_partition, self.activations, self.factors, self.unexplained)
        return NodeMoments(*(part[index] for part in parts))


@frozen(eq=False)
class _Gaussians:
    """EP's Gaussians of z at S nodes.

    Attributes
    ----------
    white
        W (S, q, P): Cov(z) = W^T W.
    log_partition
        log integral of N(g | 0, 1) times the sites, (S,).
    centre, variance
        Of each z_mu, (S, P).
    shifted, spread
        The same without its own site, (S, P).
    proper
        Where the latter is a Gaussian, (S, P).
    """

    white: Array
    log_partition: Array
    centre: Array
    variance: Array
    shifted: Array
    spread: Array
    proper: Booleans


def joined(parts: list[NodeMoments]) -> NodeMoments:
    """All nodes of several."""
    fields = zip(*(attrs.astuple(part, recurse=False) for part in parts), strict=True)
    return NodeMoments(*(np.concatenate(field) for field in fields))


@frozen(eq=False)
class NodeEP:
    """EP at S nodes at once.

    Attributes
    ----------
    factor
        F (P, q) with K_0 = F F^T.
    fields
        R xi, (S, P).
    diagonal, remainder
        d (P,) and E (P, P), symmetric without a diagonal.
    """

    factor: Array
    nonlinearity: Nonlinearity
    fields: Array
    diagonal: Array
    remainder: Array

    def run(self, sites: Array, means: Array, *, tolerance: float, max_iterations: int) -> Array:
        """Iterate in place, ``sites`` (2, S, P) and ``means`` <phi> (S, P); the last change, (S,).

        A node that gets worse is damped more; a site whose cavity is no Gaussian is weakened.
        """
        step, change = np.ones(len(means)), np.full(len(means), np.inf)
        active = np.arange(len(means))
        for _ in range(max_iterations):
            for some in _batches(active):
                proposal, proper, activations, moved = self._at(some)._update(sites[:, some], means[some])
                worse = moved > 1.5 * change[some]
                step[some] = np.where(
                    worse, np.maximum(0.6 * step[some], 0.1), np.minimum(1.05 * step[some], 1.0)
                )
                change[some], means[some] = moved, activations
                retreat = sites[:, some] * np.array([-0.3, 0.0])[:, None, None]
                advance = step[some][:, None] * (proposal - sites[:, some])
                sites[:, some] += np.where(proper, advance, retreat)
            active = active[change[active] > tolerance]
            if not active.size:
                break
        return change

    def _at(self, index: Integers) -> "NodeEP":
        return evolve(self, fields=self.fields[index])

    def precision_factors(self, sites: Array) -> tuple[Array, Booleans]:
        """L (S, q, q) with L L^T the precision of g, z = F g, and which nodes have one, (S,)."""
        precision = (self.factor.T * sites[0][:, None, :]) @ self.factor
        precision[:, np.arange(precision.shape[1]), np.arange(precision.shape[1])] += 1.0
        return cholesky_batch(precision)

    def _gaussians(self, sites: Array) -> "_Gaussians":
        root, positive = self.precision_factors(sites)
        white = whiten_batch(root, self.factor.T)
        along = (white @ sites[1][..., None])[..., 0]
        variance = np.maximum((white**2).sum(1), _FLOOR)
        centre = (along[:, None, :] @ white)[:, 0]
        log_partition = 0.5 * (along**2).sum(1) - np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)
        precision = 1.0 / variance - sites[0]
        proper = (precision > _LEAST_PRECISION) & np.isfinite(precision) & positive[:, None]
        spread = 1.0 / np.where(proper, precision, 1.0)
        shifted = spread * np.where(proper, centre / variance - sites[1], 0.0)
        return _Gaussians(white, log_partition, centre, variance, shifted, spread, proper)

    def _tilt(self, centre: Array, spread: Array, means: Array) -> tuple[Array, ...]:
        """log Z, mean and variance of z, mean and variance of phi, and their covariance, (S, P) each."""
        sd = np.sqrt(spread)
        x, log_weights = self.nonlinearity.gaussian_rule(centre, sd, **_RULE)
        phi = np.asarray(self.nonlinearity(centre[..., None] + sd[..., None] * x))
        exponent = phi * (0.5 * self.diagonal[:, None] * phi + self._total_fields(means)[..., None])
        exponent += log_weights
        peak = exponent.max(-1)
        weights = np.exp(exponent - peak[..., None])
        total = weights.sum(-1)
        weights /= total[..., None]
        first, second = (weights * x).sum(-1), (weights * x**2).sum(-1)
        weights *= phi
        mean, cross = weights.sum(-1), (weights * x).sum(-1)
        variance = np.maximum((weights * phi).sum(-1) - mean**2, 0.0)
        moved, width = centre + sd * first, spread * (second - first**2)
        return np.log(total) + peak, moved, width, mean, variance, sd * (cross - mean * first)

    def _total_fields(self, means: Array) -> Array:
        return np.asarray(self.fields + means @ self.remainder)

    def _update(self, sites: Array, means: Array) -> tuple[Array, Booleans, Array, Array]:
        """New sites, which of them are usable, <phi>, and the change of moments (S,)."""
        law = self._gaussians(sites)
        with np.errstate(all="ignore"):
            _, z, width, activation, _, _ = self._tilt(law.shifted, law.spread, means)
            precision = 1.0 / width - 1.0 / law.spread
            shift = z / width - law.shifted / law.spread
            moved = np.abs(z - law.centre) / np.sqrt(law.variance) + np.abs(width / law.variance - 1.0)
        moved += np.abs(activation - means)
        moved = np.where(law.proper & np.isfinite(moved), moved, 1.0)
        proper = law.proper & np.isfinite(precision) & np.isfinite(shift)
        return np.stack([precision, shift]), proper, activation, np.asarray(moved.max(1))

    def moments(self, sites: Array, means: Array, change: Array) -> NodeMoments:
        """Everything about the nodes that these sites describe."""
        parts = [
            self._at(some)._moments(sites[:, some], means[some], change[some])
            for some in _batches(np.arange(len(means)))
        ]
        return joined(parts)

    def _moments(self, sites: Array, means: Array, change: Array) -> NodeMoments:
        law = self._gaussians(sites)
        with np.errstate(all="ignore"):
            log_tilted, _, _, activation, own, cross = self._tilt(law.shifted, law.spread, means)
            factors = (cross / law.variance)[..., None] * law.white.swapaxes(1, 2)
            local = log_tilted + 0.5 * np.log(law.spread / law.variance)
            local += 0.5 * (law.shifted**2 / law.spread - law.centre**2 / law.variance)
            log_partition = law.log_partition + local.sum(1)
            log_partition -= 0.5 * ((means @ self.remainder) * means).sum(1)
            log_partition += 0.5 * np.einsum("spq,spq->s", self.remainder @ factors, factors)
        usable = law.proper.all(1) & np.isfinite(log_partition) & (change < _UNSETTLED)
        unexplained = np.maximum(own - (factors**2).sum(-1), 0.0)
        return NodeMoments(np.where(usable, log_partition, -np.inf), activation, factors, unexplained)


def _batches(index: Integers) -> Iterator[Integers]:
    for start in range(0, len(index), _BATCH):
        yield index[start : start + _BATCH]
