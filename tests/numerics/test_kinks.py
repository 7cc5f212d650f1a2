"""Kinks are found where they are, and nowhere else; rules fit their functions."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.testing import assert_allclose
from scipy.special import erf, ndtr

from fltheory.numerics.fitting import fit_rule, rule_error
from fltheory.numerics.gaussian import GaussianRule, gaussian_mean
from fltheory.numerics.kinks import find_bends, find_kinks

KINKED = {
    "relu": (lambda z: np.maximum(z, 0), (0.0,)),
    "hard tanh": (lambda z: np.clip(z, -1, 1), (-1.0, 1.0)),
    "shifted": (lambda z: np.maximum(z - 0.3, 0), (0.3,)),
    "leaky": (lambda z: np.where(z > 0, z, 0.99 * z), (0.0,)),
    "selu": (lambda z: np.where(z > 0, z, 1.67 * np.expm1(np.minimum(z, 0))), (0.0,)),
    "cusp": (lambda z: np.exp(-np.abs(z)), (0.0,)),
    "log": (lambda z: np.log1p(np.abs(z)), (0.0,)),
    "tiny": (lambda z: 1e-9 * np.maximum(z + math.pi, 0), (-math.pi,)),
    "triangle": (lambda z: np.abs((z + 0.1) % 2 - 1), tuple(np.arange(-29.1, 30, 1.0))),
}
SMOOTH = {
    "line": lambda z: 3 * z - 1,
    "constant": lambda z: 0 * z + 2,
    "zero": lambda z: 0 * z,
    "square": np.square,
    "exp": np.exp,
    "tanh": np.tanh,
    "tanh 10 z": lambda z: np.tanh(10 * z),
    "erf": erf,
    "softplus 20": lambda z: np.logaddexp(0, 20 * z) / 20,
    "gelu": lambda z: z * ndtr(z),
    "bump": lambda z: np.exp(-z * z),
    "sinc": np.sinc,
    "wave": lambda z: np.sin(50 * z),
}
BENT = {
    "elu": (lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))), (0.0,)),
    "softsign": (lambda z: z / (1 + np.abs(z)), (0.0,)),
    "huber": (lambda z: np.where(np.abs(z) < 1, 0.5 * z**2, np.abs(z) - 0.5), (-1.0, 1.0)),
}


@pytest.mark.parametrize(("f", "kinks"), KINKED.values(), ids=KINKED.keys())
def test_kinks_are_found(f, kinks):
    assert_allclose(find_kinks(f), kinks, rtol=0, atol=2e-12)
    assert find_bends(f, find_kinks(f)) == ()


@pytest.mark.parametrize("f", SMOOTH.values(), ids=SMOOTH.keys())
def test_smooth_functions_have_none(f):
    assert find_kinks(f) == find_bends(f, ()) == ()


@pytest.mark.parametrize(("f", "bends"), BENT.values(), ids=BENT.keys())
def test_bends_are_no_kinks(f, bends):
    assert find_kinks(f) == ()
    assert_allclose(find_bends(f, ()), bends, rtol=0, atol=1e-4)


@given(st.floats(-29, 29), st.floats(-29, 29), st.floats(0.01, 100))
def test_kinks_are_where_they_were_put(first, second, slope):
    expected = sorted((first, second)) if abs(first - second) > 0.2 else [first]
    found = find_kinks(lambda z: sum(slope * np.maximum(z - kink, 0) for kink in expected))
    assert_allclose(found, expected, rtol=0, atol=2e-12)


# Rules that fit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*KINKED, *BENT, *SMOOTH])
def test_fitted_rules_are_accurate(name):
    f = SMOOTH.get(name) or (KINKED | BENT)[name][0]
    rule = fit_rule(f, find_kinks(f))
    assert rule_error(f, rule, 1.0) < 1e-8
    assert rule.is_uniform == (name in SMOOTH)


def test_a_rule_is_only_as_fine_as_it_has_to_be():
    assert [fit_rule(f, ()).length for f in (np.tanh, erf, np.square, SMOOTH["gelu"])] == [1.0] * 4
    assert fit_rule(SMOOTH["tanh 10 z"], ()).length == 1 / 8


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_what_no_rule_resolves_is_reported(scale):
    for f in (lambda z: np.tanh(3000 * z), np.sign, lambda z: np.sin(1e4 * z)):
        assert rule_error(f, fit_rule(f, find_kinks(f)), scale) > 1e-4
    assert rule_error(SMOOTH["zero"], GaussianRule(), scale) == 0.0
    assert rule_error(lambda z: np.exp(800 * z), GaussianRule(), scale) > 1e-4


@given(st.floats(0.2, 8), st.floats(0.2, 30))
def test_the_error_is_an_honest_estimate(scale, frequency):
    """Of E cos(k z), known in closed form: what is reported is at least a fifth of what is wrong."""
    f, rule = (lambda z: np.cos(frequency * z)), GaussianRule()
    mean = np.array([0.37 * scale])
    exact = np.cos(frequency * mean) * math.exp(-0.5 * (frequency * scale) ** 2)
    wrong = np.abs(gaussian_mean(f, mean, np.array([scale**2]), rule) - exact)[0]
    assert rule_error(f, rule, scale) >= 0.2 * wrong - 1e-12
