"""The laws of a sampler hold for good ones, and each planted fault is named."""

import doctest

import pytest
import torch
from attrs import evolve, field, frozen

from fltheory.sampler.alternate import Alternate
from fltheory.sampler.base import Info, Sampler, State, Target, standard_normal
from fltheory.sampler.blocks import BlockIndependence
from fltheory.sampler.elliptical import EllipticalSlice, PreconditionedCrankNicolson
from fltheory.sampler.hmc import HMC, MALA
from fltheory.sampler.langevin import Langevin
from fltheory.sampler.nuts import NUTS
from fltheory.sampler.tempering import Tempering
from fltheory.testing import SAMPLER_LAWS, LawViolation, check_sampler
from fltheory.testing.bent_gaussian import BentGaussian
from fltheory.testing.sampler_case import SamplerCase


@frozen
class RandomWalk(Sampler):
    """Right, as the example of ``check_sampler``; subclasses plant one fault each."""

    step_size: float = 0.5

    def init(self, target, x, generator):
        return State.at(target, x)

    def step(self, target, state, generator):
        x = state.position + self.step_size * standard_normal(state.position, generator)
        proposal = State(x, *target.value_and_gradient(x))
        gain = (proposal.log_density - state.log_density).nan_to_num(nan=-torch.inf)
        acceptance = gain.exp().clamp(max=1.0)
        accepted = torch.empty_like(acceptance).uniform_(generator=generator) < acceptance
        return state.moved(accepted, proposal), self.report(state, acceptance, accepted)

    def report(self, state, acceptance, accepted):
        one, size = (
            torch.ones_like(acceptance, dtype=torch.int64),
            torch.full_like(acceptance, self.step_size),
        )
        return Info(acceptance, accepted, acceptance.isinf(), -state.log_density, one, size)


