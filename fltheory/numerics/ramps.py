"""Moments of ramps max(x, 0) of two Gaussian variables with any means, in closed form."""

import math

import numpy as np
from scipy.special import ndtr, owens_t

from fltheory.numerics.validation import Array

_TINY = 1e-150  # in place of a zero that is divided by
_ROUNDING = 1e-32  # least 1 - rho^2
_FAR = 40.0  # standard deviations from the kink where a ramp is a line or zero


def _density(x: Array) -> Array:
    return np.asarray(np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi))


def normal_orthant(h: Array, k: Array, rho: Array) -> Array:
    """P(x < h, y < k) for standard normal x and y with correlation rho, by Owen's T; broadcasts."""
    h, k = (np.where(np.abs(v) < _TINY, _TINY, v) for v in (h, k))
    root = np.sqrt(np.maximum((1 - rho) * (1 + rho), _ROUNDING))
    apart = np.where(h * k < 0, 0.5, 0.0)
    t = owens_t(h, (k - rho * h) / (h * root)) + owens_t(k, (h - rho * k) / (k * root))
    return np.asarray(0.5 * (ndtr(h) + ndtr(k)) - t - apart)


def ramp_covariance(mean: Array, other: Array, sd: Array, other_sd: Array, rho: Array) -> Array:
    """Cov[max(x, 0), max(y, 0)] for x ~ N(mean, sd^2), y ~ N(other, other_sd^2), correlation rho.

    Broadcasts.
    """
    h, k = (np.clip(m / np.maximum(s, _TINY), -_FAR, _FAR) for m, s in ((mean, sd), (other, other_sd)))
    spread = np.maximum((1 - rho) * (1 + rho), _ROUNDING)
    root = np.sqrt(spread)
    distance = np.square(h - rho * k) / spread + k**2
    product = (
        (h * k + rho) * normal_orthant(h, k, rho)
        + h * _density(k) * ndtr((h - rho * k) / root)
        + k * _density(h) * ndtr((k - rho * h) / root)
        + root / (2 * math.pi) * np.exp(-0.5 * distance)
    )
    each = [v * ndtr(v) + _density(v) for v in (h, k)]
    return np.asarray(np.where((sd > 0) & (other_sd > 0), sd * other_sd * (product - each[0] * each[1]), 0.0))
