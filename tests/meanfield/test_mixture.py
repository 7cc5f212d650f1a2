"""Gaussians for the preactivations of a neuron, against neurons drawn from the solution."""

from functools import cache

import numpy as np
import pytest

from fltheory import (
    ArrayTask,
    DeepNetworkPosterior,
    Erf,
    MeanFieldSolution,
    OrthogonalClassification,
    Sigmoid,
)
from fltheory.meanfield import mixture
from fltheory.meanfield.mixture import preactivation_mixture


@cache
def orthogonal() -> MeanFieldSolution:
    task = OrthogonalClassification(n_samples=16, class_ratios=(0.5, 0.5))
    return DeepNetworkPosterior(task, Sigmoid(), width=300, temperature=1e-4).solve()


def correlated() -> MeanFieldSolution:
    """K_0 of rank 3 for 6 inputs."""
    rng = np.random.default_rng(0)
    task = ArrayTask(rng.normal(size=(6, 3)), 3.0 * rng.normal(size=6))
    return DeepNetworkPosterior(task, Erf(), width=100, temperature=1e-2).solve(method="ep")


@pytest.mark.parametrize("make", [orthogonal, correlated])
def test_moments_are_those_of_the_neurons(make) -> None:
    """Of 4000 neurons, within 5 standard errors and what EP is off by at this P, 5 % of second moments.

    The twin, neurons of the prior, is off by half of them.
    """
    solution = make()
    found = preactivation_mixture(solution)
    z = solution.neurons(4000, 1).preactivations
    allowed = 5.0 * z.std(0) / np.sqrt(len(z))
    assert (np.abs(found.weights @ found.means - z.mean(0)) < allowed).all()
    second = np.einsum("k,kpq->pq", found.weights, found.covariances)
    second += found.means.T @ (found.weights[:, None] * found.means)
    pairs = z[:, :, None] * z[:, None, :]
    allowed = 5.0 * pairs.std(0) / np.sqrt(len(z)) + 0.05 * np.abs(pairs.mean(0)).max()
    assert (np.abs(second - pairs.mean(0)) < allowed).all()
    assert (np.abs(solution.model.input_kernel - pairs.mean(0)) > allowed).any()


def test_every_branch_has_a_component() -> None:
    solution = orthogonal()
    found = preactivation_mixture(solution)
    codes = {tuple(np.round(m[[0, -1]] > 0).astype(int)) for m in found.means}
    assert {branch.code for branch in solution.branches} <= codes
    assert found.weights.sum() == pytest.approx(1.0)
    assert set(found.groups) == {0, 1}


def test_neurons_that_ep_misses_get_components(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without EP, each code of drawn neurons has one, at their mean."""
    solution = orthogonal()
    whole = preactivation_mixture(solution)
    none = lambda solution, factor: (np.empty(0), np.empty((0, 16)), np.empty((0, 16, 16)))  # noqa: E731
    monkeypatch.setattr(mixture, "_from_ep", none)
    drawn = preactivation_mixture(solution)
    for mean, weight in zip(whole.means, whole.weights, strict=True):
        if weight > 0.1:
            nearest = np.abs(drawn.means - mean).mean(1)
            assert nearest.min() < 0.1
