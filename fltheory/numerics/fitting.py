"""The quadrature that fits a function, and what it leaves: both found from the function's values."""

import math

import numpy as np

from fltheory.numerics.grids import Function, GaussianRule, standard_grid
from fltheory.numerics.kinks import find_bends
from fltheory.numerics.validation import Array

_RULES = ((7.0, 0.35), (9.0, 0.2))  # half-width and spacing of those in use
_MORE = 2.3  # as many nodes has the rule that they are measured by; not a multiple
_ACCURATE = 1e-8  # error at standard deviation 1 that needs no shorter length
_SHORTEST = 1 / 32
_UNFOLLOWED = 0.3  # relative error of interpolation from which a function is not resolved at all
_GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)
_MEANS = np.array([0.0, 0.37, -0.81, 1.6])  # over the standard deviation


def fit_rule(function: Function, kinks: tuple[float, ...]) -> GaussianRule:
    """A rule cut where the function is not smooth and as fine as it is steep, as far as that helps."""
    bends, length = find_bends(function, kinks), 1.0
    while length >= _SHORTEST:
        rule = GaussianRule(kinks, bends, length)
        if rule_error(function, rule, 1.0) < _ACCURATE:
            return rule
        length *= 0.5
    return GaussianRule(kinks, bends)


def rule_error(function: Function, rule: GaussianRule, scale: float) -> float:
    """The error of averages of f and f^2 at this standard deviation, relative to the root of f^2 and to f^2.

    Of the worse of the rules in use against 2.3 times as many nodes, at a few means of the order of
    ``scale``. An oscillation faster than the nodes may average out on any of them by chance: there
    it is by how much f between nodes differs from what its neighbours say.
    """
    with np.errstate(all="ignore"):
        error = max(_change(function, rule, scale, *grid) for grid in _RULES)
        misfit = _misfit(function, scale, rule.refined(_RULES[0][1], np.array([scale])))
    error = max(error, misfit if misfit > _UNFOLLOWED else 0.0)
    return error if math.isfinite(error) else math.inf


def _misfit(function: Function, scale: float, spacing: float) -> float:
    """Root mean square error of linear interpolation at irregular points between nodes, relative to f's."""
    nodes, log_weights = standard_grid(_RULES[0][0], spacing)
    share = np.arange(len(nodes) - 1) * _GOLDEN % 1.0
    values = np.asarray(function(scale * nodes), dtype=float)
    between = np.asarray(function(scale * (nodes[:-1] + share * spacing)), dtype=float)
    error = values[:-1] + share * np.diff(values) - between
    weights = np.exp(log_weights[:-1])
    size = (weights * between**2).sum()
    return math.sqrt((weights * error**2).sum() / size) if size != 0 else 0.0


def _change(function: Function, rule: GaussianRule, scale: float, half_width: float, spacing: float) -> float:
    """By how much averages change with more nodes."""
    few, many = (_averages(function, rule, scale, half_width, h) for h in (spacing, spacing / _MORE))
    size = math.sqrt(many[1].max())
    return float((np.abs(few - many).max(1) / (size, size**2)).max()) if size != 0 else 0.0


def _averages(
    function: Function, rule: GaussianRule, scale: float, half_width: float, spacing: float
) -> Array:
    """E f(z) and E f(z)^2, (2, n_means)."""
    mean, sd = scale * _MEANS, np.full(len(_MEANS), scale)
    x, log_weights = rule(mean, sd, half_width, spacing)
    values, weights = function(mean[:, None] + scale * x), np.exp(log_weights)
    return np.stack([(values * weights).sum(-1), (values**2 * weights).sum(-1)])
