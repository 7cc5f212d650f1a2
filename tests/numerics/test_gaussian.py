"""Gaussian averages against closed forms: polynomials, exponentials, the arcsine and arccosine kernels."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.special import erf, ndtr

from fltheory.numerics.fitting import fit_rule
from fltheory.numerics.gaussian import (
    GaussianRule,
    gaussian_covariance,
    gaussian_mean,
    gaussian_second_moment,
    gaussian_slope,
    standard_grid,
)
from fltheory.numerics.kinks import find_kinks
from fltheory.numerics.ramps import normal_orthant, ramp_covariance

means = st.floats(-3, 3)
variances = st.floats(0, 4)


def relu(z):
    return np.maximum(z, 0.0)


def pair(a, b, rho):
    """A covariance (2, 2) from two standard deviations and a correlation."""
    return np.array([[a * a, rho * a * b], [rho * a * b, b * b]])


def random_covariance(seed, n, scale=1.0):
    factor = np.random.default_rng(seed).normal(size=(n, n + 2))
    return scale * factor @ factor.T / (n + 2)


# Grids -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("power", "moment"), [(0, 1), (1, 0), (2, 1), (3, 0), (4, 3), (6, 15), (8, 105)])
def test_standard_grid_has_the_moments_of_a_normal_variable(power, moment):
    nodes, log_weights = standard_grid(half_width=9.0)
    assert_allclose(np.exp(log_weights) @ nodes**power, moment, rtol=1e-10, atol=1e-10)


@given(st.floats(0.1, 20))
def test_a_rule_resolves_steps_of_its_scale(scale):
    nodes, log_weights = GaussianRule()(np.zeros(1), np.array([scale]), half_width=7.0, spacing=0.35)
    exact = 2 / math.pi * math.asin(2 * scale**2 / (1 + 2 * scale**2))
    assert_allclose(np.exp(log_weights) @ erf(scale * nodes) ** 2, exact, atol=1e-8)


@given(hnp.arrays(np.float64, (3, 2), elements=st.floats(-40, 40)), st.floats(0, 30))
def test_weights_of_a_rule_with_cuts_sum_to_one_and_its_nodes_ascend(mean, sd):
    x, log_weights = GaussianRule((-1.0, 1.0), (0.3,))(mean, np.full_like(mean, sd))
    assert x.shape == log_weights.shape == (3, 2, x.shape[-1])
    assert np.isfinite(log_weights).all() and (np.diff(x) >= 0).all()
    assert_allclose(np.exp(log_weights).sum(-1), 1, rtol=1e-13)
    assert_allclose((np.exp(log_weights) * x**2).sum(-1), 1, rtol=1e-11)


def test_a_coarse_grid_does_not_resolve_a_steep_step():
    nodes, log_weights = standard_grid()
    exact = 2 / math.pi * math.asin(200 / 201)
    assert abs(np.exp(log_weights) @ erf(10 * nodes) ** 2 - exact) > 1e-3


# Means -------------------------------------------------------------------------------------------


@given(means, variances)
def test_mean_of_an_error_function(mean, variance):
    value = gaussian_mean(erf, np.array(mean), np.array(variance))
    assert_allclose(value, math.erf(mean / math.sqrt(1 + 2 * variance)), atol=1e-12)


@given(means, variances)
def test_mean_of_polynomials(mean, v):
    m, variance = np.array([mean]), np.array([v])
    exact = [mean, mean**2 + v, mean**3 + 3 * mean * v, mean**4 + 6 * mean**2 * v + 3 * v**2]
    for power, value in enumerate(exact, start=1):
        found = gaussian_mean(lambda z, k=power: z**k, m, variance)
        assert_allclose(found, [value], rtol=1e-9, atol=1e-9)


@given(means, st.floats(0, 2), st.floats(-1.5, 1.5))
def test_mean_of_waves_and_exponentials(mean, v, k):
    m, variance = np.array([mean]), np.array([v])
    wave = gaussian_mean(lambda z: np.cos(k * z), m, variance)
    assert_allclose(wave, math.cos(k * mean) * math.exp(-k * k * v / 2), atol=1e-10)
    growth = gaussian_mean(lambda z: np.exp(k * z), m, variance)
    assert_allclose(growth, math.exp(k * mean + k * k * v / 2), rtol=1e-9)


@given(means, st.floats(1e-6, 100), st.floats(-2, 2))
def test_mean_of_a_ramp(mean, v, kink):
    sd, m = math.sqrt(v), mean - kink
    density = math.exp(-0.5 * m**2 / v) / math.sqrt(2 * math.pi)
    exact = m * 0.5 * math.erfc(-m / (sd * math.sqrt(2))) + sd * density
    found = gaussian_mean(lambda z: relu(z - kink), np.array([mean]), np.array([v]), GaussianRule((kink,)))
    assert_allclose(found, exact, rtol=1e-12, atol=1e-13 * sd)


def test_a_rule_that_knows_no_kink_is_of_second_order_there():
    """Negative twin: what the cut is for."""
    assert abs(gaussian_mean(relu, np.array([0.09]), np.ones(1))[0] - 0.4455615) > 1e-4
    found = gaussian_mean(relu, np.array([0.09]), np.ones(1), GaussianRule((0.0,)))
    exact = 0.09 * ndtr(0.09) + math.exp(-0.5 * 0.09**2) / math.sqrt(2 * math.pi)
    assert_allclose(found, exact, rtol=1e-14)


def test_mean_keeps_shapes_and_no_variance_means_the_value_itself():
    mean = np.linspace(-2, 2, 24).reshape(2, 3, 4)
    assert_allclose(gaussian_mean(np.tanh, mean, np.zeros_like(mean)), np.tanh(mean), atol=1e-14)
    # Rounding may leave a variance slightly below zero.
    assert_allclose(gaussian_mean(np.tanh, mean, np.full_like(mean, -1e-18)), np.tanh(mean), atol=1e-14)


# Slopes ------------------------------------------------------------------------------------------


@given(means, st.floats(1e-4, 4))
def test_slope_of_an_error_function(mean, v):
    exact = 2 / math.sqrt(math.pi * (1 + 2 * v)) * math.exp(-(mean**2) / (1 + 2 * v))
    assert_allclose(gaussian_slope(erf, np.array([mean]), np.array([v])), exact, atol=1e-9)


@given(means, variances)
def test_slope_is_the_mean_of_the_derivative(mean, v):
    m, variance = np.array([mean]), np.array([v])
    slope = gaussian_mean(lambda z: 1 - np.tanh(z) ** 2, m, variance)
    assert_allclose(gaussian_slope(np.tanh, m, variance), slope, atol=2e-6)


@given(means, st.floats(1e-3, 4))
def test_slope_of_a_line_is_the_line_s(mean, v):
    assert_allclose(gaussian_slope(lambda z: 3 * z - 1, np.array([mean]), np.array([v])), 3, rtol=1e-8)


# Covariances -------------------------------------------------------------------------------------


@given(st.floats(0.1, 7), st.floats(0.1, 7), st.floats(-1, 1))
def test_arcsine_law(a, b, rho):
    c = pair(a, b, rho)
    scale = np.sqrt(1 + 2 * np.diagonal(c))
    exact = 2 / math.pi * np.arcsin(2 * c / np.outer(scale, scale))
    assert_allclose(gaussian_second_moment(erf, c), exact, rtol=1e-9, atol=1e-11)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.floats(-1, 1))
def test_arccosine_law(a, b, rho):
    angle = math.acos(rho)
    exact = a * b * (math.sin(angle) + (math.pi - angle) * rho) / (2 * math.pi)
    found = gaussian_second_moment(relu, pair(a, b, rho), GaussianRule((0.0,)))
    assert_allclose(found[0, 1], exact, atol=1e-13 * a * b)
    assert_allclose(np.diagonal(found), [a * a / 2, b * b / 2], rtol=1e-13)


@given(means, means, st.floats(0.05, 2), st.floats(0.05, 2), st.floats(-1, 1))
def test_covariance_of_polynomials_is_exact(m, n, a, b, rho):
    mean, c = np.array([m, n]), pair(a, b, rho)
    assert_allclose(gaussian_covariance(lambda z: z, mean, c), c, atol=1e-9)
    squares = 2 * c**2 + 4 * np.outer(mean, mean) * c
    assert_allclose(gaussian_covariance(np.square, mean, c), squares, rtol=1e-9, atol=1e-8)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.05, 1), st.floats(0.05, 1), st.floats(-1, 1))
def test_covariance_of_exponentials(m, n, a, b, rho):
    mean, c = np.array([m, n]), pair(a, b, rho)
    each = np.exp(mean + np.diagonal(c) / 2)
    exact = np.outer(each, each) * np.expm1(c)
    assert_allclose(gaussian_covariance(np.exp, mean, c), exact, rtol=1e-8, atol=1e-9)


@given(st.integers(0, 1000), st.floats(0.1, 2))
def test_covariance_is_symmetric_positive_and_has_the_variances_on_its_diagonal(seed, scale):
    c = random_covariance(seed, 5, scale)
    mean = np.random.default_rng(seed).normal(size=5)
    found = gaussian_covariance(np.tanh, mean, c)
    assert_allclose(found, found.T, atol=1e-14)
    assert np.linalg.eigvalsh(found).min() > -1e-9
    variance = np.diagonal(c)
    square = gaussian_mean(lambda z: np.tanh(z) ** 2, mean, variance)
    assert_allclose(np.diagonal(found), square - gaussian_mean(np.tanh, mean, variance) ** 2, atol=1e-12)


def test_one_term_of_the_series_is_the_linear_response():
    c, mean = random_covariance(1, 4), np.linspace(-1, 1, 4)
    slope = gaussian_slope(np.tanh, mean, np.diagonal(c))
    found = gaussian_covariance(np.tanh, mean, c, n_terms=1)
    off = ~np.eye(4, dtype=bool)
    assert_allclose(found[off], (np.outer(slope, slope) * c)[off], atol=1e-10)


@given(means, st.floats(1, 100), st.integers(1, 3))
def test_equal_and_opposite_variables_are_exact_at_any_number_of_terms(mean, v, n_terms):
    """Equal inputs have equal rows: the rank of a kernel shows."""
    mean, sign = np.array([mean, mean, -mean]), np.array([1, 1, -1])
    found = gaussian_covariance(np.tanh, mean, v * np.outer(sign, sign), n_terms=n_terms)
    assert_allclose(found, found[0, 0] * np.outer(sign, sign), rtol=1e-12)
    assert np.linalg.matrix_rank(found, tol=1e-12) == 1


def test_covariances_of_many_are_those_of_each():
    means = np.random.default_rng(0).normal(size=(3, 4))
    matrices = np.stack([random_covariance(seed, 4) for seed in range(3)])
    one_by_one = [gaussian_covariance(np.tanh, m, c) for m, c in zip(means, matrices, strict=True)]
    assert_allclose(gaussian_covariance(np.tanh, means, matrices), one_by_one, atol=1e-11)


def test_a_variable_without_variance_has_no_covariance():
    c = np.diag([1.0, 0.0, 2.0])
    c[0, 2] = c[2, 0] = 0.5
    found = gaussian_covariance(np.tanh, np.array([0.0, 1.0, -1.0]), c)
    assert_allclose([found[1], found[:, 1]], 0, atol=1e-30)
    assert found[0, 2] > 0.1


# Any function, any correlation -------------------------------------------------------------------


def panels(edges, n=24):
    """Gauss-Legendre nodes and weights on panels between sorted edges (..., k + 1): (..., k n)."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    middle, half = 0.5 * (edges[..., 1:] + edges[..., :-1]), 0.5 * np.diff(edges)
    shape = (*edges.shape[:-1], -1)
    return (middle[..., None] + half[..., None] * nodes).reshape(shape), (half[..., None] * weights).reshape(
        shape
    )


