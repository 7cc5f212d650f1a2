"""Exact statements about solutions (docs/theory.md, section 10), on random small posteriors."""

import numpy as np
import pytest
from attrs import evolve
from cases import classification, few, posterior, posteriors, seeds
from hypothesis import given, strategies as st

import fltheory as flt

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
@given(posteriors())
def test_the_residual_is_the_gap_of_the_stationarity_condition(p: flt.DeepNetworkPosterior) -> None:
    solution = p.solve()
    t, noise = solution.dual_field, p.model.scaled_temperature
    gap = p.task.targets - noise * t - p.model.readout_variance * solution.kernel(1) @ t
    assert solution.residual < 1e-6
    accuracy = (
        2e-3 if solution.method == "ep" else solution_tolerance(solution)
    )  # EP's kernel has its own error
    assert np.abs(gap).max() < accuracy


@few
@given(posteriors())
def test_the_kernel_is_the_sum_of_its_decomposition(p: flt.DeepNetworkPosterior) -> None:
    solution = p.solve()
    parts = solution.decomposition(1)
    np.testing.assert_allclose(parts.kernel, solution.kernel(1), atol=1e-10)
    rebuilt = parts.bulk + sum(np.outer(row, row) for row in parts.outliers)
    np.testing.assert_allclose(rebuilt, solution.kernel(1), atol=1e-10)
    assert np.linalg.eigvalsh(parts.bulk).min() > -1e-6
    assert np.linalg.eigvalsh(solution.kernel(1)).min() > -1e-6


@few
@given(posteriors())
def test_probabilities_sum_to_one_and_fall(p: flt.DeepNetworkPosterior) -> None:
    probabilities = [branch.probability for branch in p.solve().branches]
    assert sum(probabilities) == pytest.approx(1.0, abs=1e-12)
    assert probabilities == sorted(probabilities, reverse=True)


@few
@given(posteriors())
def test_the_matrix_virial(p: flt.DeepNetworkPosterior) -> None:
    """<a a^T> / sigma_a^2 - 1 = Y^T t - N T t^T t."""
    solution = p.solve()
    mean = sum(b.probability * b.readout for b in solution.branches)
    second = (solution.readout_covariance + np.outer(mean, mean)) / p.model.readout_variance
    t = solution.dual_field
    expected = p.task.targets.T @ t - p.model.scaled_temperature * t.T @ t
    accuracy = 0.02 if solution.method == "ep" else 0.005  # EP's a is Gaussian inside a branch
    assert np.abs(second - np.eye(len(second)) - expected).max() < accuracy * np.abs(second).max()


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
def test_a_training_input_is_predicted_with_its_residual(p: flt.DeepNetworkPosterior) -> None:
    """A test input equal to a training input: f = Y - N T t."""
    solution = p.solve()
    known, new = solution.predict(), solution.predict(p.task.inputs[:3])
    expected = p.task.targets - p.model.scaled_temperature * solution.dual_field
    np.testing.assert_allclose(known.mean, expected, atol=1e-12)
    np.testing.assert_allclose(new.mean, known.mean[:3], atol=1e-5)
    np.testing.assert_allclose(new.variance, known.variance[:3], rtol=0.05, atol=1e-6)


@few
@given(posteriors())
def test_infinite_temperature_is_the_prior(p: flt.DeepNetworkPosterior) -> None:
    hot = evolve(p, temperature=np.inf).solve()
    warm = evolve(p, temperature=1e4).solve()
    assert not hot.dual_field.any() and hot.free_energy == 0.0
    assert_close(warm.kernel(1), hot.kernel(1), warm)
    np.testing.assert_allclose(hot.predict().mean, 0.0)


@few
@given(posteriors(), seeds)
def test_neurons_satisfy_the_self_consistency_by_monte_carlo(p: flt.DeepNetworkPosterior, seed: int) -> None:
    """(5) and (6): <phi a^T> = Y - N T t and <phi phi^T> = K over drawn neurons."""
    solution = p.solve()
    n = 20_000
    neurons = solution.neurons(n, layer=1, seed=seed)
    assert neurons.readouts is not None
    output = neurons.activations[:, :, None] * neurons.readouts[:, None, :]
    expected = p.task.targets - p.model.scaled_temperature * solution.dual_field
    error = output.std(0) / np.sqrt(n)
    systematic = 0.03 if solution.method == "ep" else 0.002  # of EP against exact neurons
    assert (np.abs(output.mean(0) - expected) < 5 * error + systematic).all()
    kernel = neurons.activations.T @ neurons.activations / n
    scale = np.abs(solution.kernel(1)).max()
    assert np.abs(kernel - solution.kernel(1)).max() < (systematic + 0.05) * scale
    np.testing.assert_allclose(neurons.activations, p.nonlinearity(neurons.preactivations))
