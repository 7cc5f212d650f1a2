"""HMC on textbook densities: the laws of the leapfrog, invariance with a negative twin, failures."""

import math

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from attrs import evolve, frozen

from fltheory.sampler.adaptation import StepSize
from fltheory.sampler.base import Sampler, State, Target, standard_normal
from fltheory.sampler.hmc import HMC, leapfrog

COVARIANCE = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.3], [0.0, 0.3, 0.5]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
PRECISION = torch.linalg.inv(COVARIANCE)


def gaussian() -> Target:
    def log_density(x):
        return -0.5 * (((x - MEAN) @ PRECISION) * (x - MEAN)).sum(1)

    return Target.from_function(3, log_density)


def quartic() -> Target:
    return Target.from_function(4, lambda x: -0.25 * (x**4).sum(1) - 0.5 * x.prod(1) ** 2)


def start(target: Target, n_chains: int, step_size: float, seed: int = 0) -> tuple[State, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    x = standard_normal(torch.empty(n_chains, target.dimension, dtype=torch.float64), generator)
    return HMC(step_size=step_size).init(target, x, generator), generator


def run(sampler: Sampler, target: Target, state: State, generator: torch.Generator, n: int):
    positions, infos = [], []
    for _ in range(n):
        state, info = sampler.step(target, state, generator)
        positions.append(state.position)
        infos.append(info)
    return torch.stack(positions, 1), infos, state  # (C, n, dim)


def test_leapfrog_is_reversible():
    target = quartic()
    state, generator = start(target, 5, 0.1)
    momentum = standard_normal(state.position, generator)
    step_size = torch.full((5,), 0.1, dtype=torch.float64)
    there, end_momentum = leapfrog(target, state, momentum, step_size, 30)
    back, back_momentum = leapfrog(target, there, -end_momentum, step_size, 30)
    assert (there.position - state.position).abs().max() > 0.1
    torch.testing.assert_close(back.position, state.position, rtol=0, atol=1e-9)
    torch.testing.assert_close(-back_momentum, momentum, rtol=0, atol=1e-9)


def test_energy_error_is_of_second_order():
    target = quartic()
    state, generator = start(target, 64, 0.1)
    momentum = standard_normal(state.position, generator)

    def error(step_size, n_steps):
        end, p = leapfrog(target, state, momentum, torch.full_like(state.log_density, step_size), n_steps)
        change = 0.5 * (p**2 - momentum**2).sum(1) - end.log_density + state.log_density
        return change.abs().mean().item()

    errors = [error(0.04 / 2**k, 25 * 2**k) for k in range(3)]
    slopes = np.diff(np.log2(errors))
    np.testing.assert_allclose(slopes, -2.0, atol=0.1)


def largest_deviation(draws: np.ndarray) -> float:
    """Largest |z| of the means and second moments of draws (C, D, 3), with errors from the ESS."""
    centred = draws - MEAN.numpy()
    i, j = np.triu_indices(3)
    moments = np.concatenate([centred, centred[..., i] * centred[..., j]], axis=-1)
    truth = np.concatenate([np.zeros(3), COVARIANCE.numpy()[i, j]])
    z = []
    for k, expected in enumerate(truth):
        values = moments[..., k]
        z.append((values.mean() - expected) / (values.std() / math.sqrt(array_stats.ess(values))))
    return float(np.abs(z).max())


@frozen
class AlwaysAccept(Sampler):
    """A wrong kernel: leapfrog without the Metropolis test."""

    def init(self, target, x, generator):
        return HMC(step_size=0.5).init(target, x, generator)

    def step(self, target, state, generator):
        _, info = HMC().step(target, state, generator)
        momentum = standard_normal(state.position, generator)
        proposal, _ = leapfrog(target, state, momentum, info.step_size, 3)
        return proposal, info


@pytest.mark.parametrize(
    ("sampler", "is_right"), [(HMC(n_leapfrog=5, step_size=0.4), True), (AlwaysAccept(), False)]
)
def test_hmc_leaves_a_gaussian_invariant_and_a_wrong_kernel_does_not(sampler, is_right):
    # About 1e4 effective draws: errors of 1 % of a standard deviation are 1 standard error. Nine
    # numbers beyond 4.5 by chance: 6e-5; a bias of 7 standard errors is missed with 6e-3.
    target = gaussian()
    state, generator = start(target, 32, 0.4)
    _, _, state = run(sampler, target, state, generator, 30)
    draws, _, _ = run(sampler, target, state, generator, 400)
    assert (largest_deviation(draws.numpy()) < 4.5) == is_right


def test_warm_up_recovers_from_a_step_size_thirty_times_too_large():
    scales = torch.logspace(-1, 1, 20, dtype=torch.float64)
    target = Target.from_function(20, lambda x: -0.5 * ((x / scales) ** 2).sum(1))
    sampler = HMC(n_leapfrog=10, step_size=3.0, target_acceptance=0.7)
    state, generator = start(target, 4, 3.0)
    for iteration in range(1, 301):
        state, info = sampler.step(target, state, generator)
        state = sampler.adapt(target, state, info, iteration)
    state = sampler.settle(target, state)
    _, infos, end = run(sampler, target, state, generator, 300)
    acceptance = torch.stack([info.acceptance for info in infos]).mean(0)
    # Averaging the logarithm of a fluctuating step size errs on the safe side, as in Stan.
    assert ((acceptance > 0.65) & (acceptance < 0.9)).all()
    assert end.memory == state.memory


def test_adaptation_starts_afresh_at_iteration_one():
    size = StepSize.constant(torch.tensor([0.1, 0.2], dtype=torch.float64))
    low = torch.tensor([0.0, 0.0], dtype=torch.float64)
    used = size.updated(low, 1, 0.8).updated(low, 2, 0.8)
    again = evolve(used, current=size.current).updated(low, 1, 0.8)
    torch.testing.assert_close(again.current, size.updated(low, 1, 0.8).current)
    assert (used.current < size.current).all()


@pytest.mark.parametrize("outside", [-math.inf, math.nan])
def test_proposals_without_a_finite_density_are_rejected_and_counted(outside):
    target = Target.from_function(1, lambda x: torch.where(x < 1.0, -0.5 * x**2, outside)[:, 0])
    sampler = HMC(n_leapfrog=4, step_size=0.5, jitter=0.0)
    generator = torch.Generator().manual_seed(0)
    state = sampler.init(target, torch.zeros(50, 1, dtype=torch.float64), generator)
    draws, infos, end = run(sampler, target, state, generator, 100)
    diverged = torch.stack([info.diverged for info in infos])
    accepted = torch.stack([info.accepted for info in infos])
    assert (draws < 1.0).all()
    assert end.log_density.isfinite().all()
    assert end.gradient.isfinite().all()
    assert 0.02 < diverged.double().mean() < 0.9
    assert not (diverged & accepted).any()


def test_one_bad_chain_does_not_touch_the_others():
    target = gaussian()
    state, _ = start(target, 3, 0.3)
    bad = state.position.clone()
    bad[1] = math.nan
    sampler = HMC()
    good = sampler.step(target, state, torch.Generator().manual_seed(1))[0]
    other = sampler.init(target, bad, torch.Generator())
    other = evolve(other, memory=state.memory)
    mixed = sampler.step(target, other, torch.Generator().manual_seed(1))[0]
    torch.testing.assert_close(mixed.position[[0, 2]], good.position[[0, 2]])


def test_same_generator_same_chain():
    target = quartic()
    draws = [run(HMC(), target, *start(target, 2, 0.1, seed=3), 10)[0] for _ in range(2)]
    assert torch.equal(*draws)


def test_number_of_steps_is_jittered_within_its_range():
    target = gaussian()
    state, generator = start(target, 2, 0.1)
    _, infos, _ = run(HMC(n_leapfrog=4, jitter=0.5), target, state, generator, 60)
    assert {int(info.n_steps[0]) for info in infos} == {2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("n_leapfrog", 0, ValueError),
        ("n_leapfrog", 2.0, TypeError),
        ("n_leapfrog", True, TypeError),
        ("step_size", 0.0, ValueError),
        ("step_size", math.nan, ValueError),
        ("step_size", "1", TypeError),
        ("target_acceptance", 1.0, ValueError),
        ("target_acceptance", 0.0, ValueError),
        ("jitter", -0.1, ValueError),
        ("jitter", 1.0, ValueError),
    ],
)
def test_bad_arguments_are_named(name, value, error):
    with pytest.raises(error, match=name):
        HMC(**{name: value})