def normal_panels(cuts):
    edges = np.linspace(-9, 9, 41)
    cuts = np.clip(cuts, -9, 9)
    x, w = panels(np.sort(np.concatenate([cuts, np.broadcast_to(edges, (*cuts.shape[:-1], 41))], axis=-1)))
    return x, w * np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)


def covariance_by_two_integrals(f, cuts, mean, sd, rho):
    """Cov[f(x), f(y)] by an integral over y at given x inside one over x."""
    cuts, spread = np.array(cuts), math.sqrt((1 - rho) * (1 + rho))
    near = np.array([-9, -4, -2, -1, -0.4, 0, 0.4, 1, 2, 4, 9]) * spread
    kinks = [(cuts - mean[0]) / sd[0]]
    if rho:
        kinks += [((cuts - mean[1]) / sd[1] + shift) / rho for shift in near]
    x, weights = normal_panels(np.concatenate(kinks))
    centre, width = mean[1] + rho * sd[1] * x, sd[1] * spread
    inner = f(centre)
    if width:
        y, inside = normal_panels((cuts - centre[:, None]) / width)
        inner = (f(centre[:, None] + width * y) * inside).sum(1)
    means = []
    for m, s in zip(mean, sd, strict=True):
        y, inside = normal_panels((cuts - m) / s)
        means.append(inside @ f(m + s * y))
    return weights @ (f(mean[0] + sd[0] * x) * inner) - means[0] * means[1]


