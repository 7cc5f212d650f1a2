"""One input under homogeneous phi: closed forms against sums on a fine grid."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose

from fltheory.meanfield.rectified.sites import OutsideDomainError, RectifiedSite

Z = np.linspace(-25.0, 25.0, 100_001)  # the kink is a node

sites = st.builds(
    RectifiedSite,
    st.sampled_from([(0.0, 1.0), (0.1, 1.0), (-0.5, 1.0), (-1.0, 0.0)]),
    st.floats(0.2, 2.0),
    st.floats(-0.4, 0.3),
)
latents = st.floats(-2.0, 2.0)


def weights(site: RectifiedSite, h: float, u: float, spread: float | None = None) -> tuple[np.ndarray, float]:
    """Probabilities of the nodes, and log of their sum before it was divided out."""
    e = site.spread if spread is None else spread
    minus, plus = site.slopes
    phi = np.where(Z > 0, plus, minus) * Z
    exponent = h * phi + 0.5 * site.curvature * phi**2 - 0.5 * (Z - u) ** 2 / e
    density = np.exp(exponent - exponent.max())
    log_sum = np.log(density.sum() * (Z[1] - Z[0])) + exponent.max() - 0.5 * np.log(2 * np.pi * e)
    return density / density.sum(), float(log_sum)


@given(sites, latents, latents)
@settings(max_examples=8, deadline=None)
def test_moments_are_those_of_a_grid(site: RectifiedSite, h: float, u: float) -> None:
    p, log_sum = weights(site, h, u)
    minus, plus = site.slopes
    phi = np.where(Z > 0, plus, minus) * Z
    activity, second, strain = site.averages(np.array(h), np.array(u))
    assert_allclose(site.log_partition(np.array(h), np.array(u)), log_sum, atol=1e-7)
    assert_allclose([activity, second], [p @ phi, p @ phi**2], atol=1e-6, rtol=1e-6)
    step = 1e-4 * site.spread
    up, down = (weights(site, h, u, site.spread + sign * step)[1] for sign in (1, -1))
    assert_allclose(strain, (up - down) / (2 * step), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("slopes", [(0.0, 1.0), (0.1, 1.0)])
def test_draws_have_these_moments(slopes: tuple[float, float]) -> None:
    """100,000 draws: 5 standard errors, a false alarm in a million; sees 2 % in <phi^2>."""
    site, n = RectifiedSite(slopes, 0.7, -0.1), 100_000
    z = site.draw(np.full(n, 0.6), np.full(n, -0.3), np.random.default_rng(0))
    phi = np.where(z > 0, slopes[1], slopes[0]) * z
    activity, second, _ = site.averages(np.array(0.6), np.array(-0.3))
    for values, expected in ((phi, activity), (phi**2, second)):
        error = values.std() / np.sqrt(n)
        assert abs(values.mean() - expected) < 5 * error
        assert abs(values.mean() - 1.05 * expected) > 5 * error  # the negative twin: 5 % off


def test_a_law_that_cannot_be_normalised_is_refused() -> None:
    with pytest.raises(OutsideDomainError):
        RectifiedSite((0.0, 1.0), 1.0, 1.5).log_partition(np.zeros(1), np.zeros(1))
