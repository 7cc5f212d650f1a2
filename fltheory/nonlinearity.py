"""What a neuron computes: the nonlinearity phi, one formula a class.

What a network does with its representations follows from phi alone, through its slopes at
-infinity and infinity (docs/theory.md, section 3), so a subclass has nothing more to declare.
"""

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
from attrs import field, frozen

from fltheory.numerics.namespace import is_torch, namespace, special
from fltheory.numerics.validation import check_real, checked

_FAR = 1e4  # where the asymptotes are read off
_FLAT = 1e-6  # a slope below this is zero: arctan is at 5e-9 there


class Nonlinearity(ABC):
    """An elementwise function phi of the preactivation.

    A subclass must implement ``__call__(z)``, through ``namespace(z)`` and ``special(z)`` so that
    one formula serves numpy and torch. It may implement ``derivative`` and ``asymptotic_slopes``;
    both have numeric defaults. Callers also use ``is_linear`` and ``is_bounded``.
    """

    @abstractmethod
    def __call__(self, z: Any) -> Any:
        """phi(z), elementwise: same shape, numpy in numpy out, torch in torch out."""

    def derivative(self, z: Any) -> Any:
        """phi'(z): by automatic differentiation in torch, by central differences (1e-11) in numpy."""
        xp = namespace(z)
        if is_torch(z):
            import torch

            with torch.enable_grad():
                leaf = (1.0 * z.detach()).requires_grad_(True)  # integers become floating
                total = self(leaf).sum()
                if not total.requires_grad:
                    raise ValueError(
                        f"nonlinearity: expected a function that torch can differentiate, or a derivative of "
                        f"its own, got {self!r}"
                    )
                return torch.autograd.grad(total, leaf)[0]
        z, step = xp.asarray(z, dtype=xp.float64), 1e-3
        near = self(z + step) - self(z - step)
        far = self(z + 2 * step) - self(z - 2 * step)
        return (8 * near - far) / (12 * step)

    @cached_property
    def asymptotic_slopes(self) -> tuple[float, float]:
        """The slopes (s_-, s_+) of phi at -infinity and infinity.

        Raises
        ------
        ValueError
            If phi is not finite far out, or grows faster than linearly.
        """
        with np.errstate(all="ignore"):
            far = np.asarray(self(np.array([-4.0, -2.0, -1.0, 1.0, 2.0, 4.0]) * _FAR))
        if not np.isfinite(far).all():
            raise ValueError(
                f"nonlinearity: expected finite values at |z| = {_FAR:g} (a form that does not "
                f"overflow, or asymptotic_slopes of its own), got {far} from {self!r}"
            )
        slopes = np.diff(far) / (np.array([2.0, 1.0, 2.0, 1.0, 2.0]) * _FAR)
        steepening = abs(slopes[0] - slopes[1]) + abs(slopes[4] - slopes[3])
        if steepening > 1e-3 * (1 + np.abs(slopes).max()):
            raise ValueError(
                f"nonlinearity: expected at most linear growth, got slopes {slopes[[0, 1, 3, 4]]} "
                f"at |z| from {_FAR:g} to {4 * _FAR:g} from {self!r}"
            )
        minus, plus = (0.0 if abs(s) < _FLAT else float(s) for s in slopes[[0, 4]])
        return minus, plus

    @property
    def is_bounded(self) -> bool:
        """Whether both slopes vanish, so that readouts settle on branches (redundant code)."""
        return self.asymptotic_slopes == (0.0, 0.0)

    @cached_property
    def is_linear(self) -> bool:
        """Whether phi(z) = c z, decided from values, not from the class."""
        z = np.linspace(-30.0, 30.0, 121)
        with np.errstate(all="ignore"):
            values = np.asarray(self(z), dtype=float)
        slope = values[-1] / z[-1]
        return bool(slope != 0 and np.allclose(values, slope * z, rtol=1e-12, atol=1e-12 * abs(slope)))


@frozen
class Linear(Nonlinearity):
    """phi(z) = z."""

    def __call__(self, z: Any) -> Any:
        namespace(z)
        return z

    def derivative(self, z: Any) -> Any:
        return namespace(z).ones_like(z)


@frozen
class Sigmoid(Nonlinearity):
    """phi(z) = [1 + erf(sqrt(pi) z / 2)] / 2: from 0 to 1, slope 1/2 at the origin."""

    def __call__(self, z: Any) -> Any:
        return 0.5 * (1.0 + special(z).erf(0.5 * math.sqrt(math.pi) * z))

    def derivative(self, z: Any) -> Any:
        return 0.5 * namespace(z).exp(-0.25 * math.pi * z * z)


@frozen
class Erf(Nonlinearity):
    """phi(z) = erf(sqrt(pi) z / 2): from -1 to 1, slope 1 at the origin."""

    def __call__(self, z: Any) -> Any:
        return special(z).erf(0.5 * math.sqrt(math.pi) * z)

    def derivative(self, z: Any) -> Any:
        return namespace(z).exp(-0.25 * math.pi * z * z)


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
