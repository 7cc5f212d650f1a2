"""The engines: derivatives, the Newton path, what they refuse and what they say when they fail."""

import numpy as np
import pytest
from attrs import evolve
from cases import classification, posterior, seeds
from hypothesis import given, settings
from scipy.special import logsumexp

import fltheory as flt
from fltheory.meanfield.branches import mode_sites
from fltheory.meanfield.dual import DualProblem, evaluate
from fltheory.meanfield.ep import JointEP, invert


def factor(task: flt.Task) -> np.ndarray:
    values, vectors = np.linalg.eigh(task.gram())
    kept = values > 1e-10 * values[-1]
    return vectors[:, kept] * np.sqrt(values[kept])


def dual_problem(task: flt.Task, noise: float = 0.1) -> DualProblem:
    return DualProblem(factor(task), task.targets, noise, 1 / task.n_samples, flt.Sigmoid())


@given(seeds)
@settings(max_examples=10)
def test_the_gradient_of_s_is_the_gap(seed: int) -> None:
    """EP: dS along any direction of t is minus the gap, against finite differences."""
    problem = dual_problem(classification(seed))
    rng = np.random.default_rng(seed)
    field = problem.starting_field()
    assert field is not None
    field = field + 0.3 * rng.standard_normal(field.shape)
    here = evaluate(problem, field, problem.starting_sites(field), residual=1e-4)
    assert here is not None
    direction = rng.standard_normal(field.shape)
    step = 1e-4
    values = [
        evaluate(problem, field + sign * step * direction, here.sites, residual=1e-4).value
        for sign in (1, -1)
    ]
    slope = (values[0] - values[1]) / (2 * step)
    assert slope == pytest.approx(-np.sum(here.gap * direction), rel=1e-4, abs=1e-5)


def test_where_a_search_starts() -> None:
    """One-hot targets start on their classes; rotated, scaled and +-1 targets accordingly; none at zero."""
    problem = dual_problem(flt.OrthogonalClassification(8, (0.5, 0.25, 0.25)))
    start, targets = problem.starting_field(), problem.targets
    np.testing.assert_allclose(start, 1.6 * targets / targets.mean(0) - 1.2)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    turned = evolve(problem, targets=3.0 * targets @ rotation).starting_field()
    np.testing.assert_allclose(turned, 3.0 * start @ rotation, atol=1e-12)
    sign = np.repeat([1.0, -1.0], 4)[:, None]
    np.testing.assert_allclose(evolve(problem, targets=sign).starting_field(), 1.6 * sign)
    assert evolve(problem, targets=0.0 * targets).starting_field() is None
    twice = sign @ np.ones((1, 2)) + 1e-9 * np.random.default_rng(1).standard_normal((8, 2))
    np.testing.assert_allclose(
        evolve(problem, targets=twice).starting_field(), 1.6 * sign @ [[1, 1]], atol=1e-6
    )


@pytest.mark.parametrize("phi", [flt.Sigmoid(), flt.Erf(), flt.Tanh()])
def test_one_output_for_two_classes_of_images(phi: flt.Nonlinearity) -> None:
    """Targets of +-1 are solved by EP at once, and borne out by exact neurons."""
    digits = flt.Digits((2, 8), n_samples=30, n_test=5, seed=3)
    task = flt.ArrayTask(digits.inputs, 2.0 * digits.targets[:, :1] - 1.0, digits.labels)
    solution = evolve(posterior(task, 0.05), nonlinearity=phi).solve()
    assert solution.method == "ep" and solution.agreement is not None
    assert solution.agreement.dual_field < 0.03 and solution.agreement.kernel < 0.01
    assert sorted(branch.code for branch in solution.branches[:2]) == [(0, 1), (1, 0)]


