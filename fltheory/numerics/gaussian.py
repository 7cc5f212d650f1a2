"""Averages over Gaussian variables on uniform grids, where they are spectrally accurate."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import logsumexp

from fltheory.numerics.validation import Array

Function = Callable[[Any], Any]
_FULL = 1.0 - 1e-12  # a correlation that is 1 but for rounding


def standard_grid(half_width: float = 7.0, spacing: float = 0.35) -> tuple[Array, Array]:
    """Nodes of a uniform grid for N(0, 1) and the logarithms of their weights, both (G,)."""
    n_side = math.ceil(half_width / spacing)
    nodes = np.asarray(spacing * np.arange(-n_side, n_side + 1), dtype=np.float64)
    log_weights = -0.5 * nodes**2
    return nodes, np.asarray(log_weights - logsumexp(log_weights), dtype=np.float64)


def grid_for(scale: float, half_width: float = 7.0, spacing: float = 0.35) -> tuple[Array, Array]:
    """A grid for N(0, 1) that also resolves f(scale x) for a function f that varies over lengths of 1.

    Gauss-Hermite rules do not: 64 nodes are off by 1e-2 for an error function at scale 5.
    """
    return standard_grid(half_width, spacing / min(max(1.0, scale), 10.0))


def gaussian_mean(function: Function, mean: Array, variance: Array) -> Array:
    """E f(z) for z ~ N(mean, variance), elementwise, of the shape of ``mean``."""
    sd = np.sqrt(np.maximum(variance, 0.0))
    nodes, log_weights = grid_for(float(sd.max(initial=1.0)), half_width=9.0, spacing=0.2)
    return np.asarray(function(mean[..., None] + sd[..., None] * nodes) @ np.exp(log_weights))


def gaussian_slope(function: Function, mean: Array, variance: Array) -> Array:
    """E f'(z) for z ~ N(mean, variance), without f', by parts; of the shape of ``mean``."""
    sd = np.sqrt(np.maximum(variance, 1e-20))
    nodes, log_weights = grid_for(float(sd.max(initial=1.0)), half_width=9.0, spacing=0.2)
    values = function(mean[..., None] + sd[..., None] * nodes)
    return np.asarray(values @ (nodes * np.exp(log_weights)) / sd)


def gaussian_second_moment(function: Function, covariance: Array) -> Array:
    """E f(z) f(z)^T for z ~ N(0, covariance): the kernel of a layer at the prior, (n, n)."""
    centre = np.zeros(len(covariance))
    mean = gaussian_mean(function, centre, np.diagonal(covariance))
    return gaussian_covariance(function, centre, covariance) + np.outer(mean, mean)


def gaussian_covariance(function: Function, mean: Array, covariance: Array, n_terms: int = 32) -> Array:
    """Cov[f(z_i), f(z_j)] for z ~ N(mean, covariance), elementwise f.

    Mehler's series in the correlation coefficient, sum_k c_ik c_jk rho_ij^k with c_ik the k-th
    Hermite coefficient of f(mean_i + sd_i x). Where |rho_ij| = 1 (the diagonal, equal inputs) the
    average is over one variable and exact at any number of terms.

    Parameters
    ----------
    mean
        Shape (..., n).
    covariance
        Shape (..., n, n).

    Returns
    -------
    Array
        Shape (..., n, n).
    """
    variance = np.diagonal(covariance, axis1=-2, axis2=-1)
    sd = np.sqrt(np.maximum(variance, 0.0))
    nodes, log_weights = grid_for(float(sd.max(initial=1.0)), half_width=9.0, spacing=0.2)
    weights = np.exp(log_weights)
    values = function(mean[..., None] + sd[..., None] * nodes)  # (..., n, G)
    values = values - (values @ weights)[..., None]
    scale = np.where(sd > 0, sd, 1.0)
    rho = np.clip(covariance / (scale[..., :, None] * scale[..., None, :]), -1.0, 1.0)
    total, power = np.zeros_like(rho), np.ones_like(rho)
    before, hermite = np.zeros_like(nodes), np.ones_like(nodes)
    for k in range(1, n_terms + 1):
        before, hermite = hermite, (nodes * hermite - math.sqrt(k - 1) * before) / math.sqrt(k)
        power = power * rho
        coefficient = values @ (weights * hermite)  # (..., n)
        total = total + coefficient[..., :, None] * coefficient[..., None, :] * power
    same, opposite = ((values * weights) @ other.mT for other in (values, values[..., ::-1]))
    return np.asarray(np.where(rho > _FULL, same, np.where(rho < -_FULL, opposite, total)))
