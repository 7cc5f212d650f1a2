"""Imposed fractions of codes in the last layer of deep networks on orthogonal inputs."""

import numpy as np
import pytest
from attrs import evolve
from deep_cases import orthogonal

import fltheory as flt
from fltheory.testing import check_solution

RATIOS = (0.5, 0.25, 0.25)
# About those of networks that were not cooled slowly. Codes are stable only where others share the work.
FRACTIONS = {
    (1, 1, 0): 0.25,
    (1, 0, 1): 0.25,
    (0, 1, 1): 0.25,
    (1, 0, 0): 0.11,
    (0, 0, 1): 0.07,
    (0, 1, 0): 0.07,
}
CASE = orthogonal(24, RATIOS)


def shares(theory):
    """Probability of each code."""
    found = {}
    for branch in theory.branches:
        found[branch.code] = found.get(branch.code, 0.0) + branch.probability
    return found


@pytest.fixture(scope="module")
def free():
    return CASE.solve()


@pytest.fixture(scope="module")
def frozen():
    return CASE.solve(code_fractions=FRACTIONS)


def test_codes_have_the_fractions_imposed_and_the_laws_hold(free, frozen):
    assert shares(frozen) == pytest.approx(FRACTIONS, abs=1e-7)
    assert frozen.free_energy > free.free_energy + 0.05  # the free theory is the best of all
    check_solution(frozen)


def test_the_fractions_of_the_free_theory_give_it_back(free):
    again = CASE.solve(code_fractions=shares(free))
    for layer in (1, 2):
        np.testing.assert_allclose(again.kernel(layer), free.kernel(layer), atol=1e-3)
    assert again.free_energy == pytest.approx(free.free_energy, rel=1e-4)


def test_neurons_are_drawn_with_these_fractions(frozen):
    neurons = frozen.neurons(4000, 2)
    codes = flt.find_codes(neurons.activations, labels=CASE.task.labels)
    counted = dict(zip(map(tuple, codes.codes.tolist()), codes.fractions, strict=True))
    for code, share in FRACTIONS.items():  # 4000 neurons, stratified: standard errors below 0.008
        assert counted.get(code, 0.0) == pytest.approx(share, abs=0.03)
    drawn = neurons.activations.T @ neurons.activations / 4000
    np.testing.assert_allclose(drawn, frozen.kernel(2), atol=0.03)


def test_another_algorithm_agrees(frozen):
    """Expectation propagation on a lattice, to its own accuracy."""
    other = CASE.solve(method="ep", code_fractions=FRACTIONS)
    for layer in (1, 2):
        np.testing.assert_allclose(other.kernel(layer), frozen.kernel(layer), atol=4e-3)


def test_a_code_that_no_neuron_can_have_is_refused():
    one_sided = {(0, 0, 0): 0.5, (1, 1, 1): 0.5}
    with pytest.raises(ValueError, match=r"code_fractions: .*none"):
        CASE.solve(code_fractions=one_sided)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_networks_that_are_frozen_agree_at_their_own_fractions():
    """Three hidden layers, from draws of the prior: the last kernel is that of the shares they happen on.

    The gap to the free theory is the negative twin; what is left is of order 1/N.
    """
    p = evolve(orthogonal(60, RATIOS, depth=3), width=120, temperature=0.02 / 120)
    start = evolve(p, temperature=np.inf).sample(flt.HMC(), n_draws=1, n_chains=2, n_warmup=0, seed=1)
    networks = p.sample(flt.HMC(), n_draws=30, n_chains=2, n_warmup=200, start=start, thin=2, seed=1)
    own, free = p.solve(code_fractions=flt.code_fractions(networks)), p.solve()
    gaps = [np.sqrt(((networks.kernel(3) - theory.kernel(3)) ** 2).mean()) for theory in (own, free)]
    assert gaps[0] < 0.005
    assert gaps[1] > 10 * gaps[0]
