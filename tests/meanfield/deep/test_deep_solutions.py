"""Deep networks of bounded phi: published numbers, one solution held to all laws, and who is refused."""

import numpy as np
import pytest
from attrs import evolve
from deep_cases import blocks, orthogonal, with_task

import fltheory as flt
from fltheory.meanfield import solver
from fltheory.testing import check_solution

THREE = (0.5, 0.25, 0.25)
UNEQUAL = np.repeat([[1.0, 0.0], [-0.5, 0.3]], [5, 4], axis=0)
LENGTHS = np.repeat([1.0, 1.5], [5, 4])


@pytest.fixture(scope="module")
def two_layers():
    return orthogonal().solve()


def test_two_layers_have_the_kernels_and_codes_of_section_9(two_layers):
    kernel, branches = blocks(two_layers, 1), {b.code: b for b in two_layers.branches}
    np.testing.assert_allclose(kernel, [[0.3085, 0.1994], [0.1994, 0.3085]], atol=4e-4)
    np.testing.assert_allclose(np.diagonal(two_layers.kernel(1)), 0.376, atol=1e-3)
    shares = [branches[code].probability for code in ((1, 0), (0, 1), (1, 1))]
    np.testing.assert_allclose(shares, [0.413, 0.413, 0.174], atol=2e-3)
    assert two_layers.free_energy == pytest.approx(147.684, abs=0.02)
    assert two_layers.residual < 1e-6 and two_layers.agreement.kernel < 1e-3


def test_a_symmetric_task_has_a_symmetric_solution(two_layers):
    t, first = two_layers.dual_field, two_layers.branches[0]
    np.testing.assert_allclose(t[:30], t[30:, ::-1], rtol=1e-12)
    assert first.probability == pytest.approx(two_layers.branches[1].probability, rel=1e-9)
    for layer in (1, 2):
        kernel = two_layers.kernel(layer)
        np.testing.assert_allclose(kernel[:30, :30], kernel[30:, 30:], rtol=1e-12)


def test_only_the_last_layer_breaks_the_symmetry_of_neurons(two_layers):
    assert [two_layers.symmetry(layer) for layer in (1, 2)] == ["intact", "broken"]


def test_one_solution_obeys_all_laws_that_it_can_show(two_layers):
    check_solution(two_layers)


def test_stationary_kernels_agree_with_drawn_neurons_of_the_layer_above(two_layers):
    """(7): Kt_1 from <z z^T> of drawn layer-2 neurons, blocks to 7 errors; detects 3 % of the largest."""
    below, messages = np.linalg.inv(two_layers.kernel(1)), []
    for seed in range(20):
        z = two_layers.neurons(1000, 2, seed).preactivations
        message = below @ (z.T @ z / len(z)) @ below - below
        messages.append([message[:30, 30:].mean(), message[:30, :30][~np.eye(30, dtype=bool)].mean()])
    mean, error = np.mean(messages, 0), np.std(messages, 0, ddof=1) / np.sqrt(20)
    conjugate = two_layers.conjugate_kernel(1)
    expected = np.array([conjugate[0, 30], conjugate[0, 1]])
    assert (np.abs(mean - expected) < 7 * error).all()
    assert (error < 0.01 * np.abs(expected).max()).all()
    assert (np.abs(mean - 0.8 * expected) > 7 * error).any()  # the negative twin


def test_unequal_classes_norms_and_variances_obey_all_laws():
    solution = with_task(LENGTHS, UNEQUAL, 2, 0.05, weight_variance=(1.0, 0.7), readout_variance=1.5).solve()
    check_solution(solution)
    t, variance = solution.dual_field, solution.model.readout_variance
    outputs = solution.kernel(2) @ t + 0.05 / variance * t
    assert np.abs(variance * outputs - UNEQUAL).max() < 2e-3
    assert np.abs(1.01 * variance * outputs - UNEQUAL).max() > 2e-3  # the negative twin: 1 % is seen


def test_a_solution_helps_to_the_next(two_layers):
    near = orthogonal(scaled_temperature=0.018)
    started = near.solve(start=two_layers)
    assert started.n_iterations < 6 and started.residual < 1e-6
    assert started.free_energy > two_layers.free_energy + 0.1


def test_a_cut_search_raises_with_its_last_iterate():
    with pytest.raises(flt.ConvergenceError) as caught:
        orthogonal(24, THREE).solve(max_iterations=1)
    assert isinstance(caught.value.last, flt.MeanFieldSolution)


