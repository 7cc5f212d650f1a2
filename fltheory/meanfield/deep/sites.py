"""One input of each class, given what the inputs of the class have in common."""

from functools import cached_property

import numpy as np
from attrs import frozen

from fltheory.meanfield.quadrature.sites import IndependentSites
from fltheory.numerics.validation import Array

_HALF_WIDTH, _SPACING = 7.0, 0.4  # of the nodes, in standard deviations


@frozen(eq=False)
class SiteMoments:
    """log Z of single inputs and its derivatives in the field h and the mean u of z, (S, G) each.

    Attributes
    ----------
    log_z
        log of the average of exp(h phi + d phi^2 / 2) over z ~ N(u, D).
    mean, variance
        Of phi.
    push, spread
        First and second derivative of log Z in u.
    mixed
        Its derivative in h and u.
    """

    log_z: Array
    mean: Array
    variance: Array
    push: Array
    spread: Array
    mixed: Array


@frozen(eq=False)
class ClassSites(IndependentSites):
    """Inputs with z ~ N(u_c, D_c) and the factor exp(h_c phi(z) + d_c phi(z)^2 / 2).

    Attributes
    ----------
    variances, curvatures
        D and d, (G,).
    means
        u, (S, G), or (1, G) if it is always the same.
    """

    means: Array
    curvatures: Array

    @cached_property
    def _nodes(self) -> tuple[Array, Array, Array]:
        """phi(z) (S, G, K), the standardised z and the logarithm of their weights, (K,) or (S, G, K)."""
        sd = np.broadcast_to(np.sqrt(self.variances), self.means.shape)
        x, log_weights = self.nonlinearity.gaussian_rule(
            self.means, sd, half_width=_HALF_WIDTH, spacing=_SPACING
        )
        return np.asarray(self.nonlinearity(self.means[..., None] + sd[..., None] * x)), x, log_weights

    def _tilted(self, fields: Array) -> tuple[Array, Array]:
        """log Z (S, G) and the normalised weights of the nodes (S, G, K) at fields h."""
        phi, _, log_weights = self._nodes
        weights = 0.5 * self.curvatures[:, None] * phi + fields[..., None]
        weights *= phi
        weights += log_weights
        peak = weights.max(-1, keepdims=True)
        weights -= peak
        np.exp(weights, out=weights)
        total = weights.sum(-1, keepdims=True)
        weights /= total
        return (np.log(total) + peak)[..., 0], weights

    def cumulants(self, fields: Array) -> tuple[Array, Array, Array]:
        """log Z, <phi> and Var phi at fields h (S, G), each (S, G)."""
        phi = self._nodes[0]
        log_z, weights = self._tilted(fields)
        mean = (weights := weights * phi).sum(-1)
        variance = np.einsum("sgk,sgk->sg", weights, np.broadcast_to(phi, weights.shape)) - mean**2
        return log_z, mean, np.maximum(variance, 0.0)

    def moments(self, fields: Array) -> SiteMoments:
        """All first and second derivatives at fields h (S, G)."""
        phi, x, _ = self._nodes
        log_z, weights = self._tilted(fields)
        first, second = _sum(weights, x), _sum(weights, x**2)
        weights *= phi
        mean, cross = weights.sum(-1), _sum(weights, x)
        variance = np.einsum("sgk,sgk->sg", weights, np.broadcast_to(phi, weights.shape)) - mean**2
        # Where z has no variance, below a constant phi, nothing pulls at it.
        inverse = np.where(
            self.variances > 0.0, 1.0 / np.where(self.variances > 0.0, self.variances, 1.0), 0.0
        )
        return SiteMoments(
            log_z,
            mean,
            np.maximum(variance, 0.0),
            first * np.sqrt(inverse),
            (second - first**2 - 1.0) * inverse,
            (cross - mean * first) * np.sqrt(inverse),
        )


def _sum(weights: Array, values: Array) -> Array:
    """Sum over nodes (S, G, K), of values that may be the same for all."""
    if values.ndim == 1:
        return np.asarray(weights @ values)
    return np.asarray(np.einsum("sgk,sgk->sg", weights, np.broadcast_to(values, weights.shape)))
