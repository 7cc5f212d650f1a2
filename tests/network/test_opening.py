"""A run goes on from its folder as it began, whatever theory and linear algebra say by then."""

import math

import numpy as np
import pytest
from attrs import evolve, frozen

import fltheory as flt
from fltheory.errors import CheckpointError
from fltheory.guidance import guide
from fltheory.network import plan
from fltheory.network.moves.base import Advice
from fltheory.network.moves.codes import CodeMoves
from fltheory.network.reduction import Reduction
from fltheory.network.sampling import sample_network
from fltheory.network.target import IntegratedTarget
from fltheory.numerics.files import read_record, write_record
from fltheory.sampler.hmc import HMC

TASK = flt.OrthogonalClassification(n_samples=8, class_ratios=(0.5, 0.5))
SIGMOID = flt.DeepNetworkPosterior(TASK, flt.Sigmoid(), width=40, temperature=1e-3)
OPTIONS = {"n_draws": 4, "n_chains": 2, "n_warmup": 8, "progress": False}


@pytest.fixture(scope="module")
def advice():
    """What the theory says, and what it says elsewhere: another last digit."""
    said = guide(SIGMOID.model, None, lambda t: SIGMOID.solve(), Reduction.of(SIGMOID.model))
    means = np.nextafter(said.moves.means, math.inf)
    return said, evolve(said, moves=evolve(said.moves, means=means))


def sample(advice, **options):
    return sample_network(SIGMOID.model, advise=lambda *_: advice, **(OPTIONS | options))


def assert_same(one, two):
    for name, row in one.draws.rows.items():
        np.testing.assert_array_equal(row, two.draws.rows[name], err_msg=name)


# What the theory said ----------------------------------------------------------------------------


def test_a_run_goes_on_with_what_it_was_told_at_its_start(advice, tmp_path):
    here, elsewhere = advice
    whole = sample(here)
    sample(here, checkpoint=tmp_path / "run", n_draws=2)
    assert_same(sample(elsewhere, checkpoint=tmp_path / "run"), whole)
    with pytest.raises(AssertionError):
        assert_same(sample(elsewhere), whole)


@pytest.mark.parametrize("start", ["prior", "theory"])
def test_a_run_goes_on_without_the_theory(tmp_path, monkeypatch, start):
    whole = SIGMOID.sample(start=start, **OPTIONS)
    SIGMOID.sample(start=start, checkpoint=tmp_path / "run", **(OPTIONS | {"n_draws": 2}))
    monkeypatch.setattr(flt.DeepNetworkPosterior, "solve", lambda *_, **__: pytest.fail("solved"))
    again = evolve(SIGMOID)
    assert_same(again.sample(start=start, checkpoint=tmp_path / "run", **OPTIONS), whole)


def test_a_batch_that_was_not_saved_begins_where_the_run_began(tmp_path):
    def draw(shift):
        neurons = SIGMOID.solve().neurons(40, 1, seed=1)
        moved = evolve(neurons, preactivations=neurons.preactivations + shift)
        return lambda seeds: [moved for _ in seeds]

    options = OPTIONS | {"start": "theory", "n_warmup": 0}
    whole = sample_network(SIGMOID.model, HMC(), draw_neurons=draw(0.0), **options)
    options |= {"checkpoint": tmp_path / "run"}
    assert_same(sample_network(SIGMOID.model, HMC(), draw_neurons=draw(0.0), **options), whole)
    (tmp_path / "run" / "batch-00000" / "state.json").unlink()
    assert_same(sample_network(SIGMOID.model, HMC(), draw_neurons=draw(0.1), **options), whole)


@frozen(eq=False)
class OwnMoves(CodeMoves):
    """Of a class that no file brings along."""


def test_own_moves_are_asked_for_again_and_must_be_the_same(advice, tmp_path):
    own = [
        Advice(each.sampler, OwnMoves(**{name: getattr(each.moves, name) for name in FIELDS}), each.softest)
        for each in advice
    ]
    sample(own[0], checkpoint=tmp_path / "run", n_draws=2)
    assert_same(sample(own[0], checkpoint=tmp_path / "run"), sample(own[0]))
    with pytest.raises(CheckpointError, match="other moves"):
        sample(own[1], checkpoint=tmp_path / "run")