def test_another_engine_answers_what_quasi_random_points_do_not(two_layers, monkeypatch):
    """Many classes, or an engine by name."""
    asked = []

    def answer(model, settings):
        asked.append(model)
        return two_layers

    monkeypatch.setattr(solver, "solve_general", answer)
    for posterior, method in ((orthogonal(10, (0.2,) * 5), "auto"), (orthogonal(10), "particles")):
        posterior.solve(method=method)
        assert asked[-1] is posterior.model


def test_infinite_temperature_is_the_prior():
    prior = evolve(orthogonal(8, weight_variance=(1.0, 0.7)), temperature=np.inf).solve()
    check_solution(prior)
    below = 0.7 * flt.Sigmoid().gaussian_kernel(np.eye(8))
    np.testing.assert_allclose(prior.kernel(2), flt.Sigmoid().gaussian_kernel(below), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_three_layers_have_the_kernels_of_section_9(seed):
    solution = orthogonal(depth=3).solve(seed=seed)
    np.testing.assert_allclose(blocks(solution, 1)[0], [0.277, 0.2185], atol=1e-3)
    np.testing.assert_allclose(blocks(solution, 2)[0], [0.364, 0.1795], atol=4e-3)  # at 65536 points
    assert [solution.symmetry(layer) for layer in (1, 2, 3)] == ["intact", "intact", "broken"]
    check_solution(solution, tolerance=5e-3)


@pytest.mark.slow
def test_three_layers_and_three_classes_have_the_kernels_of_section_9():
    solution = orthogonal(ratios=THREE, depth=3).solve()
    first, second = blocks(solution, 1), blocks(solution, 2)
    found = [[k[0, 0], k[0, 1], k[1, 1], k[1, 2]] for k in (first, second)]
    np.testing.assert_allclose(found[0], [0.288, 0.226, 0.296, 0.219], atol=2e-3)
    np.testing.assert_allclose(found[1], [0.382, 0.217, 0.385, 0.213], atol=6e-3)


@pytest.mark.slow
def test_no_noise():
    solution = orthogonal(scaled_temperature=0.0).solve()
    np.testing.assert_allclose(solution.predict().mean, solution.model.task.targets, atol=1e-12)
    check_solution(solution)


@pytest.mark.parametrize(("phi", "ratios"), [(flt.Tanh(), (2 / 3, 1 / 3)), (flt.Erf(), (0.5, 0.5))])
def test_odd_nonlinearities_are_solved_from_a_cold_start(phi, ratios):
    """Neurons on the codes that tell two classes apart are opposite on both, and fit no one-hot targets."""
    task = flt.OrthogonalClassification(18, ratios)
    prior = flt.GaussianPrior(weight_variance=(1.2, 0.8))
    theory = flt.DeepNetworkPosterior(
        task, phi, prior, n_hidden_layers=2, width=60, temperature=0.05 / 60
    ).solve()
    assert theory.residual < 1e-6 and theory.agreement.kernel < 0.01
    check_solution(theory)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("phi", "ratios"), [(flt.Erf(), THREE), (flt.Tanh(), (0.5, 0.3, 0.2))])
def test_messages_that_overshoot_are_weakened(phi, ratios):
    """Under the message of a guess all neurons of a layer go over to one code, and no step helps."""
    theory = orthogonal(40, ratios, 3, phi=phi).solve()
    assert theory.residual < 1e-6
    shares = [branch.probability for branch in theory.branches]
    np.testing.assert_allclose(shares, 1 / 8, atol=0.01)  # all codes of an odd phi
    check_solution(theory)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_four_layers_and_three_classes():
    """Neurons on codes have the larger J: a search from above ends 42 lower, where all are alike."""
    cold, warm = (orthogonal(60, THREE, 4, noise).solve() for noise in (0.02, 0.1))
    assert -cold.free_energy == pytest.approx(-230.8, abs=0.3)
    assert -warm.free_energy == pytest.approx(-159.23, abs=0.1)
    for theory in (cold, warm):
        assert {branch.code for branch in theory.branches[:3]} == {(1, 1, 0), (1, 0, 1), (0, 1, 1)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_hundreds_of_inputs(seed):
    """Where points of one t know little of others. J grows like P, but for a part that grows more slowly."""
    free = {p: orthogonal(p).solve(seed=seed).free_energy for p in (240, 480, 960)}
    growth = (free[960] - free[480]) / (free[480] - free[240])
    assert 1.9 < growth < 2.0


@pytest.mark.slow
def test_a_solution_that_is_not_the_best_is_not_given():
    """Thousands of inputs: no guess leads there, and a way from high N T to neurons that are all alike."""
    with pytest.raises(flt.ConvergenceError):
        orthogonal(3840).solve()
