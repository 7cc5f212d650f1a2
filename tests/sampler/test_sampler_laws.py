"""Laws of every sampler, on textbook densities: each is one test over all of them."""

import math

import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from textbook import (
    MEAN,
    AlwaysAccept,
    Gaussian,
    exact_draws,
    largest_deviation,
    quartic,
    run,
    start,
    uneven,
    warm_up,
)

from fltheory.sampler.alternate import Alternate
from fltheory.sampler.base import State, Target
from fltheory.sampler.blocks import BlockIndependence
from fltheory.sampler.elliptical import EllipticalSlice, PreconditionedCrankNicolson
from fltheory.sampler.hmc import HMC, MALA
from fltheory.sampler.langevin import Langevin
from fltheory.sampler.nuts import NUTS

# Samplers of any differentiable density, those that need a Gaussian factor, and one that needs blocks.
FREE = {
    "HMC": HMC(n_leapfrog=5, step_size=0.4),
    "MALA": MALA(step_size=0.4),
    "NUTS": NUTS(step_size=0.5, max_depth=3),
}
EXACT = FREE | {
    "HMC with scales": HMC(n_leapfrog=5, step_size=0.4, learn_scales=True),
    "MALA with scales": MALA(step_size=0.4, learn_scales=True),
    "NUTS with scales": NUTS(step_size=0.5, max_depth=2, learn_scales=True),
    "EllipticalSlice": EllipticalSlice(),
    "PreconditionedCrankNicolson": PreconditionedCrankNicolson(step_size=0.4),
    "BlockIndependence": BlockIndependence(),
    "BlockIndependence of 3": BlockIndependence(n_candidates=3),
    "Alternate": Alternate(HMC(n_leapfrog=2, step_size=0.4), BlockIndependence(), EllipticalSlice()),
}
LANGEVIN = {
    "Langevin": Langevin(step_size=0.05),
    "Langevin with friction": Langevin(step_size=0.2, friction=1.0),
}
ALL = EXACT | LANGEVIN
ADAPTIVE = {
    "HMC": HMC(n_leapfrog=10, step_size=3.0, target_acceptance=0.7),
    "MALA": MALA(step_size=3.0),
    "NUTS": NUTS(step_size=3.0, max_depth=3),
    "HMC with scales": HMC(n_leapfrog=4, step_size=1e-3, learn_scales=True),
    "MALA with scales": MALA(step_size=1e-3, learn_scales=True),
    "PreconditionedCrankNicolson": PreconditionedCrankNicolson(step_size=30.0),
}


def over(samplers):
    return pytest.mark.parametrize("sampler", samplers.values(), ids=samplers.keys())


@frozen
class Reweighted(Target):
    """The Gaussian to a power: what a kernel without its weights might sample."""

    dimension = 3
    gaussian_factor = 1.5

    def log_density(self, x):
        return 1.2 * Gaussian().log_density(x)


WRONG = {
    "always accepted": (AlwaysAccept(), Gaussian()),
    "density of the proposal left out": (BlockIndependence(), Gaussian(with_proposal=False)),
    "the same of 3": (BlockIndependence(n_candidates=3), Gaussian(with_proposal=False)),
    "old weight left out": (BlockIndependence(n_candidates=3), Gaussian(with_old=False)),
    "covariance 17 % too small": (NUTS(step_size=0.5), Reweighted()),
}
RIGHT = {name: (sampler, Gaussian()) for name, sampler in EXACT.items()}


@pytest.mark.parametrize(("sampler", "target", "is_right"), [
    *(pytest.param(*case, True, id=name) for name, case in RIGHT.items()),
    *(pytest.param(*case, False, id=name) for name, case in WRONG.items()),
])  # fmt: skip
def test_a_gaussian_is_invariant_and_wrong_kernels_are_found(sampler, target, is_right):
    # 1000 independent chains from exact draws, so that errors are those of means of 1000 numbers: 4 % of
    # a standard deviation for the slowest, 2 % for HMC. Nine numbers beyond 4.5 by chance: 6e-5 a
    # sampler; a bias of 7 standard errors is missed with 6e-3.
    generator = torch.Generator().manual_seed(2)
    state = sampler.init(target, exact_draws(1000, generator), generator)
    if "scales_current" in state.memory:
        state = state.remembering(scales_current=torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64))
    draws, _, _ = run(sampler, target, state, generator, 25)
    assert (largest_deviation(draws) < 4.5) == is_right


@over(ALL)
def test_what_a_step_reports(sampler):
    target = Gaussian()
    state, generator = start(sampler, target, 5)
    new, info = sampler.step(target, state, generator)
    parts = [info, *info.parts]
    for part in parts:
        for name in ("acceptance", "accepted", "diverged", "energy", "n_steps", "step_size"):
            assert getattr(part, name).shape == (5,)
        assert part.accepted.dtype == part.diverged.dtype == torch.bool
        assert ((part.acceptance >= 0) & (part.acceptance <= 1)).all()
        assert (part.n_steps >= 1).all()
    value, gradient = target.value_and_gradient(new.position)
    torch.testing.assert_close(new.log_density, value, rtol=0, atol=1e-12)
    torch.testing.assert_close(new.gradient, gradient, rtol=0, atol=1e-12)
    moved = (new.position != state.position).any(1)
    assert torch.equal(moved, torch.stack([part.accepted for part in parts]).any(0))


