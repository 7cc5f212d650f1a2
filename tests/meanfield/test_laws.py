"""Exact statements about solutions (docs/theory.md, section 10), on random small posteriors."""

import numpy as np
import pytest
from attrs import evolve
from cases import classification, few, posterior, posteriors, seeds
from hypothesis import given, strategies as st

import fltheory as flt
from fltheory.testing import check_solution

QUADRATURE_ERROR = 2e-3  # relative, of averages over quasi-random points


def solution_tolerance(solution: flt.MeanFieldSolution) -> float:
    return QUADRATURE_ERROR if solution.method == "quadrature" else 1e-4


def assert_close(actual: np.ndarray, expected: np.ndarray, solution: flt.MeanFieldSolution) -> None:
    scale = np.abs(expected).max() + 1e-12
    assert np.abs(actual - expected).max() < solution_tolerance(solution) * scale


def arrays_of(task: flt.Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert task.labels is not None
    return task.inputs, task.targets, task.labels


@few
@given(posteriors(), seeds)
def test_one_solution_obeys_all_laws_that_it_can_show(p: flt.DeepNetworkPosterior, seed: int) -> None:
    solution = p.solve()
    assert solution.residual < 1e-6
    check_solution(solution, seed=seed)


@few
@given(posteriors(), seeds)
def test_permuting_inputs_permutes_the_solution(p: flt.DeepNetworkPosterior, seed: int) -> None:
    inputs, targets, labels = arrays_of(p.task)
    order = np.random.default_rng(seed).permutation(len(inputs))
    permuted = evolve(p, task=flt.ArrayTask(inputs[order], targets[order], labels[order])).solve()
    original = p.solve()
    assert_close(permuted.dual_field, original.dual_field[order], original)
    assert_close(permuted.kernel(1), original.kernel(1)[np.ix_(order, order)], original)


@few
@given(posteriors(), seeds)
def test_rotating_the_outputs_rotates_the_solution(p: flt.DeepNetworkPosterior, seed: int) -> None:
    inputs, targets, labels = arrays_of(p.task)
    m = targets.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((m, m)))[0]
    rotated = evolve(p, task=flt.ArrayTask(inputs, targets @ rotation, labels)).solve()
    original = p.solve()
    assert_close(rotated.dual_field, original.dual_field @ rotation, original)
    assert_close(rotated.kernel(1), original.kernel(1), original)
    assert_close(rotated.readout_covariance, rotation.T @ original.readout_covariance @ rotation, original)


@few
@given(posteriors())
def test_an_all_zero_output_changes_nothing(p: flt.DeepNetworkPosterior) -> None:
    inputs, targets, labels = arrays_of(p.task)
    padded = np.column_stack([targets, np.zeros(len(targets))])
    more = evolve(p, task=flt.ArrayTask(inputs, padded, labels)).solve()
    original = p.solve()
    assert_close(more.dual_field[:, :-1], original.dual_field, original)
    assert np.abs(more.dual_field[:, -1]).max() < 1e-2 * np.abs(original.dual_field).max()
    assert_close(more.kernel(1), original.kernel(1), original)
    variance = p.model.readout_variance
    assert abs(more.readout_covariance[-1, -1] - variance) < 0.02 * variance


@few
@given(posteriors(), st.floats(0.5, 2.0))
def test_scaling_the_targets(p: flt.DeepNetworkPosterior, factor: float) -> None:
    """(Y, sigma_a^2, N T) -> (c Y, c^2 sigma_a^2, c^2 N T): S unchanged, t -> t / c."""
    inputs, targets, labels = arrays_of(p.task)
    scaled = flt.DeepNetworkPosterior(
        flt.ArrayTask(inputs, factor * targets, labels),
        p.nonlinearity,
        flt.GaussianPrior(readout_variance=factor**2),
        width=p.width,
        temperature=factor**2 * p.temperature,
    ).solve()
    original = p.solve()
    assert_close(factor * scaled.dual_field, original.dual_field, original)
    assert scaled.free_energy == pytest.approx(original.free_energy, rel=1e-3)


@few
@given(posteriors())
def test_free_energy_has_the_derivative_of_its_temperature(p: flt.DeepNetworkPosterior) -> None:
    """dS/d(N T) = |t|^2 / 2, and S is -free_energy."""
    step = 0.02
    colder, warmer = (
        evolve(p, temperature=p.temperature * factor).solve() for factor in (1 - step, 1 + step)
    )
    slope = (colder.free_energy - warmer.free_energy) / (2 * step * p.model.scaled_temperature)
    solution = p.solve()
    sampling = 0.05 if solution.method == "quadrature" else 0.01  # the points differ at each T
    assert slope == pytest.approx(0.5 * np.sum(solution.dual_field**2), rel=sampling)


@few
@given(seeds)
def test_the_mean_predictor_of_a_linear_network_without_noise_is_the_lazy_one(seed: int) -> None:
    task = classification(seed, noise=1.0)
    cold = evolve(posterior(task, nonlinearity=flt.Linear()), temperature=0.0)
    new = np.random.default_rng(seed).standard_normal((5, task.n_inputs))
    kernel, cross = task.gram(), new @ task.inputs.T / task.n_inputs
    expected = cross @ np.linalg.solve(kernel, task.targets)
    np.testing.assert_allclose(cold.solve().predict(new).mean, expected, atol=1e-6)


@few
@given(posteriors())
def test_infinite_temperature_is_the_prior(p: flt.DeepNetworkPosterior) -> None:
    hot = evolve(p, temperature=np.inf).solve()
    warm = evolve(p, temperature=1e4).solve()
    assert not hot.dual_field.any() and hot.free_energy == 0.0
    assert_close(warm.kernel(1), hot.kernel(1), warm)
    np.testing.assert_allclose(hot.predict().mean, 0.0)
