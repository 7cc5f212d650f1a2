"""Averages of functions of Gaussian variables."""

import numpy as np

from fltheory.numerics.grids import (
    SMOOTH as SMOOTH,
    Function as Function,
    GaussianRule as GaussianRule,
    standard_grid as standard_grid,
)
from fltheory.numerics.mehler import MehlerSeries
from fltheory.numerics.validation import Array, Booleans

_FULL = 1.0 - 1e-12  # a correlation that is 1 but for rounding


def gaussian_mean(function: Function, mean: Array, variance: Array, rule: GaussianRule = SMOOTH) -> Array:
    """E f(z) for z ~ N(mean, variance), elementwise, of the shape of ``mean``."""
    sd = np.sqrt(np.maximum(variance, 0.0))
    x, log_weights = rule(mean, sd)
    return np.asarray((function(mean[..., None] + sd[..., None] * x) * np.exp(log_weights)).sum(-1))


def gaussian_slope(function: Function, mean: Array, variance: Array, rule: GaussianRule = SMOOTH) -> Array:
    """E f'(z) for z ~ N(mean, variance), without f', by parts; of the shape of ``mean``."""
    sd = np.sqrt(np.maximum(variance, 1e-20))
    x, log_weights = rule(mean, sd)
    values = function(mean[..., None] + sd[..., None] * x)
    return np.asarray((values * (x * np.exp(log_weights))).sum(-1) / sd)


def gaussian_second_moment(function: Function, covariance: Array, rule: GaussianRule = SMOOTH) -> Array:
    """E f(z) f(z)^T for z ~ N(0, covariance): the kernel of a layer at the prior, (n, n)."""
    centre = np.zeros(len(covariance))
    mean = gaussian_mean(function, centre, np.diagonal(covariance), rule)
    return gaussian_covariance(function, centre, covariance, rule) + np.outer(mean, mean)


def gaussian_covariance(
    function: Function,
    mean: Array,
    covariance: Array,
    rule: GaussianRule = SMOOTH,
    n_terms: int = 10_000,
) -> Array:
    """Cov[f(z_i), f(z_j)] for z ~ N(mean, covariance), elementwise f.

    Mehler's series in the correlation coefficient, sum_k c_ik c_jk rho_ij^k with c_ik the k-th
    Hermite coefficient of f(mean_i + sd_i x): docs/theory.md (10r). Each pair takes as many terms as
    it needs. Where |rho_ij| = 1 (the diagonal, equal inputs) the average is over one variable and
    exact at any number of terms. If f has kinks, the series runs for what the covariance of its
    ramps, known exactly, leaves: nothing if f is piecewise linear. Between kinks that are curved it
    ends with errors of about 1e-9 (1e-8) where |rho| is nearly (exactly) 1.

    Parameters
    ----------
    mean
        Shape (..., n).
    covariance
        Shape (..., n, n).
    n_terms
        At most so many.

    Returns
    -------
    Array
        Shape (..., n, n).
    """
    variance = np.diagonal(covariance, axis1=-2, axis2=-1)
    sd = np.sqrt(np.maximum(variance, 0.0))
    scale = np.where(sd > 0, sd, 1.0)
    rho = np.clip(covariance / (scale[..., :, None] * scale[..., None, :]), -1.0, 1.0)
    series = MehlerSeries(function, mean, sd, rule)
    exact, value = _one_variable(series, mean, sd, rho, rule)
    total = series.sum(np.where(exact, 0.0, rho), n_terms)
    if not rule.is_uniform:
        total = total + series.ramp_covariance(rho)
    return np.asarray(np.where(exact, value, total))


def _one_variable(
    series: MehlerSeries, mean: Array, sd: Array, rho: Array, rule: GaussianRule
) -> tuple[Booleans, Array]:
    """Which pairs are functions of one variable on the same nodes, and their covariance, (..., n, n)."""
    if rule.is_uniform:
        same, opposite = series.fully_correlated()
        diagonal = np.eye(rho.shape[-1], dtype=bool)
        return diagonal | (np.abs(rho) > _FULL), np.where(rho < -_FULL, opposite, same)
    norm, sd = np.sqrt(series.variance), np.broadcast_to(sd, mean.shape)
    alike = (rho > _FULL) & (mean[..., :, None] == mean[..., None, :])
    alike &= np.isclose(sd[..., :, None], sd[..., None, :], rtol=1e-12, atol=0.0)
    return alike | np.eye(rho.shape[-1], dtype=bool), norm[..., :, None] * norm[..., None, :]
