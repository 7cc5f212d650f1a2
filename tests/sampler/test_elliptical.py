"""Moves along ellipses: where they stay, and when they give up."""

import math

import pytest
import torch
from textbook import Gaussian, exact_draws, run

from fltheory.sampler.base import Target
from fltheory.sampler.elliptical import EllipticalSlice, PreconditionedCrankNicolson

FACTOR = torch.tensor([0.5, 2.0], dtype=torch.float64)


def normal(x):
    return -0.5 * (x / FACTOR).square().sum(1)


def moments(sampler, factor, n_steps, power=1.0):
    """|z| of the second moments of N(0, FACTOR^2) after steps of 20000 chains from exact draws of it.

    Two numbers beyond 4.5 by chance: 1e-5; 1 % is a standard error.
    """
    target = Target.from_function(2, lambda x: power * normal(x), factor)
    generator = torch.Generator().manual_seed(0)
    x = FACTOR * torch.randn(20000, 2, generator=generator, dtype=torch.float64)
    state = sampler.init(target, x, generator)
    draws, infos, _ = run(sampler, target, state, generator, n_steps)
    z = ((draws[:, -1] / FACTOR).square().mean(0) - 1.0) / math.sqrt(2.0 / len(x))
    return z.abs().max(), infos, draws


@pytest.mark.parametrize("sampler", [EllipticalSlice(), PreconditionedCrankNicolson(step_size=0.7)])
def test_without_a_likelihood_every_proposal_is_accepted(sampler):
    z, infos, draws = moments(sampler, FACTOR, n_steps=3)
    assert z < 4.5
    assert all((info.acceptance > 1 - 1e-9).all() for info in infos)
    # the first proposal is taken: angles are uniform on the ellipse, and consecutive draws uncorrelated
    if isinstance(sampler, EllipticalSlice):
        correlation = (draws[:, 0] * draws[:, 1] / FACTOR**2).mean(0)
        assert (correlation.abs() < 4.5 / math.sqrt(len(draws))).all()


@pytest.mark.parametrize("sampler", [EllipticalSlice(), PreconditionedCrankNicolson(step_size=0.7)])
@pytest.mark.parametrize("factor", [1.0, 3.0, FACTOR.flip(0)])
def test_any_factor_gives_the_same_density(sampler, factor):
    assert moments(sampler, factor, n_steps=5)[0] < 4.5


@pytest.mark.parametrize("sampler", [EllipticalSlice(), PreconditionedCrankNicolson(step_size=0.7)])
def test_a_density_that_differs_by_little_is_found(sampler):
    assert moments(sampler, 1.0, n_steps=5, power=1.2)[0] > 4.5


def test_a_narrow_likelihood_still_moves_every_chain():
    target = Target.from_function(2, lambda x: -0.5 * ((x - 1.0) / 1e-5).square().sum(1), 1.0)
    generator = torch.Generator().manual_seed(0)
    state = EllipticalSlice().init(target, torch.ones(100, 2, dtype=torch.float64), generator)
    draws, infos, _ = run(EllipticalSlice(), target, state, generator, 20)
    assert all(info.accepted.all() for info in infos)
    assert (draws - 1.0).abs().max() < 1e-4


def test_the_density_is_never_below_the_level():
    """Chains that have found their point stay there while others search: density and position agree."""
    target = Gaussian()
    generator = torch.Generator().manual_seed(0)
    state = EllipticalSlice().init(target, exact_draws(200, generator), generator)
    _, _, end = run(EllipticalSlice(), target, state, generator, 5)
    assert (end.log_density > -30.0).all()
    torch.testing.assert_close(end.log_density, target.log_density(end.position))


def test_a_density_that_changes_its_mind_is_an_error():
    values = iter(range(0, -10_000, -1))
    target = Target.from_function(1, lambda x: 0.0 * x[:, 0] + 1000.0 * next(values), 1.0)
    state = EllipticalSlice().init(target, torch.ones(3, 1), torch.Generator())
    with pytest.raises(RuntimeError, match=r"^log_density: expected .* in 3 of 3 chains"):
        EllipticalSlice().step(target, state, torch.Generator())


@pytest.mark.parametrize(
    ("factor", "error"),
    [
        (0.0, ValueError),
        (-1.0, ValueError),
        (math.nan, ValueError),
        ("1", TypeError),
        (True, TypeError),
        ([1.0, 2.0], TypeError),
        (torch.ones(3), ValueError),
        (torch.tensor([1.0, 0.0]), ValueError),
        (torch.tensor([1.0, math.inf]), ValueError),
        (torch.tensor([1, 2]), TypeError),
    ],
)
def test_bad_factors_are_named(factor, error):
    with pytest.raises(error, match="^gaussian_factor: expected"):
        Target.from_function(2, normal, factor)


@pytest.mark.parametrize("sampler", [EllipticalSlice(), PreconditionedCrankNicolson()])
def test_single_precision_stays_single_with_a_factor_in_double(sampler):
    target = Target.from_function(2, lambda x: -x.square().sum(1), FACTOR)
    generator = torch.Generator().manual_seed(0)
    draws, _, _ = run(sampler, target, sampler.init(target, torch.ones(3, 2), generator), generator, 3)
    assert draws.dtype == torch.float32
