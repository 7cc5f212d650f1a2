"""One input of a neuron under homogeneous phi, in closed form: what every lattice point needs.

phi(z) = s_+ z for z > 0 and s_- z below. Given the latents the input has z ~ N(u, e), tilted by
exp(h phi(z) + d phi(z)^2 / 2): on either side of the kink a Gaussian again, cut off at zero.
"""

import math

import numpy as np
from attrs import frozen
from scipy.special import log_ndtr, ndtri_exp

from fltheory.numerics.validation import Array

_LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)


class OutsideDomainError(ArithmeticError):
    """A layer's law is not normalisable, or not covered by its lattice, at these order parameters."""


@frozen(eq=False)
class Side:
    """What a site has on one side of the kink.

    Attributes
    ----------
    log_weight
        Of this side, all of N(u, e) counting as 0.
    mean, variance
        Of the Gaussian that is cut off at zero.
    sign, slope
        +-1, and the slope of phi there.
    """

    log_weight: Array
    mean: Array
    variance: float
    sign: float
    slope: float

    def moments(self) -> tuple[Array, Array]:
        """<z> and <z^2> on this side."""
        root = math.sqrt(self.variance)
        depth = self.sign * self.mean / root
        hazard = self.sign * root * np.exp(-0.5 * depth**2 - _LOG_ROOT_TWO_PI - log_ndtr(depth))
        first = self.mean + hazard
        return first, self.mean * first + self.variance

    def draw(self, rng: np.random.Generator) -> Array:
        """z on this side, of the shape of its mean."""
        root = math.sqrt(self.variance)
        uniform = 1.0 - rng.random(self.mean.shape)  # above 0
        quantile = ndtri_exp(np.log(uniform) + log_ndtr(self.sign * self.mean / root))
        return np.asarray(self.mean - self.sign * root * quantile)


@frozen
class RectifiedSite:
    """A site of one class of inputs.

    Attributes
    ----------
    slopes
        s_- and s_+.
    spread
        e, the variance of z given u.
    curvature
        d, the diagonal of the conjugate kernel.
    """

    slopes: tuple[float, float]
    spread: float
    curvature: float

    def sides(self, field: Array, centre: Array) -> tuple[Side, Side]:
        """Below and above the kink, at h and u that broadcast."""
        minus, plus = self.slopes
        return self._side(field, centre, -1.0, minus), self._side(field, centre, 1.0, plus)

    def _side(self, field: Array, centre: Array, sign: float, slope: float) -> Side:
        stiffness = 1.0 - self.spread * self.curvature * slope**2
        if not (self.spread > 0.0 and stiffness > 0.0):
            raise OutsideDomainError
        variance = self.spread / stiffness
        mean = variance * (centre / self.spread + slope * field)
        tilt = 0.5 * (mean**2 / variance - centre**2 / self.spread) - 0.5 * math.log(stiffness)
        log_weight = tilt + log_ndtr(sign * mean / math.sqrt(variance))
        return Side(log_weight, mean, variance, sign, slope)

    def log_partition(self, field: Array, centre: Array) -> Array:
        """g(h, u) = log < exp(h phi + d phi^2 / 2) >."""
        below, above = self.sides(field, centre)
        return np.asarray(np.logaddexp(below.log_weight, above.log_weight))

    def averages(self, field: Array, centre: Array) -> tuple[Array, Array, Array]:
        """<phi>, <phi^2> and dg/de."""
        sides = self.sides(field, centre)
        total = np.logaddexp(*(side.log_weight for side in sides))
        activity = second = scatter = np.zeros(np.shape(total))
        for side in sides:
            share = np.exp(side.log_weight - total)
            z, square = side.moments()
            activity = activity + share * side.slope * z
            second = second + share * side.slope**2 * square
            scatter = scatter + share * (square - 2 * centre * z + centre**2)
        return activity, second, 0.5 * (scatter / self.spread - 1.0) / self.spread

    def draw(self, field: Array, centre: Array, rng: np.random.Generator) -> Array:
        """z given h and u, of their common shape."""
        below, above = self.sides(field, centre)
        share = np.exp(above.log_weight - np.logaddexp(below.log_weight, above.log_weight))
        return np.where(rng.random(share.shape) < share, above.draw(rng), below.draw(rng))
