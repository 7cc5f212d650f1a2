"""Covariances of functions of Gaussian variables by Mehler's series."""

import math

import numpy as np

from fltheory.numerics.grids import Function, GaussianRule
from fltheory.numerics.ramps import ramp_covariance
from fltheory.numerics.validation import Array, Integers

Index = tuple[Integers, ...]
_TOLERANCE = 1e-12  # of a covariance, relative to the standard deviations
_WINDOW = 8  # terms from which those that follow are judged
_HALF_WIDTH = 10.0  # of the nodes: polynomials of high degree grow like exp(x^2 / 4)


class MehlerSeries:
    """sum_k c_ik c_jk rho_ij^k, with c_ik the k-th Hermite coefficient of f(mean_i + sd_i x).

    Functions with kinks are split into ramps max(z - kink, 0), whose covariance is known, and a
    rest. The coefficients of ramps fall off slowly, like k^(-5/4), so the series is summed for the
    difference between f and its ramps, where each term has a factor of the rest.

    Parameters
    ----------
    mean, sd
        Of the variables, (..., n).
    """

    def __init__(self, function: Function, mean: Array, sd: Array, rule: GaussianRule) -> None:
        spacing = 0.2 if rule.is_uniform else 0.05
        self._mean, self._sd = mean, np.broadcast_to(sd, mean.shape)
        self._nodes, log_weights = rule(mean, self._sd, _HALF_WIDTH, spacing)
        self._weights = np.exp(log_weights)
        # Degrees whose oscillations the nodes resolve; the widest gaps are those of Gauss-Legendre panels.
        widest = rule.refined(spacing, sd) * (1.0 if rule.is_uniform else 0.5 * math.pi)
        self._n_resolved = int((math.pi / widest - 4.0) ** 2)
        z = mean[..., None] + self._sd[..., None] * self._nodes
        self._jumps = {
            kink: float(jump)
            for kink, jump in zip(rule.kinks, rule.jumps(function), strict=True)
            if (np.abs(mean - kink) < _HALF_WIDTH * self._sd).any()  # else it is a line or zero
        }
        ramps = np.zeros_like(z)
        for kink, jump in self._jumps.items():
            ramps += jump * np.maximum(z - kink, 0.0)
        self._values, self._ramps = self._centred(function(z)), self._centred(ramps)
        self.variance = np.asarray((self._values**2 * self._weights).sum(-1))

    def _centred(self, values: Array) -> Array:
        return np.asarray(values - (values * self._weights).sum(-1, keepdims=True))

    def fully_correlated(self) -> tuple[Array, Array]:
        """The covariances at correlation 1 and -1, (..., n, n), for a smooth function."""
        weighted = self._values * self._weights
        return weighted @ self._values.mT, weighted @ self._values[..., ::-1].mT

    def ramp_covariance(self, rho: Array) -> Array:
        """The covariance of the ramps, (..., n, n)."""
        total, mean = np.zeros_like(rho), self._mean
        for kink, jump in self._jumps.items():
            for other, factor in self._jumps.items():
                total += jump * factor * _ramp_pairs(mean - kink, mean - other, self._sd, rho)
        return 0.5 * (total + total.mT)  # symmetric to the last bit

    def sum(self, rho: Array, n_terms: int) -> Array:
        """The series less that of the ramps, (..., n, n): each pair as far as it needs, to ``n_terms``.

        ``rho`` is symmetric; pairs that need no term have 0 there.
        """
        *batch, left, right = np.nonzero(np.triu(np.ones_like(rho), 1) * rho)
        pairs = _Pairs((*batch, left), (*batch, right), rho[*batch, left, right])
        terms = _Terms(self._values - self._ramps, self._ramps, self._nodes, self._weights)
        for k in range(1, min(n_terms, self._n_resolved) + 1):
            rest, ramps = terms.advance()
            pairs.add(rest, ramps)
            if k % _WINDOW == 0 and not pairs.drop_settled(k, np.sqrt(self.variance)):
                break
        total = np.zeros_like(rho)
        total[*batch, left, right] = total[*batch, right, left] = pairs.total
        return total


class _Terms:
    """The Hermite coefficients of functions without and with kinks, one order after the other."""

    def __init__(self, rest: Array, ramps: Array, nodes: Array, weights: Array) -> None:
        self._weighted, self._nodes = np.stack([rest, ramps]) * weights, nodes
        self._before, self._hermite, self._k = np.zeros_like(nodes), np.ones_like(nodes), 0

    def advance(self) -> tuple[Array, Array]:
        """The next coefficients of the rest and of the ramps, (..., n)."""
        self._k += 1
        raised = self._nodes * self._hermite - math.sqrt(self._k - 1) * self._before
        self._before, self._hermite = self._hermite, raised / math.sqrt(self._k)
        rest, ramps = (self._weighted * self._hermite).sum(-1)
        return rest, ramps


class _Pairs:
    """Sums over k for pairs of variables, until each is settled.

    ``left`` and ``right`` index arrays (..., n); ``rho`` (n_pairs,) are the correlations.
    """

    def __init__(self, left: Index, right: Index, rho: Array) -> None:
        self._left, self._right, self._rho = left, right, rho
        self._power, self._active = np.ones_like(rho), np.arange(len(rho))
        self._recent: list[Array] = []
        self.total = np.zeros_like(rho)

    def add(self, rest: Array, ramps: Array) -> None:
        """The next term, from coefficients (..., n) of the parts that sum to f."""
        self._power *= self._rho
        left, right = self._left, self._right
        product = rest[left] * (rest[right] + ramps[right]) + ramps[left] * rest[right]
        self.total[self._active] += self._power * product
        self._recent.append(np.abs(np.stack([rest, ramps])))

    def drop_settled(self, k: int, sd: Array) -> bool:
        """Drop pairs whose further terms are negligible; whether any is left.

        Coefficients fall off like a power of k or faster, so what follows k recent terms is at most k
        times the largest of them. (Recent: functions may be even or odd.)
        """
        rest, ramps = np.max(self._recent, axis=0)
        left, right = self._left, self._right
        largest = rest[left] * (rest[right] + ramps[right]) + ramps[left] * rest[right]
        kept = k * np.abs(self._power) * largest > _TOLERANCE * sd[left] * sd[right]
        self._left, self._right = (tuple(part[kept] for part in index) for index in (left, right))
        self._rho, self._power, self._active = (v[kept] for v in (self._rho, self._power, self._active))
        self._recent.clear()
        return bool(kept.any())


def _ramp_pairs(mean: Array, other: Array, sd: Array, rho: Array) -> Array:
    return ramp_covariance(mean[..., :, None], other[..., None, :], sd[..., :, None], sd[..., None, :], rho)
