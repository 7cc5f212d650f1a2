"""Tempering: chains cross a barrier that a single chain does not, in the right proportion."""

import math

import numpy as np
import pytest
import torch
from attrs import evolve, field, frozen

from fltheory.sampler.alternate import Alternate
from fltheory.sampler.base import Info, Target
from fltheory.sampler.hmc import HMC, MALA
from fltheory.sampler.tempering import Tempering

SHARES = torch.tensor([0.3, 0.7], dtype=torch.float64)
CENTRES = torch.tensor([[-4.0, 0.0], [4.0, 1.0]], dtype=torch.float64)
WIDTH = 0.5


@frozen(eq=False)
class TwoPeaks(Target):
    """Two Gaussian peaks 16 widths apart; softened, to the power 1 / 30."""

    power: torch.Tensor = field(factory=lambda: torch.ones(1, dtype=torch.float64))

    @property
    def dimension(self):
        return 2

    def log_density(self, x):
        distance = ((x[:, None] - CENTRES.to(x)) ** 2).sum(-1) / (2 * WIDTH**2)
        return self.power.to(x) * (SHARES.log().to(x) - distance).logsumexp(1)

    def softened(self, level):
        return evolve(self, power=self.power * 30.0**-level)


def draws(sampler, n_draws=800, n_chains=16, n_warmup=200, target=None):
    target, generator = TwoPeaks() if target is None else target, torch.Generator().manual_seed(0)
    state = sampler.init(target, CENTRES[:1].repeat(n_chains, 1), generator)
    for iteration in range(1, n_warmup + 1):
        state, info = sampler.step(target, state, generator)
        state = sampler.adapt(target, state, info, iteration)
    state, kept, infos = sampler.settle(target, state), [], []
    for _ in range(n_draws):
        state, info = sampler.step(target, state, generator)
        kept.append(state.position)
        infos.append(info)
    return torch.stack(kept, 1).numpy(), infos, state  # (C, D, 2)


def test_tempering_finds_both_peaks_and_their_shares():
    # 16 chains that cross about every 30 steps: an error of 0.02 on the share; wrong by 0.1 is seen.
    x, infos, state = draws(Tempering(HMC(n_leapfrog=4), n_levels=6))
    right = x[..., 0] > 0
    error = right.mean(1).std(ddof=1) / math.sqrt(len(x))
    assert error < 0.04
    assert abs(right.mean() - 0.7) < 4.5 * error
    assert (np.diff(right.astype(int), axis=1) != 0).sum(1).min() > 5
    inside = x[right]
    np.testing.assert_allclose(inside.mean(0), [4.0, 1.0], atol=0.05)
    np.testing.assert_allclose(inside.var(0), WIDTH**2, rtol=0.1)
    rates = torch.stack([info.parts[-1].acceptance for info in infos]).mean()
    assert 0.1 < rates < 0.95
    assert state.memory["levels"][[0, -1]].tolist() == [0.0, 1.0]
    assert (state.memory["levels"].diff() > 0).all()


def test_a_single_chain_does_not_cross():
    x, _, _ = draws(HMC(n_leapfrog=4), n_draws=200)
    assert (x[..., 0] < 0).all()


@frozen
class ForgetsTheOther(Tempering):
    """A wrong exchange: only the colder copy has a say."""

    def _exchange(self, soft, inner, parities, generator):
        easier = evolve(soft, power=soft.power.clamp(min=1.0))
        return super()._exchange(easier, inner, parities, generator)


def test_a_wrong_exchange_gives_a_wrong_width():
    x, _, _ = draws(ForgetsTheOther(HMC(n_leapfrog=4), n_levels=6), n_draws=500)
    assert abs(x[x[..., 0] > 0].var(0) / WIDTH**2 - 1.0).max() > 0.2


def test_warm_up_evens_the_rates_of_exchange():
    uneven = Tempering(HMC(n_leapfrog=4), n_levels=4)

    def spread(n_warmup):
        _, _, state = draws(uneven, n_draws=1, n_chains=400, n_warmup=n_warmup)
        rates = state.memory["rates"]
        return float(rates.max() - rates.min())

    assert spread(150) < 0.6 * spread(0)


def test_exchanges_that_happened_are_told_from_those_that_might_have():
    """Two levels, one pair, tried twice a step: between p and 2 p of the chains, within chance."""
    _, infos, _ = draws(Tempering(HMC(n_leapfrog=4), n_levels=2), n_draws=3, n_chains=2000, n_warmup=100)
    for info in infos:
        exchanges = info.parts[-1]
        rate, happened = float(exchanges.acceptance.mean()), float(exchanges.accepted.double().mean())
        assert rate > 0.03
        assert rate < happened < 2.5 * rate


def test_all_copies_live_in_the_memory():
    sampler, target = Tempering(Alternate(HMC(n_leapfrog=2)), n_levels=3), TwoPeaks()
    _, infos, state = draws(sampler, n_draws=2, n_chains=2, n_warmup=3)
    assert len(infos[0].parts) == 2
    assert state.memory["inner/position"].shape == (4, 2)
    again = evolve(state, memory={name: value.clone() for name, value in state.memory.items()})
    steps = [sampler.step(target, s, torch.Generator().manual_seed(1))[0] for s in (state, again)]
    assert torch.equal(steps[0].position, steps[1].position)


