"""Particles: the same answers as the exact integrals and as EP, and an answer where EP has none."""

import numpy as np
import pytest
from attrs import evolve
from cases import classification, posterior

import fltheory as flt
from fltheory.meanfield.branches import activity_codes, input_groups, occupied_codes
from fltheory.meanfield.particles import Particles, ParticleSample
from fltheory.meanfield.sample_dual import SampleDual, conjugate_gradients, drawn_together, exponent

ACCURACY = 0.02  # relative, of t from 8000 particles: about five times what seeds differ by


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def hard_case() -> flt.DeepNetworkPosterior:
    """Ten inputs near the N T at which codes form: EP's branches overlap there."""
    rng = np.random.default_rng(11)
    labels = np.arange(10) % 2
    inputs = rng.standard_normal((2, 32))[labels] + 1.2 * rng.standard_normal((10, 32))
    inputs /= np.sqrt((inputs**2).mean(1, keepdims=True))
    return posterior(flt.ArrayTask.from_labels(inputs, labels), 0.34, flt.Tanh())


def cooled(p: flt.DeepNetworkPosterior, seed: int = 0, n_particles: int = 1000) -> ParticleSample:
    """The particles themselves."""
    model = p.model
    factor = np.linalg.cholesky(model.input_kernel + 1e-10 * np.eye(p.task.n_samples))
    particles = Particles(
        factor,
        model.task.targets,
        model.readout_variance,
        model.nonlinearity,
        n_particles=n_particles,
        seed=seed,
    )
    assert particles.cool(model.scaled_temperature, tolerance=1e-6, report=lambda residual: None)
    assert particles.sample is not None
    return particles.sample


def test_conjugate_gradients_solve_a_positive_system() -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((12, 12))
    matrix, right = root @ root.T + np.eye(12), rng.standard_normal((12, 1))
    found = conjugate_gradients(
        lambda v: matrix @ v, right, lambda r: r / np.diag(matrix)[:, None], tolerance=1e-12
    )
    np.testing.assert_allclose(matrix @ found, right, atol=1e-9)


def test_the_sample_dual_has_its_gradient_and_hessian() -> None:
    rng = np.random.default_rng(1)
    dual = SampleDual(rng.random((400, 6)), np.zeros(400), rng.standard_normal((6, 2)), 0.2, 1 / 6)
    field, direction, step = 0.1 * rng.standard_normal((6, 2)), rng.standard_normal((6, 2)), 1e-5
    here, there, back = (dual(field + sign * step * direction) for sign in (0, 1, -1))
    slope = (there.value - back.value) / (2 * step)
    assert slope == pytest.approx(np.sum(here.gradient * direction), rel=1e-6)
    change = (there.gradient - back.gradient) / (2 * step)
    np.testing.assert_allclose(here.solve(change, tolerance=1e-10), direction, rtol=1e-6, atol=1e-7)


def test_agreement_with_the_exact_integrals() -> None:
    p = posterior(flt.OrthogonalClassification(24, (0.5, 0.5)), 0.08)
    exact, particles = p.solve(), p.solve(method="particles")
    assert particles.method == "particles" and particles.residual < 1e-6
    assert distance(particles.dual_field, exact.dual_field) < ACCURACY
    assert distance(particles.kernel(1), exact.kernel(1)) < ACCURACY
    assert particles.free_energy == pytest.approx(exact.free_energy, abs=0.5)
    assert [b.code for b in particles.branches[:2]] in ([(1, 0), (0, 1)], [(0, 1), (1, 0)])
    wrong = evolve(p, temperature=2 * p.temperature).solve()  # the negative twin
    assert distance(particles.dual_field, wrong.dual_field) > 2 * ACCURACY


@pytest.mark.slow
def test_agreement_with_ep_on_images() -> None:
    p = posterior(flt.Digits(n_samples=40, n_test=10), 0.04)
    ep, particles = p.solve(method="ep"), p.solve(method="particles")
    assert distance(particles.dual_field, ep.dual_field) < ACCURACY
    assert distance(particles.kernel(1), ep.kernel(1)) < ACCURACY
    new = p.task.test_inputs
    np.testing.assert_allclose(particles.predict(new).mean, ep.predict(new).mean, atol=0.02)
    ratio = particles.predict(new).variance.mean() / ep.predict(new).variance.mean()
    assert ratio == pytest.approx(1.0, abs=0.1)
    assert distance(particles.kernel(1, new), ep.kernel(1, new)) < ACCURACY
    known = particles.predict(p.task.inputs[:3]).mean
    np.testing.assert_allclose(known, particles.predict().mean[:3], atol=1e-6)


@pytest.mark.slow
def test_an_answer_where_expectation_propagation_has_none() -> None:
    p = hard_case()
    one, other = p.solve(method="particles"), p.solve(method="particles", seed=1)
    assert distance(one.dual_field, other.dual_field) < ACCURACY
    assert p.solve().residual < 1e-6


def test_the_laws_hold_on_the_particles() -> None:
    """(5) exactly, and the matrix virial, since a is integrated out."""
    p = posterior(classification(5, n_classes=3, noise=1.0), 0.3)
    solution = p.solve(method="particles")
    t, noise = solution.dual_field, p.model.scaled_temperature
    gap = p.task.targets - noise * t - p.model.readout_variance * solution.kernel(1) @ t
    assert np.abs(gap).max() < 1e-6
    mean = sum(b.probability * b.readout for b in solution.branches)
    second = (solution.readout_covariance + np.outer(mean, mean)) / p.model.readout_variance
    expected = p.task.targets.T @ t - noise * t.T @ t
    np.testing.assert_allclose(second - np.eye(3), expected, atol=1e-3 * np.abs(expected).max())
    assert sum(b.probability for b in solution.branches) == pytest.approx(1.0, abs=1e-9)


