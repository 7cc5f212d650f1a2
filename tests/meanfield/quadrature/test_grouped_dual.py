"""S on frozen points: its derivatives."""

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings

import fltheory as flt
from fltheory.meanfield.quadrature.dual import GroupedDual
from fltheory.meanfield.quadrature.groups import GroupedTargets
from fltheory.meanfield.quadrature.proposal import find_proposal
from fltheory.meanfield.quadrature.sites import IndependentSites
from fltheory.testing.strategies import seeds


@given(seeds)
@settings(max_examples=10)
def test_the_gradient_and_the_hessian_on_frozen_points(seed: int) -> None:
    task = flt.OrthogonalClassification(24, (0.5, 0.5))
    groups = GroupedTargets.of(task.targets, np.ones(24))
    sites = IndependentSites(groups.variances, flt.Sigmoid())
    rng = np.random.default_rng(seed)
    field = np.array([[3.0, -1.0], [-1.0, 3.0]]) + 0.3 * rng.standard_normal((2, 2))
    proposal = find_proposal(groups, sites, field, 1 / 24, np.empty((0, 2)), [], 512, seed)
    dual = GroupedDual(groups, sites, 0.1, 1 / 24, proposal)
    here, direction, step = dual(field), rng.standard_normal((2, 2)), 1e-5
    there, back = dual(field + step * direction), dual(field - step * direction)
    weighted = groups.counts[:, None] * here.gradient
    assert (there.value - back.value) / (2 * step) == pytest.approx(np.sum(weighted * direction), rel=1e-6)
    change = (there.gradient - back.gradient) / (2 * step)  # the Hessian along the direction
    probe = evolve(here, gradient=change)
    np.testing.assert_allclose(-probe.newton_step(), direction, rtol=1e-4, atol=1e-6)
