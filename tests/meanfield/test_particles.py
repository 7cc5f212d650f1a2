"""Particles: the same answers as the exact integrals and as EP, and an answer where EP has none."""

import numpy as np
import pytest
from attrs import evolve
from cases import classification, posterior

import fltheory as flt
from fltheory.meanfield.particles import SampleDual, conjugate_gradients

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
    dual = SampleDual(rng.random((400, 6)), np.zeros((6, 2)), rng.standard_normal((6, 2)), 0.2, 1 / 6)
    field, direction, step = 0.1 * rng.standard_normal((6, 2)), rng.standard_normal((6, 2)), 1e-5
    here, there, back = (dual(field + sign * step * direction) for sign in (0, 1, -1))
    slope = (there.value - back.value) / (2 * step)
    assert slope == pytest.approx(np.sum(here.gradient * direction), rel=1e-6)
    object.__setattr__(here, "gradient", (there.gradient - back.gradient) / (2 * step))
    np.testing.assert_allclose(-here.newton_step(), direction, rtol=1e-4, atol=1e-5)


def test_agreement_with_the_exact_integrals() -> None:
    p = posterior(flt.OrthogonalClassification(40, (0.5, 0.5)), 0.05)
    exact, particles = p.solve(), p.solve(method="particles")
    assert particles.method == "particles" and particles.residual < 1e-6
    assert distance(particles.dual_field, exact.dual_field) < ACCURACY
    assert distance(particles.kernel(1), exact.kernel(1)) < ACCURACY
    assert particles.free_energy == pytest.approx(exact.free_energy, abs=0.5)
    assert [b.code for b in particles.branches[:2]] in ([(1, 0), (0, 1)], [(0, 1), (1, 0)])
    wrong = evolve(p, temperature=2 * p.temperature).solve()  # the negative twin
    assert distance(particles.dual_field, wrong.dual_field) > 2 * ACCURACY


def test_agreement_with_ep_on_images() -> None:
    p = posterior(flt.Digits(n_samples=60, n_test=10), 0.04)
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
