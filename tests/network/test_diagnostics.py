"""Diagnostics are honest: doubts where there is reason to doubt, and not where there is none."""

import math

import numpy as np
import pytest

from fltheory.model import Model
from fltheory.network.diagnostics import Convergence, Diagnostics, diagnose, ranks
from fltheory.network.draws import Draws
from fltheory.network.sampling import sample_network
from fltheory.nonlinearity import Sigmoid
from fltheory.sampler.hmc import HMC
from fltheory.task import ArrayTask, OrthogonalClassification


def run(temperature=0.05, *, n_draws=400, n_chains=4, n_warmup=200, step_size=0.1):
    model = Model(OrthogonalClassification(6, (0.5, 0.5)), Sigmoid(), 20, temperature, (1.0,), 1.0, False)
    options = {"n_draws": n_draws, "n_chains": n_chains, "n_warmup": n_warmup, "progress": False}
    return sample_network(model, HMC(n_leapfrog=10, step_size=step_size), keep="statistics", **options).draws


def part(draws, chains, last=None):
    return Draws.of({name: row[chains, :last].copy() for name, row in draws.rows.items()}, {})


def both(one, two):
    return Draws.of({name: np.concatenate([row, two.rows[name]]) for name, row in one.rows.items()}, {})


@pytest.mark.slow
def test_doubts_are_raised_on_bad_runs_and_not_on_good_ones():
    # Good runs: some 15 functionals, each with R-hat below 1.05 and more than 100 effective draws.
    good = run(n_chains=200)
    fours = [slice(k, k + 4) for k in range(0, 200, 4)]
    assert sum(bool(diagnose(part(good, chains)).doubts) for chains in fours) <= 2  # 0 of 50 when written
    rough, warm = run(n_chains=80, n_draws=100, n_warmup=0, step_size=1.2), run(0.5, n_chains=20)
    for k, chains in enumerate(fours[:20]):
        assert diagnose(part(good, chains, 12)).doubts, "too short"
        assert diagnose(part(good, slice(k, k + 1))).doubts, "one chain"
        assert diagnose(part(rough, chains)).doubts, "steps too large"
        elsewhere = both(part(good, slice(3 * k, 3 * k + 3)), part(warm, slice(k, k + 1)))
        assert diagnose(elsewhere).doubts, "one chain at another temperature"


def plain(values, **more):
    return Diagnostics({name: Convergence.of(v) for name, v in values.items()}, (0.8,) * 4, (0,) * 4, **more)


NOISE = np.random.default_rng(0).normal(size=(4, 300))


def test_doubts_name_what_is_worst():
    assert plain({"a": NOISE}).doubts == ()
    shifted = NOISE + np.array([0.0, 0.0, 0.0, 2.0])[:, None]
    report = plain({"a": NOISE, "b": shifted})
    assert report.worst == "b" and report.doubts[0].startswith("R-hat") and report.doubts[0].endswith("of b")
    assert plain({"a": NOISE[:, :3]}).doubts == ("too few draws to tell",)
    stuck = NOISE.copy()
    stuck[1] = 0.5
    assert plain({"a": stuck}).doubts[0] == "chains (1,) are stuck"
    assert plain({"a": NOISE, "code 01": stuck}).doubts == ("the share of code 01 is frozen",)
    walk = np.cumsum(NOISE, 1)
    assert any("effective draws of c" in doubt for doubt in plain({"c": walk}).doubts)


def test_one_chain_has_no_rhat():
    alone = Convergence.of(NOISE[:1])
    assert alone.rhat is None and alone.ess > 100 and alone.standard_error > 0
    report = Diagnostics({"a": alone}, (0.8,), (0,))
    assert report.worst is None
    assert report.doubts == ("one chain cannot be checked against others",)


@pytest.mark.parametrize(("n_draws", "is_judged"), [(1, False), (3, False), (4, True)])
def test_nothing_is_stuck_before_there_are_draws_to_tell(n_draws, is_judged):
    still = np.full((4, n_draws), 0.5)
    report = plain({"a": still, "code 01": still})
    assert report.stuck_chains == ((0, 1, 2, 3) if is_judged else ())
    assert report.frozen_codes == (("code 01",) if is_judged else ())
    if not is_judged:
        assert report.doubts == ("too few draws to tell",)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.11, ("code 00", "code 10")), (0.005, ("code 10",)), (0.0, ())]
)
def test_a_share_that_is_frozen_everywhere_is_seen(share, expected):
    shares = np.full((4, 300, 4), (share, 1.0 - share, 0.0, 0.0))
    rows = {name: row[:, [0] * 300] for name, row in run(n_draws=1, n_warmup=0).rows.items()}
    report = diagnose(Draws.of(rows | {"traces/code_shares": shares}, {}))
    assert report.frozen_codes == expected


def test_without_labels_codes_are_told_on_inputs_of_one_target():
    task = OrthogonalClassification(6, (0.5, 0.5))
    swapped = task.targets[::-1]  # classes in another order
    found = []
    for each in (
        task,
        ArrayTask(task.inputs, task.targets),
        ArrayTask(task.inputs, task.targets[:, :1]),
        ArrayTask(task.inputs, swapped),
        ArrayTask(task.inputs, np.arange(6.0)),
    ):
        model = Model(each, Sigmoid(), 20, math.inf, (1.0,), 1.0, False)
        options = {"n_draws": 4, "n_chains": 2, "n_warmup": 2, "progress": False}
        found.append(sample_network(model, HMC(n_leapfrog=3), **options).draws.traces.get("code_shares"))
    for shares in found[1:4]:  # later draws depend on how many readouts were drawn
        np.testing.assert_array_equal(shares[:, 0], found[0][:, 0])
    assert found[4] is None, "a regression has no classes"


def test_ranks_are_uniform_and_break_ties_at_random():
    found = ranks(NOISE)
    np.testing.assert_allclose(np.sort(found.ravel()), (np.arange(1200) + 0.5) / 1200)
    assert found[0, NOISE[0].argmax()] == found[0].max()
    tied = ranks(np.zeros((4, 300)))
    assert all(0.4 < chain.mean() < 0.6 for chain in tied)
    np.testing.assert_array_equal(tied, ranks(np.zeros((4, 300))))