def test_s_decreases_along_the_newton_path() -> None:
    """Once every branch is known S falls at each step; before, it may jump up by a branch found."""
    solution = posterior(classification(3), 0.1).solve()
    path = np.array(solution.action_path)
    assert len(path) > 3
    last = np.argmax(np.diff(path, prepend=path[0]) > 0.02)  # after the last branch was found
    assert (np.diff(path[last:]) < 1e-6 * np.abs(path[-1])).all()
    assert path[-1] <= path[last]
    exact = posterior(flt.OrthogonalClassification(60, (0.5, 0.5)), 0.03).solve()
    assert (np.diff(exact.action_path) < 0.1).all()  # up to the sampling error of each set of points


def test_ep_is_exact_where_one_input_is_alone() -> None:
    """One input: a single site, so that EP's log Z, <phi> and <phi a> are exact."""
    scale, t, variance = 1.2, 1.7, 0.8
    field = np.array([[t]])
    one = np.array([[scale]])
    sites = mode_sites(one, field, variance, flt.Sigmoid(), np.array([[1.0]]), seed=0)
    ep = JointEP(one, field, variance, flt.Sigmoid())
    sites, change = ep.run(sites, tolerance=1e-12, max_iterations=200)
    found = ep.moments(sites, change)
    z = np.linspace(-12, 12, 4001) * scale
    phi = flt.Sigmoid()(z)
    log_weight = -0.5 * (z / scale) ** 2 + 0.5 * variance * t**2 * phi**2
    log_z = logsumexp(log_weight) - logsumexp(-0.5 * (z / scale) ** 2)
    weight = np.exp(log_weight - logsumexp(log_weight))
    assert found.log_partition[0] == pytest.approx(log_z, abs=1e-9)
    assert found.activations[0, 0] == pytest.approx(weight @ phi, abs=1e-9)
    assert found.outputs[0, 0, 0] == pytest.approx(variance * t * (weight @ phi**2), abs=1e-9)


def test_natural_parameters_and_moments_are_each_others_inverse() -> None:
    rng = np.random.default_rng(0)
    moments = np.stack(
        [*rng.uniform(1, 2, (3, 2, 5)) * [[[1]], [[0.3]], [[1]]], *rng.standard_normal((2, 2, 5))]
    )
    np.testing.assert_allclose(invert(invert(moments)), moments, rtol=1e-12)


@pytest.mark.slow
def test_a_warm_start_needs_fewer_steps_and_ends_in_the_same_place() -> None:
    """Where EP holds all branches; a sampled one has a Monte Carlo error of 1e-3."""
    p = posterior(flt.Digits((0, 1), n_samples=40, n_test=0), 0.05)
    cold = p.solve()
    warm = evolve(p, temperature=0.9 * p.temperature).solve(start=cold)
    fresh = evolve(p, temperature=0.9 * p.temperature).solve()
    assert warm.n_iterations <= fresh.n_iterations
    np.testing.assert_allclose(warm.dual_field, fresh.dual_field, atol=1e-4 * np.abs(fresh.dual_field).max())


def test_non_convergence_carries_the_last_iterate() -> None:
    with pytest.raises(flt.ConvergenceError, match="residual") as caught:
        posterior(flt.OrthogonalClassification(60, (0.5, 0.5)), 0.03).solve(max_iterations=2)
    assert isinstance(caught.value.last, flt.MeanFieldSolution)
    assert caught.value.last.residual > 1e-6


@pytest.mark.slow
def test_what_is_said_where_the_dual_field_is_not_resolved() -> None:
    p = evolve(posterior(flt.Digits()), temperature=0.0)
    with pytest.raises(flt.ConvergenceError, match="dual field t is not resolved.*Resolved are") as caught:
        p.solve()
    last = caught.value.last
    assert last.residual < 1e-6 and 0 < last.model.scaled_temperature < 0.006