FIELDS = ("weights", "means", "covariances", "groups", "threshold")


# What linear algebra says ------------------------------------------------------------------------


@pytest.fixture
def regression():
    """More inputs than dimensions: singular vectors are one basis of many."""
    x = np.random.default_rng(0).normal(size=(6, 3))
    return flt.DeepNetworkPosterior(flt.ArrayTask(x, x[:, :1]), flt.Tanh(), width=10, temperature=0.1)


def turn_basis(monkeypatch):
    """As if the signs of singular vectors were others."""

    def turned(model):
        return Reduction.along(model, -Reduction.of(model).basis)

    monkeypatch.setitem(plan.COORDINATES, "auto", (turned, IntegratedTarget))


def test_a_run_goes_on_in_its_own_basis(regression, tmp_path, monkeypatch):
    whole = regression.sample(HMC(), **OPTIONS)
    regression.sample(HMC(), checkpoint=tmp_path / "run", **(OPTIONS | {"n_draws": 2}))
    turn_basis(monkeypatch)
    assert_same(regression.sample(HMC(), checkpoint=tmp_path / "run", **OPTIONS), whole)
    with pytest.raises(AssertionError):
        assert_same(regression.sample(HMC(), **OPTIONS), whole)


def test_saved_samples_are_read_in_their_own_basis(regression, tmp_path, monkeypatch):
    whole = regression.sample(HMC(), **OPTIONS)
    whole.save(tmp_path / "file")
    turn_basis(monkeypatch)
    read = flt.load(tmp_path / "file")
    np.testing.assert_array_equal(read.kernel(1), whole.kernel(1))
    np.testing.assert_array_equal(read.weights[0], whole.weights[0])
    assert_same(read.resume(2), whole.resume(2))


# Folders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sampler: 'chosen' there", {"sampler": HMC()}),
        ("n_chains", {"n_chains": 3}),
        ("n_chains", {"n_chains": 3, "targets": np.ones((3, 8, 2))}),
        ("start", {"start": "neurons"}),
    ],
)
def test_the_arguments_that_differ_are_named(advice, tmp_path, name, options):
    sample(advice[0], checkpoint=tmp_path / "run", n_draws=1)
    if "start" in options:
        options = {"start": [SIGMOID.solve().neurons(40, 1, seed=k) for k in range(2)]}
    with pytest.raises(CheckpointError, match=f"another {name}"):
        sample(advice[0], **options, checkpoint=tmp_path / "run", n_draws=1)


def test_a_run_stopped_before_it_began_begins_anew(advice, tmp_path):
    run = tmp_path / "run"
    sample(advice[1], checkpoint=run, n_draws=1)
    for path in [*(run / "batch-00000").iterdir(), run / "configuration.json"]:
        path.unlink()
    (run / "batch-00000").rmdir()
    assert [path.name for path in run.iterdir()] == ["settled.safetensors"]
    assert_same(sample(advice[0], checkpoint=run), sample(advice[0]))


def test_a_file_of_something_else_is_refused(advice, tmp_path):
    samples = sample(advice[0], checkpoint=tmp_path / "run", n_draws=1)
    samples.save(tmp_path / "run" / "settled.safetensors")
    with pytest.raises(CheckpointError, match="expected what a run settled, got 'samples'"):
        sample(advice[0], checkpoint=tmp_path / "run", n_draws=1)


def test_a_folder_of_an_earlier_format_is_named(advice, tmp_path):
    sample(advice[0], checkpoint=tmp_path / "run", n_draws=1)
    file = tmp_path / "run" / "configuration.json"
    write_record(file, {**read_record(file), "format": 1, "moves": "hash"})
    with pytest.raises(CheckpointError, match="another format: 1 there"):
        sample(advice[0], checkpoint=tmp_path / "run", n_draws=1)


def test_nothing_is_solved_for_arguments_that_are_refused(monkeypatch):
    monkeypatch.setattr(flt.DeepNetworkPosterior, "solve", lambda *_, **__: pytest.fail("solved"))
    with pytest.raises(MemoryError):
        SIGMOID.sample(n_draws=10**12)
    with pytest.raises(TypeError, match="start"):
        SIGMOID.sample(start=[SIGMOID])
