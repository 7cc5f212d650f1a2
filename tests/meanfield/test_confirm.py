"""Exact neurons hold EP's solutions to account: good ones pass, and what is planted is found."""

import numpy as np
import pytest
from attrs import evolve
from cases import posterior

import fltheory as flt
from fltheory.meanfield.clusters import (
    GaussianClusters,
    cluster_centres,
    fit_clusters,
    nearest,
)
from fltheory.meanfield.confirm import confirm
from fltheory.meanfield.dual import DualPoint
from fltheory.meanfield.fractions import Mixing
from fltheory.meanfield.gaussian_mixture import MixturePosterior
from fltheory.meanfield.law import HamiltonianMoves, NeuronLaw


def digits(scaled_temperature: float) -> MixturePosterior:
    solution = posterior(flt.Digits(n_samples=40, n_test=0), scaled_temperature).solve(method="ep")
    assert solution.residual < 1e-6 and isinstance(solution.neuron, MixturePosterior)
    return solution.neuron


def without(point: DualPoint, branch: int) -> DualPoint:
    kept = np.arange(len(point.branches)) != branch
    branches = point.branches.select(kept)
    return evolve(
        point, sites=point.sites[:, kept], branches=branches, mixing=Mixing.free(kept.sum()), dropped=0
    )


@pytest.fixture(scope="module")
def good() -> MixturePosterior:
    return digits(0.04)


def test_a_good_solution_passes(good: MixturePosterior) -> None:
    found = good.confirmation
    assert found.holds()
    assert found.missing_probability < 2e-3 and found.kernel_difference < 5e-3
    assert found.field_difference < 3 * found.field_error


def test_a_removed_branch_is_found(good: MixturePosterior) -> None:
    """Branches of 2 % and of a third: their shares are measured."""
    kernel, probabilities = good.kernel_parts(1).total, good.point.probabilities
    small = int(np.argmin(np.where(probabilities > 0.01, probabilities, 1.0)))
    found = confirm(without(good.point, small), kernel)
    assert not found.holds()
    assert found.missing_probability == pytest.approx(probabilities[small], rel=0.3)
    large = confirm(without(good.point, int(probabilities.argmax())), kernel)
    assert not large.holds() and large.missing_probability > 0.1


def test_a_solution_that_misses_a_branch_is_not_believed() -> None:
    """EP's residual is 5e-7; at the t that exact neurons ask for, a branch has 6 %."""
    found = digits(0.1).confirmation
    assert not found.holds()
    assert 0.04 < found.missing_probability < 0.1
    assert 0.01 < found.kernel_difference < 0.04 and found.field_difference > 4 * found.field_error


def test_jumps_leave_the_exact_law_alone() -> None:
    """Two wells of known share, by a mixture of the wrong weights and widths."""
    rng = np.random.default_rng(0)
    law = NeuronLaw(np.array([[1.5]]), np.array([[2.5]]), 1.0, flt.Sigmoid())
    grid = np.linspace(-8.0, 8.0, 4001)[:, None]
    density = np.exp(law.log_density(grid))
    exact = float((density * (grid[:, 0] > 0.5)).sum() / density.sum())
    clusters = GaussianClusters(np.array([0.5, 0.5]), np.array([[-0.5], [1.5]]), np.array([[[1.2]], [[1.0]]]))
    latent = rng.standard_normal((20_000, 1))
    for _ in range(12):
        for renewal in (0.0, 0.5, 1.0):
            latent, accepted = clusters.jump(law, latent, rng, renewal=renewal)
    assert 0.1 < accepted <= 1.0
    assert float((latent[:, 0] > 0.5).mean()) == pytest.approx(exact, abs=4 * 0.5 / 20_000**0.5)
    assert (
        abs(float((rng.standard_normal(20_000) > 0.5).mean()) - exact) > 0.1
    )  # the negative twin: the start


def test_clusters_of_separate_points() -> None:
    rng = np.random.default_rng(1)
    member = np.arange(300) % 3
    points = 10.0 * np.eye(3)[member] + rng.standard_normal((300, 3))
    centres = cluster_centres(points, 3, rng)
    found = nearest(points, centres)
    assert len(centres) == 3 and all(len(np.unique(found[member == c])) == 1 for c in range(3))


def test_a_cluster_of_few_is_as_wide_as_the_branch(good: MixturePosterior) -> None:
    """Three neurons do not tell 40 widths; the law's expansion around them does. The twin: the prior's."""
    problem, rng = good.point.problem, np.random.default_rng(2)
    law = NeuronLaw(problem.kernel_factor, good.field, problem.readout_variance, problem.nonlinearity)
    branch = int(good.point.probabilities.argmax())
    rank = problem.kernel_factor.shape[1]
    mean = good.point.branches.latent_mean[branch, :rank]
    covariance = good.point.branches.latent_covariance[branch, :rank, :rank]
    latent = mean + rng.standard_normal((2000, rank)) @ np.linalg.cholesky(covariance).T
    latent = HamiltonianMoves(rng)(law, latent, 5)
    one = np.zeros(2000, dtype=np.int64)
    assert np.abs(fit_clusters(law, latent, one).means[0] - mean).max() < 0.15
    few = fit_clusters(law, latent[:3], one[:3]).roots[0]
    prior = np.linalg.norm(np.eye(rank) - covariance)
    assert np.linalg.norm(few @ few.T - covariance) < 0.5 * prior