@frozen
class OwnGradient(Target):
    """A normal density that torch cannot differentiate, and its gradient."""

    dimension = 2

    def log_density(self, x):
        return -0.5 * x.detach().square().sum(1)

    def value_and_gradient(self, x):
        return self.log_density(x), -x


def test_a_target_with_its_own_gradient_need_not_be_differentiable():
    x = torch.ones(3, 2)
    state = HMC().init(OwnGradient(), x, torch.Generator())
    torch.testing.assert_close(state.gradient, -x)
    with pytest.raises(ValueError, match="^log_density: expected a function that torch can differentiate"):
        Target.value_and_gradient(OwnGradient(), x)


@pytest.mark.parametrize("n_chains", [1, 2, 3])
def test_a_density_that_mixes_chains_is_refused_however_many_there_are(n_chains):
    target = Target.from_function(2, lambda x: -(x**2).sum())
    with pytest.raises(ValueError, match=rf"^log_density .*\({n_chains},\), got a tensor of shape \(\)"):
        HMC().init(target, torch.ones(n_chains, 2), torch.Generator())


@pytest.mark.parametrize(("dimension", "function"), [(0, abs), (1.5, abs), (True, abs), (1, "log")])
def test_bad_functions_are_named(dimension, function):
    with pytest.raises((TypeError, ValueError), match=r"dimension|log_density"):
        Target.from_function(dimension, function)