def test_particles_of_several_fields_make_one_sample() -> None:
    """Gaussian phi in one dimension: the mixture's exponent gives back every t's mean of phi^2."""
    rng, variance = np.random.default_rng(3), 1.0
    fields = [np.array([[t]]) for t in (0.2, 0.5, 0.7)]  # phi ~ N(0, 1 / (1 - t^2)) at t
    drawn = [rng.standard_normal((20_000, 1)) / np.sqrt(1 - t[0, 0] ** 2) for t in fields]
    together = np.concatenate(drawn)
    dual = SampleDual(together, drawn_together(together, fields, variance), np.zeros((1, 1)), 0.1, variance)
    alone = SampleDual(together, exponent(together, fields[0], variance), np.zeros((1, 1)), 0.1, variance)
    for field in fields:
        expected = 1 / (1 - field[0, 0] ** 2)
        assert dual(field).kernel[0, 0] == pytest.approx(expected, rel=0.05)
    assert alone(fields[1]).kernel[0, 0] > 1.2 / (1 - 0.5**2)  # the negative twin: drawn at one t


def test_the_stated_error_covers_what_seeds_differ_by() -> None:
    p = hard_case()
    one, other = (p.solve(method="particles", seed=seed) for seed in (0, 1))
    apart = distance(one.dual_field, other.dual_field)
    assert one.agreement is not None
    assert other.agreement is not None
    stated = 0.5 * np.hypot(one.agreement.dual_field, other.agreement.dual_field)
    assert 0.1 * stated < apart < 3.0 * stated
    assert 0 < one.agreement.kernel < 0.05
    assert one.residual < 1e-6


@pytest.mark.slow
def test_mirrored_codes_of_an_odd_nonlinearity_are_as_likely() -> None:
    solution = posterior(flt.Digits((4, 7), 30, n_test=0), 0.1, flt.Tanh()).solve(method="particles")
    share = {b.code: b.probability for b in solution.branches}
    assert len(share) == 4
    assert share[0, 0] == pytest.approx(share[1, 1], abs=2e-3)
    assert share[0, 1] == pytest.approx(share[1, 0], abs=2e-3)


def test_codes_that_occur_are_branches_and_rare_ones_join_the_nearest() -> None:
    labels = np.repeat(np.arange(10), 3)
    groups = input_groups(np.eye(10)[labels])
    assert len(np.unique(groups)) == 10
    codes = np.zeros((4000, 10), bool)
    codes[:2500, :5] = True
    codes[2500:3999, 5:] = True
    codes[3999] = [True] * 4 + [False] * 6  # one of 4000, next to the first
    activations = 0.1 + 0.8 * codes[:, groups]
    np.testing.assert_array_equal(activity_codes(activations, groups, 0.5), codes)
    member = occupied_codes(codes, np.full(4000, 1 / 4000))
    np.testing.assert_array_equal(member, np.repeat([0, 1, 0], [2500, 1499, 1]))
    continuous = np.random.default_rng(0).standard_normal((200, 5))
    assert 4 <= input_groups(continuous).max() + 1 <= 8


@pytest.mark.slow
def test_seeds_agree_where_each_code_has_many_forms() -> None:
    """Expectation propagation fails here: each code of the digits 4 and 7 is hundreds of patterns."""
    p = flt.DeepNetworkPosterior(flt.Digits((4, 7), 60, 60, seed=3), flt.Tanh(), width=300, temperature=2e-4)
    one, other = p.solve(method="particles"), p.solve(method="particles", seed=1)
    assert distance(one.dual_field, other.dual_field) < 0.015
    assert distance(one.kernel(1), other.kernel(1)) < 0.015
    gap = one.predict(p.task.test_inputs).mean - other.predict(p.task.test_inputs).mean
    assert np.sqrt(np.mean(gap**2)) < 0.01


@pytest.mark.slow
def test_ten_classes() -> None:
    """Dozens of codes of ten digits, without a list of 2^10."""
    p = flt.DeepNetworkPosterior(
        flt.Digits(tuple(range(10)), 300), flt.Sigmoid(), width=1000, temperature=1e-4
    )
    solution = p.solve(method="particles")
    assert solution.residual < 1e-6
    assert 30 < len(solution.branches) < 400
    assert sum(b.probability for b in solution.branches) == pytest.approx(1.0)
    assert sum(b.probability for b in solution.branches[:100]) > 0.95


def test_a_solution_of_many_branches_is_shown_in_a_line():
    """Real targets have as many branches as patterns of activity."""
    rng = np.random.default_rng(5)
    inputs = rng.standard_normal((8, 6))
    task = flt.ArrayTask(inputs, np.sin(2 * inputs[:, :1]))
    theory = flt.DeepNetworkPosterior(task, flt.Sigmoid(), width=100, temperature=2e-3).solve(
        method="particles"
    )
    assert len(theory.branches) > 8
    assert len(repr(theory)) < 300
    assert f"and {len(theory.branches) - 8} more" in repr(theory)