@over(ALL)
def test_single_precision_stays_single(sampler):
    target = Gaussian()
    x = exact_draws(3, torch.Generator().manual_seed(0)).float()
    generator = torch.Generator().manual_seed(0)
    end = warm_up(sampler, target, sampler.init(target, x, generator), generator, 25)
    tensors = {"x": end.position, "v": end.log_density, "g": end.gradient, **end.memory}
    assert {name: value.dtype for name, value in tensors.items()} == dict.fromkeys(tensors, torch.float32)
    assert all(value.isfinite().all() for value in tensors.values())


@over(ALL)
def test_same_generator_same_chain(sampler):
    target = Gaussian()
    draws = [run(sampler, target, *start(sampler, target, 2, seed=3), 10)[0] for _ in range(2)]
    other = run(sampler, target, *start(sampler, target, 2, seed=4), 10)[0]
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], other)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@over(ALL)
def test_a_chain_that_is_not_finite_leaves_the_others_as_they_are(sampler, bad):
    target = Gaussian()
    x = exact_draws(3, torch.Generator().manual_seed(0))
    broken = x.clone()
    broken[1, 0] = bad

    def trial(x):
        generator = torch.Generator().manual_seed(1)
        return run(sampler, target, sampler.init(target, x, generator), generator, 10)

    good, _, end = trial(x)
    mixed, infos, mixed_end = trial(broken)
    assert torch.equal(mixed[[0, 2]], good[[0, 2]])
    assert torch.equal(mixed_end.gradient[[0, 2]], end.gradient[[0, 2]])
    assert not any(info.accepted[1] for info in infos if not info.parts)
    reported = [part for info in infos for part in (info.parts or (info,))]
    if any(part.diverged.any() for part in reported):  # a sweep over blocks knows no energy
        assert all(info.diverged[1] for info in infos)
    assert not any(info.diverged[[0, 2]].any() for info in infos)


@over(ALL)
def test_a_state_can_be_written_down_and_read_back(sampler):
    target = Gaussian()
    state, generator = start(sampler, target, 4)
    for iteration in range(1, 26):
        state, info = sampler.step(target, state, generator)
        state = sampler.adapt(target, state, info, iteration)
    arrays = {name: value.numpy().copy() for name, value in state.memory.items()}
    memory = {name: torch.from_numpy(array) for name, array in arrays.items()}
    again = State(state.position.clone(), state.log_density.clone(), state.gradient.clone(), memory)
    for origin in (state, sampler.settle(target, state)):
        copy = again if origin is state else sampler.settle(target, again)
        ends = [
            sampler.adapt(target, *sampler.step(target, s, torch.Generator().manual_seed(5)), 26)
            for s in (origin, copy)
        ]
        assert torch.equal(ends[0].position, ends[1].position)
        assert ends[0].memory.keys() == ends[1].memory.keys()
        assert all(torch.equal(ends[0].memory[name], ends[1].memory[name]) for name in ends[0].memory)


@over(ALL)
def test_nothing_is_learned_after_the_warm_up(sampler):
    target = Gaussian()
    state, generator = start(sampler, target, 4)
    state = warm_up(sampler, target, state, generator, 25)
    _, _, end = run(sampler, target, state, generator, 5)
    learned = {name for name in state.memory if "momentum" not in name}
    assert all(torch.equal(end.memory[name], state.memory[name]) for name in learned)


@over(ALL)
def test_another_target_is_seen_from_the_same_place(sampler):
    target, other = Gaussian(), Reweighted()
    state, _ = start(sampler, target, 4)
    new = sampler.refresh(other, state)
    assert torch.equal(new.position, state.position) and new.memory == state.memory
    torch.testing.assert_close(new.log_density, 1.2 * state.log_density)
    torch.testing.assert_close(new.gradient, 1.2 * state.gradient)


@pytest.mark.parametrize("outside", [-math.inf, math.nan])
@over(FREE | LANGEVIN | {"EllipticalSlice": EllipticalSlice(), "pCN": PreconditionedCrankNicolson()})
def test_positions_without_a_finite_density_are_refused_and_counted(sampler, outside):
    sampler = evolve(sampler, step_size=0.5) if not isinstance(sampler, EllipticalSlice) else sampler
    target = Target.from_function(1, lambda x: torch.where(x < 1.0, -0.5 * x**2, outside)[:, 0], 1.0)
    generator = torch.Generator().manual_seed(0)
    state = sampler.init(target, torch.zeros(50, 1, dtype=torch.float64), generator)
    draws, infos, end = run(sampler, target, state, generator, 50)
    diverged = torch.stack([info.diverged for info in infos])
    assert (draws < 1.0).all()
    assert end.log_density.isfinite().all()
    assert end.gradient.isfinite().all()
    if isinstance(sampler, EllipticalSlice):  # it looks until it finds a place
        assert not diverged.any()
        return
    assert 0.01 < diverged.double().mean() < 0.9
    if not isinstance(sampler, NUTS):  # whose trajectory may move before it diverges
        accepted = torch.stack([info.accepted for info in infos])
        assert not (diverged & accepted).any()