PIECEWISE = {
    "relu": lambda z: np.maximum(z, 0),
    "hard tanh": lambda z: np.clip(z, -1, 1),
    "shifted": lambda z: np.maximum(z - 0.3, 0) - 0.4 * z,
    "ramps": lambda z: np.maximum(z - 1 / 3, 0) - math.sqrt(2) * np.maximum(z + math.pi, 0),
}
SMOOTH = {
    "tanh": np.tanh,
    "erf": erf,
    "softplus": lambda z: np.logaddexp(0, z),
    "gelu": lambda z: z * ndtr(z),
    "bump": lambda z: np.exp(-z * z),
    "wave": np.sin,
}
STEEP = {"tanh 10 z": lambda z: np.tanh(10 * z), "softplus 20": lambda z: np.logaddexp(0, 20 * z) / 20}
CURVED = {
    "selu": lambda z: np.where(z > 0, z, 1.67 * np.expm1(np.minimum(z, 0))),
    "cusp": lambda z: np.exp(-np.abs(z)),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    "softsign": lambda z: z / (1 + np.abs(z)),
}
CORRELATIONS = (0.0, 0.5, -0.7, 0.95, -0.99, 0.999, 0.999999, -0.999999, 1.0, -1.0)


def errors(f, sd, correlations):
    """Of the covariance and the mean, over the product of standard deviations."""
    rule, mean, sd = fit_rule(f, find_kinks(f)), np.array([0.2, -0.4]), np.array(sd)
    cuts = [*rule.kinks, *rule.bends] or [-0.1, -0.03, 0.03, 0.1]
    found = [gaussian_covariance(f, mean, pair(*sd, rho), rule)[0, 1] for rho in correlations]
    exact = [covariance_by_two_integrals(f, cuts, mean, sd, rho) for rho in correlations]
    return np.abs(np.array(found) - exact) / (sd[0] * sd[1])


