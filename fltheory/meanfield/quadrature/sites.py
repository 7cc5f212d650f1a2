"""The integrals over the preactivation of each input.

Given the readout a the preactivations are independent, so log Z(t a) is a sum of one-dimensional
integrals, done on a uniform grid.
"""

from functools import cached_property

import numpy as np
from attrs import frozen

from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array

TAIL = 12.0  # standard deviations of the prior over which points follow a neuron that grows
_HALF_WIDTH = 9.0  # of the range of z, in standard deviations


@frozen(eq=False)
class IndependentSites:
    """log Z(h) and its derivatives, one input of each group at many fields h.

    Attributes
    ----------
    variances
        Of z in each group, (G,).
    """

    variances: Array
    nonlinearity: Nonlinearity

    @property
    def half_width(self) -> float:
        """Of the range of z, in standard deviations, with room for fields that pull a growing neuron."""
        return _HALF_WIDTH if self.nonlinearity.is_bounded else _HALF_WIDTH + 4 * TAIL

    @cached_property
    def nodes(self) -> tuple[Array, Array]:
        """phi(z) and the logarithms of the weights, (G, K) each."""
        sd = np.sqrt(self.variances)
        rule = self.nonlinearity.gaussian_rule
        spacing = 0.15 if rule.is_uniform else 0.35  # between kinks the nodes are Gauss-Legendre's
        x, log_weights = rule(np.zeros_like(sd), sd, half_width=self.half_width, spacing=spacing)
        phi = np.asarray(self.nonlinearity(sd[:, None] * x))
        return phi, np.broadcast_to(log_weights, phi.shape)

    def cumulants(self, fields: Array) -> tuple[Array, Array, Array]:
        """log Z, <phi> and Var phi at fields h (S, G), each (S, G)."""
        result = np.empty((3, *fields.shape))
        for group, (h, activation, log_weights) in enumerate(zip(fields.T, *self.nodes, strict=True)):
            exponent = np.multiply.outer(h, activation) + log_weights
            peak = exponent.max(1)
            weights = np.exp(exponent - peak[:, None])
            total = weights.sum(1)
            mean = weights @ activation / total
            second = weights @ activation**2 / total
            result[:, :, group] = np.log(total) + peak, mean, np.maximum(second - mean**2, 0.0)
        return result[0], result[1], result[2]
