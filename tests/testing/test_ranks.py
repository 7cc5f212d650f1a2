"""Ranks of exact draws are uniform for right samplers alone, and the stated power is right."""

import math

import numpy as np
import pytest
import torch
from attrs import frozen
from scipy.stats import kstest

from fltheory.sampler.base import Info, Sampler, State, Target, standard_normal
from fltheory.sampler.hmc import HMC
from fltheory.testing import Ranks, Replicates, SamplingProblem, rank_test, simulation_based_calibration


@frozen(eq=False)
class MeanTarget(Target):
    """theta | y for theta ~ N(0, 1) and y ~ N(theta, 1), one y a chain."""

    y: torch.Tensor
    dimension = 1

    def log_density(self, x):
        return -0.5 * x[:, 0] ** 2 - 0.5 * (self.y - x[:, 0]) ** 2


@frozen
class MeanProblem(SamplingProblem):
    def draw(self, n_chains, generator):
        theta, noise = torch.randn((2, n_chains), generator=generator, dtype=torch.float64)
        target = MeanTarget(theta + noise)
        x = theta[:, None]
        return Replicates(target, x, self.statistics(target, x, generator))

    def statistics(self, target, x, generator):
        return {"theta": x[:, 0], "residual": (x[:, 0] - target.y) ** 2}


@frozen
class Autoregression(Sampler):
    """theta - y/2 shrinks by ``memory`` and gets new noise: reversible, N(y/2, ``variance``)."""

    variance: float = 0.5
    memory: float = 0.5

    def init(self, target, x, generator):
        return State.at(target, x)

    def step(self, target, state, generator):
        mean, noise = target.y[:, None] / 2, standard_normal(state.position, generator)
        size = math.sqrt(self.variance * (1 - self.memory**2))
        x = mean + self.memory * (state.position - mean) + size * noise
        one = torch.ones_like(state.log_density)
        info = Info(one, one > 0, one < 0, -state.log_density, one.long(), one)
        return State(x, *target.value_and_gradient(x)), info


@frozen
class Stuck(Autoregression):
    def step(self, target, state, generator):
        _, info = super().step(target, state, generator)
        return state, info


@pytest.mark.parametrize(
    "sampler", [Autoregression(), Autoregression(memory=0.95), Stuck(), HMC(step_size=0.5)]
)
def test_right_samplers_have_uniform_ranks_however_slow(sampler):
    ranks = rank_test(MeanProblem(), sampler, seed=1)
    assert ranks.p_value > 1e-3
    assert all(len(r) == 4000 and r.min() == 0 and r.max() == 8 for r in ranks.ranks.values())


def test_a_wrong_variance_is_found():
    # 30 % in the variance of one coordinate: 20 % give p = 4e-6, not yet below 1e-6. More coordinates that
    # are wrong together are seen at once: 5 % for 60 of them, tests/test_sampling_exactness.py.
    assert rank_test(MeanProblem(), Autoregression(variance=0.65, memory=0.0)).p_value < 1e-6


def test_calibration_finds_a_wrong_variance_and_too_short_chains():
    right = simulation_based_calibration(MeanProblem(), Autoregression(), seed=2)
    assert right.p_value > 1e-3
    assert {name: len(h) for name, h in right.histograms.items()} == {"theta": 16, "residual": 16}
    wrong = simulation_based_calibration(MeanProblem(), Autoregression(variance=0.8))
    assert wrong.p_value < 1e-6
    unfinished = simulation_based_calibration(MeanProblem(), Stuck())
    assert unfinished.p_value < 1e-6


@pytest.mark.slow
def test_p_values_are_uniform_where_chains_share_choices():
    # The number of leapfrog steps is the same in all chains. Drawn anew on the way back, p < 0.01 in 5 %.
    sampler = HMC(n_leapfrog=4, step_size=0.3, jitter=0.75)
    p = [p for s in range(100) for p in rank_test(MeanProblem(), sampler, seed=s).p_values.values()]
    assert kstest(p, "uniform").pvalue > 1e-3
    assert min(p) > 1e-5


def skewed(error: float, n_replicates: int, rng: np.random.Generator) -> Ranks:
    tilt = np.repeat([1 - error, 1.0, 1 + error], 3)
    return Ranks({"one": rng.choice(9, n_replicates, p=tilt / 9)}, 9, 9, 1.0)


def test_the_smallest_error_is_seen_in_nine_of_ten_cases():
    rng = np.random.default_rng(0)
    stated = skewed(0.0, 4000, rng).smallest_error
    error = stated / math.sqrt(2 / 3)  # root mean square of the tilt
    seen = [skewed(error, 4000, rng).p_value < 1e-3 for _ in range(600)]
    assert 0.85 < np.mean(seen) < 0.95  # 0.9 with an error of 0.012
    alarms = [skewed(0.0, 4000, rng).p_value < 1e-3 for _ in range(600)]
    assert np.mean(alarms) < 0.009  # 0.001; six of them by chance: 4e-5


def test_ranks_print_as_a_table():
    text = str(rank_test(MeanProblem(), Autoregression(), n_replicates=400, n_steps=3))
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["theta", "residual"]
    assert "smallest p x 2 =" in lines[2] and "acceptance 1.00" in lines[2]


def test_the_same_seed_gives_the_same_ranks():
    one, two = (rank_test(MeanProblem(), HMC(), n_replicates=50, seed=4, n_warmup=3) for _ in range(2))
    assert all((one.ranks[name] == two.ranks[name]).all() for name in one.ranks)


class NotANumber(MeanProblem):
    def statistics(self, target, x, generator):
        return {"theta": x[:, 0] * math.nan}


def test_statistics_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="^statistics: expected finite numbers, got others of 'theta'"):
        rank_test(NotANumber(), HMC(), n_replicates=10)


@pytest.mark.parametrize("test", [rank_test, simulation_based_calibration])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"problem": MeanProblem}, TypeError),
        ({"sampler": HMC}, TypeError),
        ({"seed": -1}, ValueError),
        ({"n_warmup": -1}, ValueError),
        ({"n_warmup": True}, TypeError),
    ],
)
def test_bad_arguments_are_named(test, arguments, error):
    with pytest.raises(error, match=f"^{next(iter(arguments))}: expected"):
        test(**{"problem": MeanProblem(), "sampler": HMC(), **arguments})


@pytest.mark.parametrize(
    ("test", "arguments"),
    [
        (rank_test, {"n_replicates": 0}),
        (rank_test, {"n_steps": 0}),
        (simulation_based_calibration, {"n_simulations": 0}),
        (simulation_based_calibration, {"n_draws": 0}),
        (simulation_based_calibration, {"thin": 0}),
        (simulation_based_calibration, {"n_bins": 7}),
        (simulation_based_calibration, {"n_bins": 1}),
    ],
)
def test_bad_numbers_are_named(test, arguments):
    with pytest.raises(ValueError, match=f"^{next(iter(arguments))}: expected"):
        test(MeanProblem(), HMC(), **arguments)