TEMPERED = Tempering(HMC(n_leapfrog=2), n_levels=3)
NESTED = {
    "first": Alternate(TEMPERED, MALA()),
    "last": Alternate(MALA(), TEMPERED),
    "deep": Alternate(HMC(n_leapfrog=2), Alternate(TEMPERED, MALA())),
    "of several": Alternate(Tempering(Alternate(MALA(), HMC(n_leapfrog=2)), n_levels=3), MALA()),
}


@pytest.mark.parametrize("sampler", NESTED.values(), ids=NESTED)
def test_tempering_learns_wherever_it_stands_among_others(sampler):
    _, infos, state = draws(sampler, n_draws=2, n_chains=5, n_warmup=20)
    memory = {name.rpartition("/")[2]: value for name, value in state.memory.items()}
    assert (memory["levels"][1:-1] - 0.5).abs() > 1e-3
    sizes = {name: v for name, v in state.memory.items() if name.endswith("step_size_current")}
    assert all((size - 0.1).abs().min() > 1e-3 for size in sizes.values())
    assert {len(size) for size in sizes.values()} == {5, 15}
    assert all(len(part.acceptance) == 5 for info in infos for part in info.parts)
    assert all(info.inner is None for info in infos)  # that of a part is not that of the whole


def test_reports_of_copies_are_averaged_with_those_of_their_chains():
    target = TwoPeaks()
    state = TEMPERED.init(target, CENTRES, torch.Generator())
    infos = [TEMPERED.step(target, state, torch.Generator().manual_seed(k))[1] for k in range(2)]
    both = Info.repeated(infos)
    mean = (infos[0].inner.acceptance + infos[1].inner.acceptance) / 2
    torch.testing.assert_close(both.inner.acceptance, mean)
    torch.testing.assert_close(both.inner.first(2).acceptance, both.acceptance)


@pytest.mark.parametrize("sampler", NESTED.values(), ids=NESTED)
def test_copies_see_another_target_wherever_tempering_stands(sampler):
    _, _, state = draws(sampler, n_draws=1, n_chains=5, n_warmup=5)
    other = TwoPeaks(power=torch.full((1,), 0.5, dtype=torch.float64))
    seen = sampler.refresh(other, state)
    (start,) = (name.removesuffix("levels") for name in seen.memory if name.endswith("levels"))
    soft = other.softened(seen.memory[f"{start}levels"][1:].repeat_interleave(5))
    value, gradient = soft.value_and_gradient(seen.memory[f"{start}inner/position"])
    torch.testing.assert_close(seen.memory[f"{start}inner/log_density"], value)
    torch.testing.assert_close(seen.memory[f"{start}inner/gradient"], gradient)
    torch.testing.assert_close(seen.log_density, other.log_density(state.position))
    assert torch.equal(seen.position, state.position)


@pytest.mark.parametrize("inner", [TEMPERED, *NESTED.values()], ids=["itself", *NESTED])
def test_what_is_tempered_is_not_tempered_again(inner):
    with pytest.raises(ValueError, match="^sampler: expected one without tempering of its own, got"):
        Tempering(inner)


# Softer versions by a Gaussian factor ------------------------------------------------------------------

FACTOR = torch.tensor([4.0, 1.5], dtype=torch.float64)


def known(gaussian_factor=FACTOR):
    return Target.from_function(2, TwoPeaks().log_density, gaussian_factor)


@pytest.mark.parametrize("factor", [3.0, FACTOR])
def test_a_gaussian_factor_stays_where_the_likelihood_fades(factor):
    target, x = known(factor), 3.0 * torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).double()
    level = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64)
    soft = target.softened(level)
    value, gradient = soft.value_and_gradient(x)
    gaussian = -0.5 * (x / factor).square().sum(1)
    likelihood = target.log_density(x) - gaussian
    torch.testing.assert_close(value, gaussian + (1 - level) * likelihood)
    torch.testing.assert_close(value, soft.log_density(x))
    torch.testing.assert_close(gradient, Target.value_and_gradient(soft, x)[1])
    assert value[0] == target.log_density(x)[0]
    assert soft.dimension == 2 and soft.gaussian_factor is target.gaussian_factor


def test_what_is_impossible_stays_so():
    target = Target.from_function(1, lambda x: torch.where(x[:, 0] > 0, -x[:, 0], -torch.inf), 1.0)
    level = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert (target.softened(level).log_density(-torch.ones(3, 1).double()) == -torch.inf).all()


def test_tempering_finds_both_peaks_of_any_target_with_a_gaussian_factor():
    # An error of 0.01 on the share: 0.05 is seen. Without exchanges all chains stay on the left.
    x, _, _ = draws(Tempering(HMC(n_leapfrog=4), n_levels=5), 200, 100, 100, target=known())
    right = x[..., 0] > 0
    error = right.mean(1).std(ddof=1) / math.sqrt(len(x))
    assert error < 0.02
    assert abs(right.mean() - 0.7) < 4.5 * error


def test_a_target_without_softer_versions_is_refused():
    target = Target.from_function(1, lambda x: -0.5 * (x**2).sum(1))
    with pytest.raises(ValueError, match="softer"):
        Tempering(HMC()).init(target, torch.zeros(2, 1, dtype=torch.float64), torch.Generator())


@pytest.mark.parametrize(("n_levels", "error"), [(1, ValueError), (2.0, TypeError), (True, TypeError)])
def test_bad_arguments(n_levels, error):
    with pytest.raises(error, match="n_levels"):
        Tempering(HMC(), n_levels=n_levels)
    with pytest.raises(TypeError, match="sampler"):
        Tempering("HMC")
