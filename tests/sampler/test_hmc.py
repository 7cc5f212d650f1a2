"""The leapfrog, its laws and the jitter of HMC; MALA as a proposal of Langevin dynamics."""

import math

import numpy as np
import pytest
import torch
from attrs import frozen
from textbook import Gaussian, quartic, run, start

from fltheory.sampler.base import Target, metropolis, standard_normal
from fltheory.sampler.hmc import HMC, MALA, leapfrog


@pytest.mark.parametrize("steps", [torch.full((5, 1), 0.1), torch.tensor([[0.02, 0.05, 0.1, 0.15]])])
def test_leapfrog_is_reversible(steps):
    target = quartic()
    state, generator = start(HMC(), target, 5)
    momentum = standard_normal(state.position, generator)
    there, end_momentum = leapfrog(target, state, momentum, steps, 30)
    back, back_momentum = leapfrog(target, there, -end_momentum, steps, 30)
    assert (there.position - state.position).abs().max() > 0.1
    torch.testing.assert_close(back.position, state.position, rtol=0, atol=1e-9)
    torch.testing.assert_close(-back_momentum, momentum, rtol=0, atol=1e-9)


def test_energy_error_is_of_second_order():
    target = quartic()
    state, generator = start(HMC(), target, 64)
    momentum = standard_normal(state.position, generator)

    def error(step_size, n_steps):
        end, p = leapfrog(target, state, momentum, torch.full((64, 1), step_size), n_steps)
        change = 0.5 * (p**2 - momentum**2).sum(1) - end.log_density + state.log_density
        return change.abs().mean().item()

    errors = [error(0.04 / 2**k, 25 * 2**k) for k in range(3)]
    slopes = np.diff(np.log2(errors))
    np.testing.assert_allclose(slopes, -2.0, atol=0.02)  # 0.005 and 0.001 by the terms of fourth order


def test_unequal_steps_are_equal_steps_in_scaled_coordinates():
    target, scales = quartic(), torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    scaled = Target.from_function(4, lambda u: target.log_density(scales * u))
    state, generator = start(HMC(), target, 5)
    momentum = standard_normal(state.position, generator)
    image = HMC().init(scaled, state.position / scales, generator)
    end, p = leapfrog(target, state, momentum, 0.05 * scales, 10)
    image, q = leapfrog(scaled, image, momentum, torch.full((5, 1), 0.05), 10)
    torch.testing.assert_close(end.position, scales * image.position)
    torch.testing.assert_close(p, q)


def test_number_of_steps_is_jittered_within_its_range():
    target = Gaussian()
    state, generator = start(HMC(), target, 2)
    _, infos, _ = run(HMC(n_leapfrog=4, jitter=0.5), target, state, generator, 60)
    assert {int(info.n_steps[0]) for info in infos} == {2, 3, 4, 5, 6}


def test_mala_is_an_euler_step_of_langevin_dynamics_with_the_ratio_of_its_densities():
    target, size = quartic(), 0.3
    state, _ = start(MALA(step_size=size), target, 50)
    noise = standard_normal(state.position, torch.Generator().manual_seed(1))
    _, info = MALA().step(target, state, torch.Generator().manual_seed(1))
    x = state.position
    x_new = x + size**2 / 2 * state.gradient + size * noise
    value, gradient = target.value_and_gradient(x_new)

    def log_proposal(end, start, slope):
        return -0.5 * ((end - start - size**2 / 2 * slope) / size).square().sum(1)

    log_ratio = value + log_proposal(x, x_new, gradient)
    log_ratio = log_ratio - state.log_density - log_proposal(x_new, x, state.gradient)
    torch.testing.assert_close(info.acceptance, log_ratio.exp().clamp(max=1.0))


def test_metropolis_accepts_as_often_as_it_says():
    ratio = torch.tensor([0.3, 2.0, -1.0, math.nan, 0.0], dtype=torch.float64).log().repeat(40000, 1)
    ratio[:, 2] = -math.inf
    generator = torch.Generator().manual_seed(0)
    acceptance, accepted = metropolis(ratio.flatten(), generator)
    truth = torch.tensor([0.3, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(acceptance.view(-1, 5)[0], truth)
    share = accepted.view(-1, 5).double().mean(0)
    assert (share[1:] == truth[1:]).all()
    assert abs(share[0] - 0.3) < 4.5 * math.sqrt(0.21 / 40000)  # 1 % seen; by chance 7e-6


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