@pytest.mark.parametrize("f", (PIECEWISE | SMOOTH).values(), ids=(PIECEWISE | SMOOTH).keys())
@pytest.mark.parametrize("sd", [(0.3, 0.3), (1.0, 1.3), (5.0, 4.0)], ids=str)
def test_covariance_at_any_correlation(f, sd):
    assert errors(f, sd, CORRELATIONS).max() < 1e-11


@pytest.mark.parametrize("f", STEEP.values(), ids=STEEP.keys())
def test_covariance_of_steep_functions(f):
    assert errors(f, (1.0, 1.3), CORRELATIONS).max() < 1e-11


@pytest.mark.parametrize("f", CURVED.values(), ids=CURVED.keys())
@pytest.mark.parametrize("sd", [(0.3, 0.3), (1.0, 1.3)], ids=str)
def test_covariance_between_curved_kinks(f, sd):
    """The documented accuracy."""
    assert errors(f, sd, (0.0, 0.5, -0.7, 0.95)).max() < 1e-11
    assert errors(f, sd, (-0.99, 0.999, 0.999999)).max() < 2e-9
    assert errors(f, sd, (-1.0,)).max() < 1e-8


def test_a_kink_that_the_rule_does_not_know_shows():
    f, mean, c = PIECEWISE["hard tanh"], np.array([0.2, -0.4]), pair(1.0, 1.3, 0.95)
    exact = covariance_by_two_integrals(f, (-1, 1), mean, (1.0, 1.3), 0.95)
    assert abs(gaussian_covariance(f, mean, c)[0, 1] - exact) > 1e-5


