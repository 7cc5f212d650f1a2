"""Exact statements that tie deep solutions to one another: docs/theory.md, section 10."""

import numpy as np
import pytest
from attrs import evolve, frozen
from deep_cases import blocks, orthogonal

import fltheory as flt

# J is off by about 1e-4 of itself on quasi-random points, much less in differences of nearby problems.
STEP = 0.03
SAMPLING = 0.02  # relative, of derivatives by differences: 3 % in a law is seen


@pytest.fixture(scope="module")
def solution():
    return orthogonal(24).solve()


def slope(factory):
    """dJ / dlog of what a factory scales."""
    low, high = (-factory(np.exp(sign * STEP)).solve().free_energy for sign in (-1, 1))
    return (high - low) / (2 * STEP)


def test_derivative_in_the_temperature(solution):
    found = slope(lambda c: orthogonal(24, scaled_temperature=0.02 * c))
    assert found == pytest.approx(0.5 * 0.02 * np.sum(solution.dual_field**2), rel=SAMPLING)


def test_derivative_in_the_weight_variance_between_the_layers(solution):
    """Law 6: dJ / dlog sigma_2^2 = tr Kt_1 <phi phi^T>_1 / 2."""
    found = slope(lambda c: orthogonal(24, weight_variance=(1.0, c)))
    expected = 0.5 * np.sum(solution.conjugate_kernel(1) * solution.kernel(1))
    assert found == pytest.approx(expected, rel=SAMPLING)
    assert abs(expected - 0.5 * np.trace(solution.conjugate_kernel(1))) > 0.1 * abs(expected)


@pytest.mark.slow
def test_derivative_in_the_readout_variance(solution):
    """Law 4."""
    found = slope(lambda c: orthogonal(24, readout_variance=c))
    t, y = solution.dual_field, solution.model.task.targets
    assert found == pytest.approx(0.5 * np.sum(t * (y - 0.02 * t)), rel=SAMPLING)


@pytest.mark.slow
def test_derivative_in_the_variance_of_the_first_weights(solution):
    """Law 5, with neurons drawn from the first layer."""
    found = slope(lambda c: orthogonal(24, weight_variance=(c, 1.0)))
    z, variances = solution.neurons(100_000, 1).preactivations, np.diagonal(solution.model.input_kernel)
    terms = 0.5 * ((z**2 / variances).sum(1) - 24)
    error = SAMPLING * abs(found) + 4 * terms.std() / np.sqrt(len(terms))
    assert abs(terms.mean() - found) < error < 0.1 * abs(found)


def test_scaling_the_targets(solution):
    """Law 9: (Y, sigma_a^2, N T) -> (c Y, c^2 sigma_a^2, c^2 N T) leaves J as it is, and t / c."""
    p, c = orthogonal(24), 1.7
    task = flt.ArrayTask(p.task.inputs, c * p.task.targets, p.task.labels)
    prior = flt.GaussianPrior(readout_variance=c**2)
    scaled = evolve(p, task=task, prior=prior, temperature=c**2 * p.temperature).solve()
    # Points are drawn for states that differ within the tolerance on the way, which J notices at 1e-6.
    assert scaled.free_energy == pytest.approx(solution.free_energy, rel=1e-5)
    np.testing.assert_allclose(c * scaled.dual_field, solution.dual_field, rtol=1e-4)


@frozen
class Scaled(flt.Nonlinearity):
    """c phi(s z), with s = 1 or -1."""

    factor: float
    sign: float = 1.0

    def __call__(self, z):
        return self.factor * flt.Sigmoid()(self.sign * z)


@pytest.mark.slow
@pytest.mark.parametrize("phi", [Scaled(2.0), Scaled(-1.0), Scaled(1.0, -1.0)])
def test_scaling_and_mirroring_phi(solution, phi):
    """Law 11, in every layer: sigma_2^2 and sigma_a^2 make up for the factor."""
    c = phi.factor
    p = orthogonal(24, phi=phi, weight_variance=(1.0, 1 / c**2), readout_variance=1 / c**2)
    other = p.solve()
    assert other.free_energy == pytest.approx(solution.free_energy, rel=1e-4)
    np.testing.assert_allclose(other.kernel(1), c**2 * solution.kernel(1), rtol=2e-3)


def with_targets(targets):
    """The same inputs with other targets."""
    p = orthogonal(24)
    return evolve(p, task=flt.ArrayTask(p.task.inputs, targets, p.task.labels)).solve()


@pytest.mark.slow
def test_an_output_without_targets_decouples(solution):
    """Law 13, as well as points show it that do not come with their mirror images."""
    y = solution.model.task.targets
    wider = with_targets(np.concatenate([y, np.zeros((24, 1))], axis=1))
    np.testing.assert_allclose(wider.dual_field[:, 2], 0.0, atol=1e-3)
    np.testing.assert_allclose(wider.dual_field[:, :2], solution.dual_field, atol=5e-3)
    assert wider.free_energy == pytest.approx(solution.free_energy, rel=1e-4)


@pytest.mark.slow
def test_proportional_outputs_are_one(solution):
    """Law 14; the twin: without the factor."""
    y = solution.model.task.targets @ [[1.0], [-1.0]]
    two, one, twin = (with_targets(t) for t in (np.concatenate([y, 0.5 * y], axis=1), np.sqrt(1.25) * y, y))
    assert two.free_energy == pytest.approx(one.free_energy, rel=2e-4)
    assert twin.free_energy != pytest.approx(one.free_energy, rel=2e-2)
    np.testing.assert_allclose(two.dual_field[:, 1:], 0.5 * two.dual_field[:, :1], rtol=1e-3)


@pytest.mark.slow
def test_rotating_the_outputs_rotates_the_solution(solution):
    p, angle = orthogonal(24), 0.7
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    rotated = evolve(p, task=flt.ArrayTask(p.task.inputs, p.task.targets @ rotation, p.task.labels)).solve()
    np.testing.assert_allclose(rotated.dual_field, solution.dual_field @ rotation, atol=5e-3)
    assert rotated.free_energy == pytest.approx(solution.free_energy, rel=1e-4)


@pytest.mark.slow
def test_seeds_agree_from_cold_starts(solution):
    for seed in (1, 2):
        other = orthogonal(24).solve(seed=seed)
        np.testing.assert_allclose(blocks(other, 1), blocks(solution, 1), atol=2e-4)
        np.testing.assert_allclose(other.dual_field, solution.dual_field, atol=5e-3)


@pytest.mark.slow
def test_heat_leads_to_the_prior():
    """Law 18."""
    hot = orthogonal(24, scaled_temperature=1e4).solve()
    kernel = hot.model.input_kernel
    for layer in (1, 2):
        kernel = flt.Sigmoid().gaussian_kernel(kernel)
        np.testing.assert_allclose(hot.kernel(layer), kernel, atol=1e-3)
    np.testing.assert_allclose(1e4 * hot.dual_field, hot.model.task.targets, atol=1e-3)
