"""Gaussian averages against closed forms: polynomials, exponentials, the arcsine and arccosine kernels."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.testing import assert_allclose
from scipy.special import erf

from fltheory.numerics.gaussian import (
    gaussian_covariance,
    gaussian_mean,
    gaussian_second_moment,
    gaussian_slope,
    grid_for,
    standard_grid,
)

means = st.floats(-3, 3)
variances = st.floats(0, 4)
correlations = st.floats(-0.9, 0.9)


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


@given(st.floats(0.1, 10))
def test_a_grid_resolves_steps_of_its_scale(scale):
    nodes, log_weights = grid_for(scale)
    exact = 2 / math.pi * math.asin(2 * scale**2 / (1 + 2 * scale**2))
    assert_allclose(np.exp(log_weights) @ erf(scale * nodes) ** 2, exact, atol=1e-8)


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


@given(means, st.floats(0.01, 4))
def test_mean_of_relu(mean, v):
    sd = math.sqrt(v)
    density = math.exp(-0.5 * mean**2 / v) / math.sqrt(2 * math.pi)
    exact = mean * 0.5 * math.erfc(-mean / (sd * math.sqrt(2))) + sd * density
    # A kink between nodes costs h^2 / 8 times the density there, h = 0.2 sd.
    assert_allclose(gaussian_mean(relu, np.array([mean]), np.array([v])), exact, atol=0.005 * sd)


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


@given(st.floats(0.1, 1.4), st.floats(0.1, 1.4), correlations)
def test_arcsine_law(a, b, rho):
    c = pair(a, b, rho)
    scale = np.sqrt(1 + 2 * np.diagonal(c))
    exact = 2 / math.pi * np.arcsin(2 * c / np.outer(scale, scale))
    assert_allclose(gaussian_second_moment(erf, c), exact, atol=1e-6)


@given(st.floats(0.1, 2), st.floats(0.1, 2), st.floats(-1, 1))
def test_arccosine_law(a, b, rho):
    angle = math.acos(rho)
    exact = a * b * (math.sin(angle) + (math.pi - angle) * rho) / (2 * math.pi)
    found = gaussian_second_moment(relu, pair(a, b, rho))
    assert_allclose(found[0, 1], exact, atol=4e-3 * a * b)
    assert_allclose(np.diagonal(found), [a * a / 2, b * b / 2], rtol=1e-3)


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
