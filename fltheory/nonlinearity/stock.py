"""The stock nonlinearities, with what is known of them in closed form."""

import math
from typing import Any

import numpy as np
from attrs import field, frozen

from fltheory.nonlinearity.base import Nonlinearity
from fltheory.numerics.namespace import namespace, special
from fltheory.numerics.validation import Array, check_real, checked


def _arcsine(covariance: Array) -> Array:
    """E phi phi^T for phi(z) = erf(sqrt(pi) z / 2)."""
    scale = np.sqrt(1.0 + 0.5 * math.pi * np.diagonal(covariance))
    return np.asarray(2 / math.pi * np.arcsin(0.5 * math.pi * covariance / np.outer(scale, scale)))


def _arccosine(covariance: Array) -> Array:
    """E phi phi^T for phi(z) = max(z, 0)."""
    scales = np.outer(*2 * [np.sqrt(np.diagonal(covariance))])
    rho = np.clip(np.divide(covariance, scales, where=scales > 0, out=np.zeros_like(scales)), -1.0, 1.0)
    angle = np.arccos(-rho)  # pi less the angle between the inputs
    return np.asarray(scales / (2 * math.pi) * (np.sqrt((1 - rho) * (1 + rho)) + rho * angle))


@frozen
class Linear(Nonlinearity):
    """phi(z) = z."""

    def __call__(self, z: Any) -> Any:
        namespace(z)
        return z

    def derivative(self, z: Any) -> Any:
        return namespace(z).ones_like(z)

    def gaussian_kernel(self, covariance: Array) -> Array:
        return np.array(covariance, dtype=np.float64)


@frozen
class Sigmoid(Nonlinearity):
    """phi(z) = [1 + erf(sqrt(pi) z / 2)] / 2: from 0 to 1, slope 1/2 at the origin."""

    def __call__(self, z: Any) -> Any:
        return 0.5 * (1.0 + special(z).erf(0.5 * math.sqrt(math.pi) * z))

    def derivative(self, z: Any) -> Any:
        return 0.5 * namespace(z).exp(-0.25 * math.pi * z * z)

    def gaussian_kernel(self, covariance: Array) -> Array:
        return 0.25 + 0.25 * _arcsine(covariance)


@frozen
class Erf(Nonlinearity):
    """phi(z) = erf(sqrt(pi) z / 2): from -1 to 1, slope 1 at the origin."""

    def __call__(self, z: Any) -> Any:
        return special(z).erf(0.5 * math.sqrt(math.pi) * z)

    def derivative(self, z: Any) -> Any:
        return namespace(z).exp(-0.25 * math.pi * z * z)

    def gaussian_kernel(self, covariance: Array) -> Array:
        return _arcsine(covariance)


@frozen
class Tanh(Nonlinearity):
    """phi(z) = tanh(z)."""

    def __call__(self, z: Any) -> Any:
        return namespace(z).tanh(z)

    def derivative(self, z: Any) -> Any:
        return 1.0 - namespace(z).tanh(z) ** 2


@frozen
class ReLU(Nonlinearity):
    """phi(z) = max(z, 0)."""

    def __call__(self, z: Any) -> Any:
        xp = namespace(z)
        return xp.where(z <= 0, xp.zeros_like(z), z)  # NaN stays NaN

    def derivative(self, z: Any) -> Any:
        xp = namespace(z)
        return xp.where(z > 0, xp.ones_like(z), xp.zeros_like(z))

    @property
    def kinks(self) -> tuple[float, ...]:
        return (0.0,)

    def gaussian_kernel(self, covariance: Array) -> Array:
        return _arccosine(covariance)


@frozen
class LeakyReLU(Nonlinearity):
    """phi(z) = z for z > 0, negative_slope z below."""

    negative_slope: float = field(default=0.01, converter=checked(check_real))

    def __call__(self, z: Any) -> Any:
        return namespace(z).where(z > 0, z, self.negative_slope * z)

    def derivative(self, z: Any) -> Any:
        xp = namespace(z)
        one = xp.ones_like(z)
        return xp.where(z > 0, one, self.negative_slope * one)

    def gaussian_kernel(self, covariance: Array) -> Array:
        # phi(z) = s z + (1 - s) max(z, 0), and E x max(y, 0) = E x y / 2.
        s = self.negative_slope
        return np.asarray(s * covariance + (1 - s) ** 2 * _arccosine(covariance))


@frozen
class Softplus(Nonlinearity):
    """phi(z) = log(1 + exp(beta z)) / beta: a ReLU with a bend of width 1 / beta."""

    beta: float = field(default=1.0, converter=checked(check_real, minimum=0.0, exclusive=True))

    def __call__(self, z: Any) -> Any:
        xp = namespace(z)
        size = xp.abs(z)
        return 0.5 * (z + size) + xp.log1p(xp.exp(-self.beta * size)) / self.beta  # never overflows

    def derivative(self, z: Any) -> Any:
        return special(z).expit(self.beta * z)


@frozen
class GELU(Nonlinearity):
    """phi(z) = z Phi(z), with the normal distribution function Phi."""

    def __call__(self, z: Any) -> Any:
        return z * special(z).ndtr(z)

    def derivative(self, z: Any) -> Any:
        xp = namespace(z)
        return special(z).ndtr(z) + z * xp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)

    def gaussian_kernel(self, covariance: Array) -> Array:
        """By parts, twice, down to E Phi(x) Phi(y) and E Phi'(x) Phi'(y)."""
        c, v = covariance, np.diagonal(covariance)
        wider = np.outer(1 + v, 1 + v)
        both = 0.25 + np.arcsin(c / np.sqrt(wider)) / (2 * math.pi)
        inverse = 1 / (1 + v)
        rest = np.outer(v, v) + c**2 * (inverse[:, None] + inverse - 1)
        return np.asarray(c * both + rest / (2 * math.pi * np.sqrt(wider - c**2)))