def test_a_stock_sampler_passes():
    check_sampler(HMC(n_leapfrog=4, step_size=0.3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    [
        HMC(),
        HMC(learn_scales=True),
        MALA(),
        MALA(step_size=0.4, learn_scales=True),
        EllipticalSlice(),
        PreconditionedCrankNicolson(),
        BlockIndependence(),
        BlockIndependence(3, n_updates=2),
        Alternate(BlockIndependence(), HMC(n_leapfrog=4)),
        NUTS(step_size=0.4, max_depth=3),  # 3 s; as it comes 35 s
        Tempering(HMC(n_leapfrog=4, step_size=0.3), n_levels=4),
        Tempering(BlockIndependence(), n_levels=3),
        Alternate(Tempering(MALA(step_size=0.4), n_levels=2), MALA(step_size=0.4)),
    ],
    ids=repr,
)
def test_all_stock_samplers_pass(sampler):
    check_sampler(sampler)


@pytest.mark.parametrize("sampler", [
    NUTS(max_depth=5),
    Tempering(HMC(), n_levels=3),
    Alternate(Tempering(Alternate(BlockIndependence(), PreconditionedCrankNicolson()), n_levels=3), MALA()),
], ids=repr)  # fmt: skip
def test_slow_ones_keep_all_laws_that_need_few_chains(sampler):
    few = [law.name for law in SAMPLER_LAWS if law.name not in ("invariance", "motion")]
    assert found_in(sampler, *few) == dict.fromkeys(few, ())


def test_the_example_is_short_and_passes():
    (example,) = (t for t in doctest.DocTestFinder().find(check_sampler, globs={}) if t.examples)
    definition = next(e.source for e in example.examples if "class RandomWalk" in e.source)
    assert len(definition.splitlines()) < 25
    assert doctest.DocTestRunner().run(example).failed == 0


def test_samplers_that_are_biased_on_purpose_fail():
    with pytest.raises(LawViolation, match="invariance: it leaves the target invariant") as error:
        check_sampler(Langevin(step_size=0.01))
    assert set(error.value.failures) == {"invariance"}


# Planted faults ----------------------------------------------------------------------------------


class StartsElsewhere(RandomWalk):
    def init(self, target, x, generator):
        return State.at(target, x + 0.1)


class MemoryOfNumbers(RandomWalk):
    def init(self, target, x, generator):
        return evolve(State.at(target, x), memory={"count": 0.0})


class StaleGradient(RandomWalk):
    def step(self, target, state, generator):
        new, info = super().step(target, state, generator)
        return evolve(new, gradient=state.gradient), info


class StaleDensity(RandomWalk):
    def step(self, target, state, generator):
        new, info = super().step(target, state, generator)
        return evolve(new, log_density=torch.maximum(new.log_density, state.log_density)), info


class OneNumberForAll(RandomWalk):
    def report(self, state, acceptance, accepted):
        return evolve(super().report(state, acceptance, accepted), n_steps=torch.tensor(1))


class NoProbability(RandomWalk):
    def report(self, state, acceptance, accepted):
        return evolve(super().report(state, acceptance, accepted), acceptance=1.0 + acceptance)


class AcceptedAsNumbers(RandomWalk):
    def report(self, state, acceptance, accepted):
        return evolve(super().report(state, acceptance, accepted), accepted=accepted.double())


class AllOrNone(RandomWalk):
    """One bad chain stops the others."""

    def step(self, target, state, generator):
        new, info = super().step(target, state, generator)
        return (new if bool(new.log_density.isfinite().all()) else state), info


class MeanStep(RandomWalk):
    """The step depends on all chains."""

    def step(self, target, state, generator):
        size = self.step_size * float(state.position.nan_to_num().abs().mean())
        return RandomWalk(size).step(target, state, generator)


class GlobalNoise(RandomWalk):
    def step(self, target, state, generator):
        return super().step(target, state, torch.default_generator)


@frozen
class Counting(RandomWalk):
    """Remembers in the sampler what belongs into the state."""

    count: list = field(factory=list)

    def step(self, target, state, generator):
        self.count.append(1)
        return RandomWalk(0.5 / len(self.count)).step(target, state, generator)


class InPlace(RandomWalk):
    def step(self, target, state, generator):
        new, info = super().step(target, state, generator)
        state.position.copy_(new.position)
        return new, info


class AdaptsPositions(RandomWalk):
    def adapt(self, target, state, info, iteration):
        return State.at(target, state.position + 0.01)


class SettlesElsewhere(RandomWalk):
    def settle(self, target, state):
        return State.at(target, state.position * 1.01)


class DoublePrecision(RandomWalk):
    def step(self, target, state, generator):
        new, info = super().step(target, state, generator)
        return evolve(new, position=new.position.double()), info


class AlwaysAccepts(RandomWalk):
    def step(self, target, state, generator):
        x = state.position + 0.1 * standard_normal(state.position, generator)
        _, info = super().step(target, state, generator)
        return State(x, *target.value_and_gradient(x)), info


@frozen
class ExchangesAlways(Tempering):
    """Two copies change places whatever the densities."""

    sampler: Sampler = field(factory=lambda: HMC(n_leapfrog=4, step_size=0.3))
    n_levels: int = 2

    def _exchange(self, soft, inner, parities, generator):
        n_chains = len(inner.position) // 2
        swapped = evolve(inner, position=inner.position.roll(n_chains, 0))
        return self.sampler.refresh(soft, swapped), inner.position.new_ones(1, n_chains)


class WrongOnceLearned(RandomWalk):
    """Right at first; wrong by what it learns."""

    def init(self, target, x, generator):
        return State.at(target, x, shift=torch.zeros_like(x[:, 0]))

    def step(self, target, state, generator):
        new, info = super().step(target, state, generator)
        x = new.position + state.memory["shift"][:, None]
        return State(x, *target.value_and_gradient(x), state.memory), info

    def settle(self, target, state):
        return state.remembering(shift=torch.full_like(state.log_density, 0.03))


class Idle(RandomWalk):
    def step(self, target, state, generator):
        _, info = super().step(target, state, generator)
        return state, info


class OneCoordinate(RandomWalk):
    def step(self, target, state, generator):
        def only_first(x):
            return target.value_and_gradient(torch.cat([x[:, :1], state.position[:, 1:]], 1))

        new, info = super().step(_Restricted(target, only_first), state, generator)
        x = torch.cat([new.position[:, :1], state.position[:, 1:]], 1)
        return State(x, *target.value_and_gradient(x)), info


@frozen
class _Restricted(Target):
    target: Target
    function: object

    @property
    def dimension(self):
        return self.target.dimension

    def log_density(self, x):
        return self.function(x)[0]

    def value_and_gradient(self, x):
        return self.function(x)


PLANTED = {
    StartsElsewhere: "start",
    MemoryOfNumbers: "start",
    StaleGradient: "state",
    StaleDensity: "state",
    OneNumberForAll: "report",
    NoProbability: "report",
    AcceptedAsNumbers: "report",
    AllOrNone: "chains",
    MeanStep: "chains",
    GlobalNoise: "reproducible",
    Counting: "memory",
    InPlace: "purity",
    AdaptsPositions: "warm-up",
    SettlesElsewhere: "warm-up",
    DoublePrecision: "precision",
    AlwaysAccepts: "invariance",
    ExchangesAlways: "invariance",
    WrongOnceLearned: "invariance",
    Idle: "motion",
    OneCoordinate: "motion",
}


def found_in(sampler, *names):
    case = SamplerCase(sampler, BentGaussian(), 0)
    return {law.name: law.found_in(case) for law in SAMPLER_LAWS if law.name in names}


@pytest.mark.parametrize(("sampler", "law"), PLANTED.items(), ids=lambda x: getattr(x, "__name__", x))
def test_planted_faults_are_named(sampler, law):
    assert found_in(sampler(), law)[law]


def test_every_law_has_a_planted_fault():
    assert {law.name for law in SAMPLER_LAWS} == set(PLANTED.values())


def test_the_report_tells_all_laws_that_fail():
    with pytest.raises(LawViolation) as error:
        check_sampler(Idle())
    assert set(error.value.failures) == {"motion"}
    assert "the sampler Idle(step_size=0.5) breaks 1 of" in str(error.value)
    assert "coordinate 0 moves by 0 of the squared distance" in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"sampler": HMC}, TypeError, "sampler"),
        ({"sampler": "HMC"}, TypeError, "sampler"),
        ({"sampler": HMC(), "problem": BentGaussian}, TypeError, "problem"),
        ({"sampler": HMC(), "seed": -1}, ValueError, "seed"),
        ({"sampler": HMC(), "seed": 0.0}, TypeError, "seed"),
    ],
)
def test_bad_arguments_are_named(arguments, error, name):
    with pytest.raises(error, match=f"^{name}: expected"):
        check_sampler(**arguments)