@over(ADAPTIVE)
def test_warm_up_reaches_the_acceptance_it_aims_at(sampler):
    # The mean over 16 chains, each with its own step size. Averaging the logarithm of one that
    # fluctuates errs on the safe side where acceptance is a concave function of it, as at 0.6 and 0.8, and
    # on the other where it is convex, as at 0.3.
    target, _ = uneven(20, 1.0)
    state, generator = start(sampler, target, 16)
    state = warm_up(sampler, target, state, generator, 150)
    assert state.memory["step_size_current"].unique().numel() == 16
    _, infos, _ = run(sampler, target, state, generator, 50)
    acceptance = torch.stack([info.acceptance for info in infos]).mean()
    assert -0.1 < acceptance - sampler.target_acceptance < 0.16


BAD = {
    "step_size": [(0.0, ValueError), (math.nan, ValueError), ("1", TypeError), (True, TypeError)],
    "target_acceptance": [(1.0, ValueError), (0.0, ValueError), (None, TypeError)],
    "learn_scales": [(1, TypeError), (None, TypeError)],
    "n_leapfrog": [(0, ValueError), (2.0, TypeError), (True, TypeError)],
    "jitter": [(-0.1, ValueError), (1.0, ValueError)],
    "max_depth": [(0, ValueError), (16, ValueError), (3.0, TypeError)],
    "friction": [(0.0, ValueError), (-1.0, ValueError), (math.inf, ValueError), ("1", TypeError)],
}
ARGUMENTS = {
    HMC: ["n_leapfrog", "step_size", "target_acceptance", "learn_scales", "jitter"],
    MALA: ["step_size", "target_acceptance", "learn_scales"],
    NUTS: ["max_depth", "step_size", "target_acceptance", "learn_scales"],
    Langevin: ["step_size", "friction"],
    PreconditionedCrankNicolson: ["step_size", "target_acceptance"],
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in ARGUMENTS.items() for name in names]
)
def test_bad_arguments_are_named(kind, name):
    for value, error in BAD[name]:
        with pytest.raises(error, match=f"^{name}: expected"):
            kind(**{name: value})


@pytest.mark.parametrize("sampler", [EllipticalSlice(), PreconditionedCrankNicolson(), BlockIndependence()])
def test_a_target_without_what_a_sampler_needs_is_refused(sampler):
    target = Target.from_function(2, lambda x: -(x**2).sum(1))
    with pytest.raises(ValueError, match=r"^target: expected one .*, got _FunctionTarget without"):
        sampler.init(target, torch.ones(1, 2), torch.Generator())


@over(ALL)
def test_bad_positions_are_named(sampler):
    for x, error in (
        (np.zeros((2, 3)), TypeError),
        (torch.zeros(2, 4), ValueError),
        (torch.ones(3), ValueError),
    ):
        with pytest.raises(error, match="^x: expected a real floating-point tensor of shape"):
            sampler.init(Gaussian(), x, torch.Generator())


@over({name: sampler for name, sampler in ALL.items() if "scales" not in name})
def test_the_mean_of_a_far_start_is_found(sampler):
    # From 1.5 standard deviations or more away, 128 chains: their mean is within 6 standard errors.
    target = Gaussian()
    generator = torch.Generator().manual_seed(0)
    state = sampler.init(target, MEAN + torch.full((128, 3), 1.5, dtype=torch.float64), generator)
    for iteration in range(1, 81):
        state, info = sampler.step(target, state, generator)
        state = sampler.adapt(target, state, info, iteration)
    assert ((state.position.mean(0) - MEAN).abs() < 6 / math.sqrt(128)).all()


def test_second_moments_of_a_quartic_by_two_samplers_agree():
    # Independent kernels and independent chains: a difference of 8 % of the second moment shows.
    moments = []
    for sampler in (NUTS(step_size=0.2, max_depth=3), EllipticalSlice()):
        state, generator = start(sampler, quartic(), 500)
        state = warm_up(sampler, quartic(), state, generator, 30)
        draws = run(sampler, quartic(), state, generator, 20)[0].square().mean((1, 2))
        moments.append((draws.mean(), draws.std() / math.sqrt(len(draws))))
    (a, da), (b, db) = moments
    assert abs(a - b) < 4.5 * math.hypot(da, db) < 0.08 * a