@pytest.mark.parametrize("f", (CURVED | PIECEWISE).values(), ids=(CURVED | PIECEWISE).keys())
def test_equal_variables_have_equal_rows(f):
    c = random_covariance(3, 4)
    c[1], c[:, 1] = c[0], c[:, 0]
    found = gaussian_covariance(f, np.array([0.5, 0.5, -1.0, 2.0]), c, fit_rule(f, find_kinks(f)))
    assert_allclose(found[0], found[1], rtol=1e-12, atol=1e-14)
    assert_allclose(found, found.T, rtol=0, atol=0)


def test_covariances_of_many_with_kinks_are_those_of_each():
    means, rule = np.random.default_rng(0).normal(size=(3, 4)), GaussianRule((-1.0, 1.0))
    matrices = np.stack([random_covariance(seed, 4) for seed in range(3)])
    f = PIECEWISE["hard tanh"]
    one_by_one = [gaussian_covariance(f, m, c, rule) for m, c in zip(means, matrices, strict=True)]
    assert_allclose(gaussian_covariance(f, means, matrices, rule), one_by_one, atol=1e-12)


# Ramps -------------------------------------------------------------------------------------------


@given(st.floats(-4, 4), st.floats(-4, 4), st.floats(-0.99, 0.99))
def test_orthant_probability(h, k, rho):
    spread = math.sqrt(1 - rho**2)
    exact, _ = quad(
        lambda x: math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi) * ndtr((k - rho * x) / spread),
        -12,
        h,
        points=[k / rho] if rho and -12 < k / rho < h else None,
        epsabs=1e-13,
        limit=200,
    )
    assert_allclose(normal_orthant(np.array(h), np.array(k), np.array(rho)), exact, atol=1e-11)


@given(st.floats(-4, 4), st.floats(-4, 4))
def test_orthant_probability_of_dependent_and_independent_variables(h, k):
    h, k = np.array(h), np.array(k)
    assert_allclose(normal_orthant(h, k, np.array(1.0)), ndtr(min(h, k)), atol=1e-14)
    assert_allclose(normal_orthant(h, k, np.array(-1.0)), max(ndtr(h) + ndtr(k) - 1, 0), atol=1e-14)
    assert_allclose(normal_orthant(h, k, np.array(0.0)), ndtr(h) * ndtr(k), atol=1e-14)


def test_ramps_far_from_their_kinks_are_lines_or_nothing():
    one = np.ones(1)
    for rho in (-1.0, 0.3, 1.0):
        assert_allclose(ramp_covariance(1e9 * one, 1e6 * one, 2 * one, one, rho * one), 2 * rho, rtol=1e-12)
        assert_allclose(ramp_covariance(-1e9 * one, one, 2 * one, one, rho * one), 0, atol=1e-12)
        assert_allclose(ramp_covariance(one, one, 0 * one, one, rho * one), 0, atol=0)