def test_zero_temperature_is_refused_naming_the_rank_or_the_inputs() -> None:
    digits = flt.Digits()
    linear = flt.DeepNetworkPosterior(digits, flt.Linear(), temperature=0.0)
    with pytest.raises(ValueError, match="temperature: .*rank 51 of 100"):
        linear.solve()
    repeated = flt.ArrayTask(digits.inputs[[0, 1, 2, 0]], [0.0, 1.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="temperature: .*inputs 0 and 3"):
        evolve(linear, task=repeated, nonlinearity=flt.Sigmoid()).solve()


def test_what_the_theory_does_not_cover_is_refused_by_name() -> None:
    p = posterior(classification(0))
    with pytest.raises(ValueError, match="task: expected orthogonal inputs"):
        evolve(p, n_hidden_layers=3, nonlinearity=flt.ReLU()).solve()
    with pytest.raises(ValueError, match="finite_width: expected False for lazy"):
        evolve(p, readout_scaling="lazy").solve(finite_width=True)


@pytest.mark.slow
def test_a_nonlinearity_given_by_one_formula_alone() -> None:
    """A bounded phi that is neither monotonic nor smooth in its declaration: exact and EP agree."""

    class Bump(flt.Nonlinearity):
        def __call__(self, z: object) -> object:
            return flt.namespace(z).exp(-z * z)

    p = posterior(flt.OrthogonalClassification(40, (0.5, 0.5)), 0.1, Bump())
    exact, ep = p.solve(), p.solve(method="ep")
    np.testing.assert_allclose(ep.dual_field, exact.dual_field, atol=0.03 * np.abs(exact.dual_field).max())


def test_a_small_network_against_integration_by_brute_force() -> None:
    """P = 2: the single-neuron average by a dense grid in z, at the solution's t."""
    rng = np.random.default_rng(0)
    task = flt.ArrayTask(rng.standard_normal((2, 5)), [1.0, 0.1])
    prior = flt.GaussianPrior(readout_variance=2.0, scaling="none")
    p = flt.DeepNetworkPosterior(task, flt.Sigmoid(), prior, width=100, temperature=5e-4)
    solution = p.solve()
    x = np.linspace(-7, 7, 301)
    g = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    phi = flt.Sigmoid()(g @ np.linalg.cholesky(task.gram()).T)
    log_weight = -0.5 * (g**2).sum(1) + (phi @ solution.dual_field)[:, 0] ** 2
    weight = np.exp(log_weight - logsumexp(log_weight))
    output = 2.0 * (weight * (phi @ solution.dual_field)[:, 0]) @ phi
    expected = task.targets[:, 0] - 0.05 * solution.dual_field[:, 0]
    np.testing.assert_allclose(output, expected, atol=0.02)
    np.testing.assert_allclose((phi * weight[:, None]).T @ phi, solution.kernel(1), atol=0.02)


@pytest.mark.parametrize("nonlinearity", [flt.Sigmoid(), flt.Erf()], ids=repr)
@pytest.mark.parametrize("noise", [0.05, 0.5, 2.0])
def test_the_variance_of_the_outputs_hot_and_cold(nonlinearity: flt.Nonlinearity, noise: float) -> None:
    """(16) from EP's branches against exact integrals, above and below the N T at which codes form."""
    p = posterior(flt.OrthogonalClassification(24, (0.5, 0.5)), noise, nonlinearity)
    exact, ep = p.solve().predict().variance, p.solve(method="ep").predict().variance
    np.testing.assert_allclose(ep, exact, rtol=0.1)


@pytest.mark.slow
def test_an_inaccurate_solution_of_ep_is_not_taken_as_it_is() -> None:
    """EP's residual certifies its own branches only: exact neurons see what it misses, and it is sampled."""
    p = posterior(flt.Digits(n_samples=40, n_test=0), 0.1)
    ep = p.solve(method="ep")
    assert ep.residual < 1e-6 and ep.neuron.confirmation.gap > 0.02
    chosen, particles = p.solve(), p.solve(method="particles", seed=1)
    assert len(chosen.branches) > len(ep.branches) and chosen.neuron.confirmation.gap < 0.02
    off, alone = (
        np.linalg.norm(solution.dual_field - particles.dual_field) / np.linalg.norm(particles.dual_field)
        for solution in (chosen, ep)
    )
    assert off < 0.01 < alone
    accurate = posterior(flt.Digits(n_samples=40, n_test=0), 0.04).solve()
    assert accurate.method == "ep" and accurate.neuron.confirmation.gap < 0.02
