"""The rule that chooses among candidates, and block updates beyond the laws of all samplers."""

import math

import pytest
import torch
from textbook import Gaussian, start

from fltheory.sampler.alternate import Alternate
from fltheory.sampler.blocks import BlockIndependence, choose
from fltheory.sampler.hmc import HMC, MALA
from fltheory.sampler.langevin import Langevin

N = 200_000  # shares are known to 0.1 %


def share(log_weights):
    """How often each candidate is chosen and the probability reported, of N equal chains."""
    weights = torch.tensor(log_weights, dtype=torch.float64).repeat(N, 1)
    choice, probability = choose(weights, torch.Generator().manual_seed(0))
    return choice.bincount(minlength=len(log_weights)) / N, probability


def test_one_candidate_is_accepted_as_metropolis_says():
    assert abs(share([math.log(0.3), 0.0])[0][0] - 0.3) < 4.5 * math.sqrt(0.21 / N)
    assert share([1.0, 0.0])[0][0] == 1.0


def test_of_several_candidates_each_is_chosen_by_its_weight_and_the_rest():
    # w = 1, 2, 4 against 3: candidate c has w_c / 7 times min(1, 7 / (7 - w_c + 3)). By chance: 3e-5.
    shares, _ = share([math.log(w) for w in (1.0, 2.0, 4.0, 3.0)])
    w = torch.tensor([1.0, 2.0, 4.0])
    expected = w / 7.0 * (7.0 / (10.0 - w)).clamp(max=1.0)
    assert ((shares[:3] - expected).abs() < 4.5 * (expected * (1 - expected) / N).sqrt()).all()
    assert shares[3] == pytest.approx(1.0 - float(expected.sum()), abs=0.005)


@pytest.mark.parametrize("nothing", [math.nan, -math.inf])
def test_a_candidate_without_a_weight_is_never_chosen(nothing):
    assert share([nothing, 0.0, 0.0])[0][0] == 0.0
    assert share([nothing, nothing, 0.0])[0].tolist() == [0.0, 0.0, 1.0]
    assert share([0.0, nothing])[0][0] == (nothing == -math.inf)  # out of a place without density: yes


@pytest.mark.parametrize(("n_updates", "n_visited"), [(None, 4), (1, 2), (2, 2), (3, 4), (100, 6)])
def test_blocks_are_visited_there_and_back(n_updates, n_visited):
    order = BlockIndependence(n_updates=n_updates)._draw_order(3, torch.Generator().manual_seed(0))
    assert len(order) == n_visited and order == order[::-1]
    assert len(set(order)) == n_visited // 2


def test_more_candidates_are_accepted_more_often():
    target = Gaussian()
    rates = []
    for k in (1, 3, 10):
        state, generator = start(BlockIndependence(), target, 2000)
        _, info = BlockIndependence(n_candidates=k).step(target, state, generator)
        rates.append(info.acceptance.mean())
    assert rates[0] + 0.05 < rates[1] and rates[1] + 0.05 < rates[2]


def test_alternate_goes_there_and_back_and_counts():
    target = Gaussian()
    sampler = Alternate(HMC(n_leapfrog=4, jitter=0.0), MALA(), BlockIndependence())
    state, generator = start(sampler, target, 3)
    new, info = sampler.step(target, state, generator)
    assert [int(part.n_steps[0]) for part in info.parts] == [8, 2, 1]
    assert (info.n_steps == 11).all()
    assert torch.equal(info.acceptance, info.parts[0].acceptance)
    adapted = sampler.adapt(target, new, info, 1)
    names = {"0/step_size_current", "1/step_size_current"}
    assert names <= set(adapted.memory) == set(state.memory)
    assert not any(torch.equal(adapted.memory[name], state.memory[name]) for name in names)


def test_alternate_of_one_is_that_one():
    target = Gaussian()
    for part in (HMC(), Langevin(friction=1.0)):
        ends = []
        for sampler in (part, Alternate(part)):
            state, generator = start(sampler, target, 3)
            ends.append(sampler.step(target, state, generator)[0].position)
        assert torch.equal(*ends)


@pytest.mark.parametrize("samplers", [(), (HMC,), (HMC(), 1)])
def test_bad_samplers_are_named(samplers):
    with pytest.raises((TypeError, ValueError), match="^samplers: expected"):
        Alternate(*samplers)


@pytest.mark.parametrize("name", ["n_candidates", "n_updates"])
@pytest.mark.parametrize("value", [0, 1.0, True, "1"])
def test_bad_numbers_are_named(name, value):
    with pytest.raises((TypeError, ValueError), match=f"^{name}: expected an integer"):
        BlockIndependence(**{name: value})
