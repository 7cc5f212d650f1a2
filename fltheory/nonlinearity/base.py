"""What a neuron computes: the nonlinearity phi, one formula a class.

What a network does with its representations follows from phi alone, through its slopes at
-infinity and infinity (docs/theory.md, section 3), so a subclass has nothing more to declare.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np

from fltheory.numerics.fitting import fit_rule, rule_error
from fltheory.numerics.gaussian import GaussianRule, gaussian_second_moment
from fltheory.numerics.kinks import find_kinks
from fltheory.numerics.namespace import is_torch, namespace
from fltheory.numerics.validation import Array, check_real

_NEAREST = 1e4  # asymptotes are read off at 1e4, 1e8, 1e16, 1e32 and 1e64, as far as phi is finite
_FLAT = 1e-9  # a slope below this is zero
_SETTLED = 1e-6  # relative change of a slope between the last two that is none


class Nonlinearity(ABC):
    """An elementwise function phi of the preactivation.

    A subclass must implement ``__call__(z)``, through ``namespace(z)`` and ``special(z)`` so that
    one formula serves numpy and torch. It may implement ``derivative``, ``asymptotic_slopes``,
    ``kinks`` and ``gaussian_kernel``; all have numeric defaults. Callers also use ``gaussian_rule``,
    ``quadrature_error``, ``is_linear`` and ``is_bounded``.
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
        """The limits (s_-, s_+) of phi(z) / z at -infinity and infinity.

        What grows more slowly than z does not count: 0 for sqrt(|z|), 1 for z + sin(z) and for
        z + sqrt(|z|).

        Raises
        ------
        ValueError
            If phi is not finite far out, or phi(z) / z has no limit: it grows faster than linearly.
        """
        distance = _NEAREST ** (2.0 ** np.arange(5))
        with np.errstate(all="ignore"):
            slopes = np.array([np.asarray(self(sign * distance)) / (sign * distance) for sign in (-1, 1)])
        n_finite = int(np.isfinite(slopes).all(0).cumprod().sum())
        if n_finite < 2:
            raise ValueError(
                f"nonlinearity: expected finite values at |z| = {distance[n_finite]:g} (a form that does "
                f"not overflow, or asymptotic_slopes of its own), got "
                f"{slopes[:, n_finite] * distance[n_finite] * (-1, 1)} from {self!r}"
            )
        before, last = slopes[:, n_finite - 2], slopes[:, n_finite - 1]
        if (np.abs(last - before) > _SETTLED * (1 + np.abs(last))).any():
            raise ValueError(
                f"nonlinearity: expected at most linear growth, got slopes phi(z) / z of {before} at "
                f"|z| = {distance[n_finite - 2]:g} and {last} at {distance[n_finite - 1]:g} from {self!r}"
            )
        minus, plus = (0.0 if abs(s) < _FLAT else float(s) for s in last)
        return minus, plus

    @cached_property
    def kinks(self) -> tuple[float, ...]:
        """Where phi' jumps, ascending: found on [-30, 30], to 1e-12, unless a subclass knows better."""
        return find_kinks(self)

    @cached_property
    def gaussian_rule(self) -> GaussianRule:
        """The quadrature for averages of phi over Gaussian variables."""
        return fit_rule(self, self.kinks)

    def quadrature_error(self, scale: float) -> float:
        """Estimated relative error of averages of phi and phi^2 over z of standard deviation ``scale``.

        Of the numeric averages, whatever has a closed form: of order one if phi oscillates faster
        than their finest nodes. Against averages over 2.3 times as many nodes.

        Raises
        ------
        TypeError, ValueError
            If ``scale`` is no positive number.
        """
        return rule_error(self, self.gaussian_rule, check_real("scale", scale, minimum=0.0, exclusive=True))

    def gaussian_kernel(self, covariance: Array) -> Array:
        """E phi(z) phi(z)^T for z ~ N(0, covariance), (n, n): the kernel of a layer at the prior."""
        return gaussian_second_moment(self, covariance, self.gaussian_rule)

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
