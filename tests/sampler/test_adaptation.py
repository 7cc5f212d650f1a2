"""What is learned in warm-up: step sizes and scales."""

import math

import pytest
import torch
from attrs import evolve
from textbook import effective, run, start, uneven, warm_up

from fltheory.sampler.adaptation import Scales, StepSize
from fltheory.sampler.hmc import HMC, MALA
from fltheory.sampler.nuts import NUTS


def test_step_sizes_are_learned_afresh_from_iteration_one():
    size = StepSize.constant(torch.tensor([0.1, 0.2], dtype=torch.float64))
    low = torch.tensor([0.0, 0.0], dtype=torch.float64)
    used = size.updated(low, 1, 0.8).updated(low, 2, 0.8)
    again = evolve(used, current=size.current).updated(low, 1, 0.8)
    torch.testing.assert_close(again.current, size.updated(low, 1, 0.8).current)
    assert (used.current < size.current).all()


def draws(n: int, scale: torch.Tensor, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(n, 7, len(scale), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 3.0 + scale * noise


def learned(x: torch.Tensor, scales: Scales) -> Scales:
    for iteration, positions in enumerate(x, start=1):
        scales = scales.updated(positions, iteration)
    return scales


SPREAD = torch.tensor([0.01, 1.0, 5.0, 300.0], dtype=torch.float64)


def test_moments_are_those_of_all_positions_with_weights_in_proportion_to_the_iteration():
    x = draws(30, SPREAD)
    scales = learned(x, Scales.equal(x[0]))
    weight = torch.arange(1, 31, dtype=torch.float64)
    weight = (weight / weight.sum() / 7)[:, None, None]
    mean = (weight * x).sum((0, 1))
    torch.testing.assert_close(scales.mean, mean)
    torch.testing.assert_close(scales.variance, (weight * (x - mean) ** 2).sum((0, 1)))


def test_scales_are_standard_deviations_over_their_geometric_mean():
    # 100 x 7 independent positions: standard deviations are known to 3 %.
    scales = learned(draws(100, SPREAD), Scales.equal(SPREAD[None])).current
    torch.testing.assert_close(scales, SPREAD / SPREAD.log().mean().exp(), rtol=0.12, atol=0)
    assert scales.log().mean().abs() < 1e-12


def test_a_stage_starts_afresh_and_keeps_the_scales_until_it_knows_better():
    first = learned(draws(50, SPREAD), Scales.equal(SPREAD[None]))
    x = draws(19, SPREAD.flip(0), seed=1)
    waiting = learned(x, first)
    assert torch.equal(waiting.current, first.current)
    torch.testing.assert_close(waiting.variance, learned(x, Scales.equal(SPREAD[None])).variance)
    done = learned(draws(50, SPREAD.flip(0), seed=1), first)
    torch.testing.assert_close(done.current, SPREAD.flip(0) / SPREAD.log().mean().exp(), rtol=0.15, atol=0)


def test_chains_that_are_not_finite_or_never_moved_teach_nothing():
    x = draws(30, SPREAD)
    broken = torch.cat([x, torch.full_like(x[:, :1], math.nan)], 1)
    start = Scales.equal(x[0])
    assert torch.equal(learned(broken, start).current, learned(x, start).current)
    assert torch.equal(learned(torch.full_like(x, math.nan), start).current, start.current)
    assert torch.equal(learned(torch.ones_like(x), start).current, start.current)


def test_one_coordinate_that_never_moved_keeps_a_small_finite_scale():
    x = draws(30, SPREAD)
    x[..., 0] = 1.0
    scales = learned(x, Scales.equal(x[0])).current
    assert scales.isfinite().all() and (scales > 0).all()


@pytest.mark.parametrize(
    ("kind", "factor", "n_steps"),
    [(HMC, 30.0, 150), (MALA, 5.0, 250), pytest.param(NUTS, 30.0, 150, marks=pytest.mark.slow)],
)
def test_scales_over_two_decades_are_learned_and_pay(kind, factor, n_steps):
    # Measured: the smallest effective sample size of a coordinate, a gradient, grows 100 to 130 times for
    # HMC, 10 to 35 for MALA (whose 4 chains count as 4 without scales, though they hardly move) and 140
    # for NUTS. The same sampler twice has a ratio of 1 within a factor of 2.
    target, truth = uneven(20, 2.0)
    rate = {}
    for learn in (False, True):
        sampler = kind(learn_scales=learn)
        state, generator = start(sampler, target, 4)
        state = warm_up(sampler, target, state, generator, n_steps)
        x, infos, state = run(sampler, target, state, generator, n_steps)
        rate[learn] = effective(x) / sum(int(info.n_steps.sum()) for info in infos)
    ratio = state.memory["scales_current"] / truth
    assert ratio.max() < 1.4 * ratio.min()
    assert rate[True] > factor * rate[False]


def test_equal_coordinates_are_left_alone():
    target, _ = uneven(20, 0.0)
    sampler = HMC(n_leapfrog=3, learn_scales=True)
    state, generator = start(sampler, target, 8)
    scales = warm_up(sampler, target, state, generator, 100).memory["scales_current"]
    torch.testing.assert_close(scales, torch.ones_like(scales), rtol=0, atol=0.2)
