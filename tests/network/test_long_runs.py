"""Long runs: batches of chains, other processes, what is kept, and runs that are stopped and go on."""

import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from attrs import evolve, field, frozen

import fltheory
from fltheory.errors import CheckpointError, InterruptedWarning
from fltheory.model import Model
from fltheory.network import group, plan, sampling
from fltheory.network.sampling import sample_network
from fltheory.nonlinearity import ReLU, Sigmoid
from fltheory.sampler.alternate import Alternate
from fltheory.sampler.base import Sampler
from fltheory.sampler.hmc import HMC
from fltheory.task import ArrayTask, OrthogonalClassification

SIGMOID = Sigmoid()
OPTIONS = {"n_draws": 6, "n_chains": 3, "n_warmup": 20, "chains_per_batch": 2, "progress": False}


def small_model(temperature=0.05, *, width=8, depth=1, phi=SIGMOID, lazy=False) -> Model:
    task = OrthogonalClassification(4, (0.5, 0.5), n_inputs=5)
    test = np.random.default_rng(0).normal(size=(3, 5))
    task = ArrayTask(task.inputs, task.targets, task.labels, test, np.ones((3, 2)))
    return Model(task, phi, width, temperature, (1.0,) * depth, 1.0, lazy)


def sample(model=None, sampler=None, **options):
    return sample_network(model or small_model(), sampler or HMC(n_leapfrog=5), **(OPTIONS | options))


def assert_same(one, two, n_draws=None):
    ours, theirs = one.draws, two.draws
    assert set(ours.rows) == set(theirs.rows)
    for name, row in ours.rows.items():
        np.testing.assert_array_equal(row, theirs.rows[name][:, :n_draws], err_msg=name)
    for name, mean in ours.means.items():
        np.testing.assert_array_equal(mean, theirs.means[name], err_msg=name)


# Batches -----------------------------------------------------------------------------------------


def test_batches_are_runs_of_their_own():
    whole = sample()
    assert whole.readouts.shape == (3, 6, 8, 2)
    assert len(whole.continuation.moments) == 2
    assert_same(sample(chains_per_batch=3), sample(chains_per_batch=None))
    assert not np.array_equal(whole.readouts, sample(chains_per_batch=3).readouts)
    assert len({chain.tobytes() for chain in whole.readouts}) == 3
    assert_same(sample(n_draws=2).resume(4), whole)


def test_each_chain_keeps_its_targets_and_its_start():
    model = small_model()
    y = model.task.targets
    together = sample(targets=np.stack([y, -y, 0 * y, y, -y]), n_chains=5, n_draws=20)
    sign = together.outputs()[:, -5:, 0, 0].mean(1)
    assert sign[0] > 0.3 and sign[1] < -0.3 and sign[3] > 0.3 and sign[4] < -0.3
    assert not together.dual_field_draws[2].any()
    on = sample(start=together, n_chains=5, n_warmup=0, n_draws=1)
    moved = np.abs(on.weights[0][:, 0] - together.weights[0][:, -1]).mean((1, 2))
    fresh = np.abs(on.weights[0][[1, 2, 3, 4, 0], 0] - together.weights[0][:, -1]).mean((1, 2))
    assert (moved < fresh).all()


SCRIPT = """
import sys
from contextlib import nullcontext
import joblib, numpy as np
import fltheory as flt
from attrs import frozen

@frozen
class Swish(flt.Nonlinearity):
    def __call__(self, z):
        return z * flt.special(z).expit(z)

def sample(**options):
    task = flt.OrthogonalClassification(4, (0.5, 0.5))
    posterior = flt.DeepNetworkPosterior(task, Swish(), width=8, temperature=0.01)
    options = dict(n_draws=4, n_chains=4, n_warmup=20, chains_per_batch=1) | options
    return posterior.sample(flt.HMC(n_leapfrog=5), **options)

def same(one, two):
    rows = one.draws.rows
    return all(np.array_equal(rows[name], two.draws.rows[name]) for name in rows)

if __name__ == "__main__":
    alone = sample()
    if sys.argv[1] == "loky":
        n_jobs = int(sys.argv[2])
        print(same(alone, sample(n_jobs=n_jobs)), same(alone, sample(n_draws=2).resume(2, n_jobs=n_jobs)))
        print(same(alone, sample(seed=1, n_jobs=n_jobs)))
    else:
        from dask.distributed import Client, LocalCluster
        with LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
            with joblib.parallel_config(backend="dask"):
                found = sample(n_jobs=2, checkpoint=sys.argv[2])
        print(same(alone, found))
"""


def run_script(tmp_path, *arguments):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(fltheory.__file__).parents[1])}
    command = [sys.executable, tmp_path / "script.py", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.mark.parametrize("n_jobs", ["2", pytest.param("4", marks=pytest.mark.slow)])
def test_the_number_of_processes_changes_nothing(tmp_path, n_jobs):
    # The nonlinearity is defined in the script: it has no module that a worker could import.
    assert run_script(tmp_path, "loky", n_jobs) == ["True", "True", "False"]


def test_processes_without_work_are_told_of(monkeypatch):
    short = {"n_draws": 1, "n_warmup": 0}
    with joblib.parallel_config(backend="threading"):
        with pytest.warns(UserWarning, match=r"3 processes for 2 batches.*chains_per_batch") as record:
            sample(n_jobs=3, **short)
        assert record[0].filename == __file__
        monkeypatch.setattr(joblib, "effective_n_jobs", lambda n: 8)
        with pytest.warns(UserWarning, match=r"8 processes for 1 batch .*chains_per_batch"):
            sample(n_jobs=-1, chains_per_batch=None, **short)
        sample(n_jobs=2, **short)
        sample(n_jobs=4, chains_per_batch=1, **short)  # no smaller batches can be had


def test_other_processes_say_how_their_chains_fare(capfd):
    with joblib.parallel_config(backend="threading"):
        sample(n_jobs=2, progress=True)
    shown = capfd.readouterr().err
    for what in ("draws", "12/12", "acceptance=", "step=", "divergences=", "error="):
        assert what in shown


@pytest.mark.slow
def test_a_cluster_changes_nothing(tmp_path):
    pytest.importorskip("distributed")
    assert run_script(tmp_path, "dask", str(tmp_path / "run")) == ["True"]


# What is kept ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["float64", "float32"])
def kept(request):
    """The same run with all, with readouts and with statistics only, and its precision."""
    model = small_model(depth=2)
    precision = {"float64": 1e-10, "float32": 2e-3}[request.param]
    return {keep: sample(model, keep=keep, dtype=request.param) for keep in sampling.KEEP}, precision


@pytest.mark.parametrize("keep", ["readouts", "statistics"])
def test_streamed_answers_are_those_from_the_weights(kept, keep):
    runs, rtol = kept
    whole, streamed = runs["all"], runs[keep]
    close = {"rtol": rtol, "atol": rtol * 0.1}
    for layer in (1, 2):
        np.testing.assert_allclose(streamed.kernel(layer), whole.kernel(layer), **close)
        np.testing.assert_allclose(streamed.kernel_error(layer), whole.kernel_error(layer), **close)
    np.testing.assert_array_equal(streamed.kernel(0), whole.kernel(0))
    for inputs in (None, whole.model.task.test_inputs):
        ours, theirs = streamed.predict(inputs), whole.predict(inputs)
        np.testing.assert_allclose(ours.mean, theirs.mean, **close)
        np.testing.assert_allclose(ours.variance, theirs.variance, **close)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_allclose(streamed.dual_field, whole.dual_field, **close)
    np.testing.assert_allclose(streamed.dual_field_draws, whole.dual_field_draws, **close)
    np.testing.assert_array_equal(streamed.training_error, whole.training_error)
    np.testing.assert_array_equal(streamed.acceptance_rate, whole.acceptance_rate)
    assert streamed.diagnostics() == whole.diagnostics()
    assert (streamed.n_chains, streamed.n_draws) == (3, 6)


def test_traces_are_what_they_are_called(kept):
    whole = kept[0]["all"]
    traces, phi = whole.draws.traces, whole.activations(2)
    rtol = max(kept[1], 1e-12)
    error = ((whole.outputs() - whole.model.task.targets) ** 2).mean((2, 3))
    np.testing.assert_allclose(whole.training_error, error, rtol=rtol)
    np.testing.assert_allclose(traces["kernel_trace_2"], (phi**2).mean((2, 3)), rtol=rtol)
    np.testing.assert_allclose(traces["readout_square"], (whole.readouts**2).mean((2, 3)), rtol=rtol)
    square = (whole.dual_field_draws**2).mean((2, 3))
    np.testing.assert_allclose(traces["dual_field_square"], square, rtol=5 * rtol)
    means = phi.reshape(3, 6, 8, 2, 2).mean(-1)  # (C, D, N, classes)
    block = (means[..., 0] * means[..., 1]).mean(2)
    np.testing.assert_allclose(traces["kernel_blocks_2"][..., 1], block, rtol=rtol)
    active = means > 0.5
    for k, code in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):  # class 0 is the lowest bit
        share = (active == np.array(code)).all(-1).mean(2)
        np.testing.assert_array_equal(traces["code_shares"][..., k], share)
    test = whole.mean_outputs(whole.model.task.test_inputs).reshape(3, 6, -1)
    assert all(
        np.isclose(test, trace[..., None], rtol=rtol).any(-1).all()
        for trace in np.moveaxis(traces["test_output"], -1, 0)
    )


QUESTIONS = {
    "weights": lambda s: s.weights,
    "activations": lambda s: s.activations(1),
    "neurons": lambda s: s.neurons(3, 1),
    "kernel": lambda s: s.kernel(1, np.ones((2, 5))),
    "predict": lambda s: s.predict(np.ones((2, 5))),
    "functional": lambda s: s.functional(lambda phi: phi),
    "outputs": lambda s: s.outputs(),
    "mean_outputs": lambda s: s.mean_outputs(),
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_what_was_not_kept_is_refused(kept, question):
    for keep in ("readouts", "statistics"):
        with pytest.raises(ValueError, match=r"^keep: .*keep='all'"):
            question(kept[0][keep])


def test_readouts_are_kept_on_request(kept):
    runs = kept[0]
    np.testing.assert_array_equal(runs["readouts"].readouts, runs["all"].readouts)
    with pytest.raises(ValueError, match=r"^keep: .*keep='readouts'"):
        runs["statistics"].readouts  # noqa: B018


@pytest.mark.parametrize(
    "model", [small_model(0.0), small_model(math.inf), small_model(lazy=True, phi=ReLU())]
)
def test_streamed_answers_in_the_limits(model):
    whole, streamed = sample(model), sample(model, keep="statistics")
    for inputs in (None, model.task.test_inputs):
        np.testing.assert_allclose(streamed.predict(inputs).mean, whole.predict(inputs).mean, atol=1e-12)
        variance = whole.predict(inputs).variance
        np.testing.assert_allclose(streamed.predict(inputs).variance, variance, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(streamed.dual_field, whole.dual_field, rtol=1e-9)


def test_a_streamed_run_is_resumed():
    assert_same(sample(n_draws=2, keep="statistics").resume(4), sample(keep="statistics"))


def test_a_large_field_is_averaged(monkeypatch):
    monkeypatch.setattr("fltheory.network.record._LARGEST_FIELD", 1)
    streamed = sample(keep="statistics")
    np.testing.assert_allclose(streamed.dual_field, sample().dual_field)
    with pytest.raises(ValueError, match="keep"):
        streamed.dual_field_draws  # noqa: B018


def test_what_does_not_fit_is_refused_beforehand(monkeypatch):
    for keep in sampling.KEEP:
        drawn = sample(small_model(width=40), keep=keep, chains_per_batch=None)
        size = sum(row.nbytes for row in drawn.draws.rows.values())
        estimate = 3 * 6 * drawn.continuation.plan.recorder.bytes_per_draw()
        assert size == pytest.approx(estimate, rel=0.25, abs=3 * 6 * 8 * 12)
    monkeypatch.setattr(plan, "memory_of_machine", lambda: 2**21)
    with pytest.raises(MemoryError, match=r"GiB with keep='all'.*statistics.*readouts.*thin"):
        sample(small_model(width=40), n_draws=200)
    sample(small_model(width=40), n_draws=50, n_warmup=0, keep="statistics")
    for keep, n_draws, advice in [
        ("all", 500, "keep='statistics' keeps no networks; with thin"),
        ("readouts", 500, "keep='statistics' keeps no networks; with thin"),
        ("all", 10**6, "with thin"),
        ("statistics", 10**6, "with thin"),
    ]:
        with pytest.raises(MemoryError, match=rf"keep='{keep}' \({advice} fewer draws do\)"):
            sample(small_model(width=40), n_draws=n_draws, keep=keep)


# Composed samplers and starts --------------------------------------------------------------------


def test_the_acceptance_of_each_part_is_recorded():
    drawn = sample(sampler=Alternate(HMC(n_leapfrog=3), HMC(step_size=0.01)), thin=2)
    parts = drawn.draws.statistics.part_acceptance
    assert parts.shape == (3, 6, 2)
    np.testing.assert_array_equal(parts[..., 0], drawn.draws.statistics.acceptance)
    assert "of part 2" in str(drawn.diagnostics())
    assert sample().draws.statistics.part_acceptance.shape == (3, 6, 0)


def test_runs_from_two_starts_are_judged_together():
    long = {"n_draws": 100, "n_chains": 4, "n_warmup": 40, "chains_per_batch": None}
    one = sample(**long)
    two = sample(**(long | {"n_warmup": 0}), seed=1, start=one)
    together = one.diagnostics(two)
    assert len(together.acceptance_rate) == 8
    assert together.functionals["log_density"].rhat < 1.05
    with pytest.raises(ValueError, match=r"others\[0\]: expected the same temperature"):
        one.diagnostics(sample(small_model(0.06)))
    with pytest.raises(TypeError, match=r"others\[0\]"):
        one.diagnostics(3)


@pytest.mark.parametrize("keep", ["readouts", "statistics"])
@pytest.mark.parametrize("coordinates", ["auto", "weights"])
def test_samples_without_networks_are_a_start(keep, coordinates):
    whole, streamed = sample(), sample(keep=keep)
    still = {"sampler": HMC(step_size=1e-12), "n_draws": 1, "n_warmup": 0, "coordinates": coordinates}
    ours, theirs = sample(start=streamed, **still), sample(start=whole, **still)
    np.testing.assert_allclose(ours.kernel(1), theirs.kernel(1), rtol=1e-6)
    np.testing.assert_allclose(ours.weights[0], theirs.weights[0], rtol=1e-6, atol=1e-6)
    if coordinates == "weights":
        is_same = np.allclose(ours.readouts, theirs.readouts, atol=1e-6)
        assert is_same == (keep == "readouts"), "readouts that were not kept are drawn anew"
        assert ours.readouts.std() == pytest.approx(theirs.readouts.std(), rel=0.3)
    with pytest.raises(ValueError, match="keep"):
        sample(start=evolve(streamed, continuation=None), **still)


# Stopped and gone on -----------------------------------------------------------------------------


@frozen
class Interrupted(Sampler):
    """HMC that is interrupted at its n-th step."""

    countdown: list[int]
    hmc: HMC = field(factory=lambda: HMC(n_leapfrog=5, learn_scales=True))

    def init(self, target, x, generator):
        return self.hmc.init(target, x, generator)

    def step(self, target, state, generator):
        self.countdown[0] -= 1
        if self.countdown[0] == 0:
            torch.rand(3, generator=generator)  # in the middle of its work
            raise KeyboardInterrupt
        return self.hmc.step(target, state, generator)

    def adapt(self, target, state, info, iteration):
        return self.hmc.adapt(target, state, info, iteration)

    def settle(self, target, state):
        return self.hmc.settle(target, state)

    def __repr__(self):
        return "Interrupted()"


@pytest.mark.parametrize(("step", "keep"), [(1, "all"), (2, "statistics"), (17, "all"), (40, "statistics")])
def test_an_interrupted_warm_up_goes_on(tmp_path, step, keep):
    whole = sample(sampler=Interrupted([1000]), keep=keep)
    with pytest.raises(KeyboardInterrupt):
        sample(sampler=Interrupted([step]), keep=keep, checkpoint=tmp_path / "run")
    assert_same(sample(sampler=Interrupted([1000]), keep=keep, checkpoint=tmp_path / "run"), whole)


@pytest.mark.parametrize("keep", ["all", "statistics"])
def test_interrupted_draws_are_as_many_for_all_batches_and_go_on(tmp_path, keep):
    options = {"keep": keep, "checkpoint": tmp_path / "run"}
    whole = sample(sampler=Interrupted([1000]), keep=keep)
    with pytest.warns(InterruptedWarning, match="2 of 6"):
        part = sample(sampler=Interrupted([2 * 20 + 2 * 2 + 2]), **options)
    assert part.n_draws == 2
    assert_same(part.resume(4), whole)
    with pytest.warns(InterruptedWarning, match="4 of 6"):
        sample(sampler=Interrupted([5]), **options)
    assert_same(sample(sampler=Interrupted([1000]), **options), whole)
    assert_same(sample(sampler=Interrupted([1]), **options), whole)  # nothing is left to do


@pytest.mark.parametrize("keep", ["all", "statistics"])
def test_interrupted_processes_keep_the_draws_that_all_have_made(keep):
    """In rounds of 1, 2 and 3 draws, of which the last is interrupted."""
    whole = sample(sampler=Interrupted([1000]), keep=keep)
    options = {"keep": keep, "n_jobs": 2}
    with joblib.parallel_config(backend="threading"):
        assert_same(sample(sampler=Interrupted([1000]), **options), whole)
        with pytest.warns(InterruptedWarning, match="3 of 6"):
            part = sample(sampler=Interrupted([2 * 20 + 2 * 3 + 2]), **options)
        with pytest.raises(KeyboardInterrupt):
            sample(sampler=Interrupted([2 * 20 + 1]), **options)
    assert part.n_draws == 3
    assert_same(part.resume(3, n_jobs=2), whole)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals to a group of processes")
def test_ctrl_c_reaches_processes_and_returns_what_is_finished(tmp_path):
    """The signal goes to all processes, as from a terminal."""
    script = tmp_path / "script.py"
    script.write_text(
        "import signal\n"
        "import fltheory as flt\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in jobs of the background
        "    task = flt.OrthogonalClassification(12, (0.5, 0.5))\n"
        "    model = flt.DeepNetworkPosterior(task, flt.Sigmoid(), width=60, temperature=0.002)\n"
        "    print('begun', flush=True)\n"
        "    found = model.sample(flt.HMC(), n_draws=10**6, n_warmup=5, chains_per_batch=2, n_jobs=2,\n"
        "                         keep='statistics', progress=False)\n"
        "    print(found.n_draws, found.kernel(1).shape)\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(fltheory.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            time.sleep(30.0)  # workers start, and the first rounds are short
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # workers would go on for hours
            raise
    assert process.returncode == 0, err
    n_draws, *shape = out.split()
    assert int(n_draws) >= 1 and shape == ["(12,", "12)"]
    assert "InterruptedWarning" in err


@frozen
class Columns(Sampler):
    """HMC that remembers a matrix column by column, and is moved by the last digits of a product with it."""

    hmc: HMC = field(factory=lambda: HMC(n_leapfrog=5))

    def init(self, target, x, generator):
        matrix = torch.randn(40, 40, dtype=x.dtype, generator=generator).mT
        return self.hmc.init(target, x, generator).remembering(matrix=matrix)

    def step(self, target, state, generator):
        state, info = self.hmc.step(target, state, generator)
        digits = (state.memory["matrix"] @ state.position[0, :32].repeat(2)[:40]).sum()
        return evolve(state, position=state.position + 1e3 * (digits - digits.round(decimals=12))), info


def test_the_layout_of_what_a_sampler_remembers_makes_no_difference(tmp_path):
    options = {"sampler": Columns(), "chains_per_batch": None}
    whole = sample(**options)
    sample(checkpoint=tmp_path / "run", n_draws=3, **options)
    assert_same(sample(checkpoint=tmp_path / "run", **options), whole)


def test_a_saved_run_is_lengthened_but_not_shortened(tmp_path):
    sample(checkpoint=tmp_path / "run", n_draws=3)
    assert_same(sample(checkpoint=tmp_path / "run"), sample())
    with pytest.raises(CheckpointError, match="6 draws a chain already"):
        sample(checkpoint=tmp_path / "run", n_draws=3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("seed", {"seed": 1}),
        ("n_warmup", {"n_warmup": 21}),
        ("sampler", {"sampler": HMC(n_leapfrog=6)}),
        ("temperature", {"model": small_model(0.06)}),
        ("nonlinearity", {"model": small_model(phi=ReLU())}),
        ("task", {"model": evolve(small_model(), task=OrthogonalClassification(4, (0.5, 0.5), 5))}),
        ("chains_per_batch", {"chains_per_batch": 1}),
        ("keep", {"keep": "statistics"}),
        ("dtype", {"dtype": "float32"}),
        ("thin", {"thin": 2}),
        ("targets", {"targets": np.zeros((4, 2))}),
        ("coordinates", {"coordinates": "weights"}),
        ("start", {"start": "samples"}),
        ("torch", {"torch": "another"}),
    ],
)
def test_a_run_of_another_configuration_is_refused(tmp_path, monkeypatch, name, options):
    done = sample(checkpoint=tmp_path / "run", n_draws=1)
    if name == "start":
        options = {"start": done}
    if name == "torch":
        options = {}
        monkeypatch.setattr(torch, "__version__", "another")
    with pytest.raises(CheckpointError, match=f"another {name}: "):
        sample(**options, checkpoint=tmp_path / "run", n_draws=1)


def test_another_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(CheckpointError, match="folder of a run"):
        sample(checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="folder of a run"):
        sample(checkpoint=tmp_path / "thesis.tex")
    with pytest.raises(TypeError, match="^checkpoint"):
        sample(checkpoint=3)


def damaged(content: bytes, rng: random.Random, kind: str) -> bytes:
    at = rng.randrange(len(content))
    if kind == "cut":
        return content[:at]
    flipped = bytearray(content)
    flipped[at] ^= 1 << rng.randrange(8)
    return bytes(flipped)


@pytest.mark.parametrize("kind", ["cut", "flipped"])
def test_damaged_files_are_refused_or_make_no_difference(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(group, "SAVE_EVERY", 0.0)
    rng, run = random.Random(0), tmp_path / "run"
    options = {"n_chains": 2, "n_draws": 2, "n_warmup": 3, "checkpoint": run}
    whole = sample(**options)
    files = [path for path in run.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    n_refused = 0
    for path in files:
        content = path.read_bytes()
        for _ in range(10):
            path.write_bytes(damaged(content, rng, kind))
            try:
                assert_same(sample(**options), whole)  # a space in JSON
            except CheckpointError as error:
                n_refused += str(run) in str(error)
        path.write_bytes(content)
    assert n_refused >= 9 * len(files)
    files[-1].unlink()
    with pytest.raises(CheckpointError, match="cannot be read|another|folder"):
        sample(**options)


def test_a_file_that_names_files_elsewhere_reads_none_of_them(tmp_path):
    sample(checkpoint=tmp_path / "run", n_draws=1)
    from fltheory.numerics.files import read_record, write_record

    path = tmp_path / "run" / "batch-00000" / "state.json"
    record = read_record(path)
    for broken in (
        {**record, "state": {"file": "../../x", "sha256": ""}},
        {"blocks": []},
        {**record, "moment": 1},
    ):
        write_record(path, broken)
        with pytest.raises(CheckpointError, match="batch-00000"):
            sample(checkpoint=tmp_path / "run", n_draws=1)
    path.write_text(json.dumps([1]))
    with pytest.raises(CheckpointError, match="damaged"):
        sample(checkpoint=tmp_path / "run", n_draws=1)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_a_run_goes_on_after_the_disk_was_full(tmp_path, monkeypatch, n):
    monkeypatch.setattr(group, "SAVE_EVERY", 0.0)
    options, countdown, replace = (
        {"n_chains": 2, "n_warmup": 2, "checkpoint": tmp_path / "run"},
        [n],
        os.replace,
    )

    def full(*paths):
        countdown[0] -= 1
        if countdown[0] == 0:
            raise OSError(28, "No space left on device")
        replace(*paths)

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        sample(**options)
    monkeypatch.setattr("os.replace", replace)
    assert_same(sample(**options), sample(**(options | {"checkpoint": None})))


# Killed ------------------------------------------------------------------------------------------

KILLED = {"n_chains": 3, "n_draws": 40, "n_warmup": 40, "keep": "statistics"}


def long_run(folder, ready=None):
    group.SAVE_EVERY = 0.02
    torch.set_num_threads(1)
    if ready is not None:
        ready.set()
    return sample(small_model(depth=2), HMC(n_leapfrog=5, learn_scales=True), checkpoint=folder, **KILLED)


def kill_and_go_on(folder, n_kills):
    """How many kills came before the run had ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fltheory.network.sampling"])
    rng, n_landed = random.Random(1), 0
    for _ in range(n_kills):
        ready = context.Event()
        child = context.Process(target=long_run, args=(folder, ready))
        child.start()
        assert ready.wait(60)
        time.sleep(rng.uniform(0.0, 0.15))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        n_landed += child.exitcode == -signal.SIGKILL
    return n_landed


@pytest.mark.parametrize("n_kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, n_kills):
    assert kill_and_go_on(tmp_path / "run", n_kills) >= 0.5 * n_kills
    whole = sample(small_model(depth=2), HMC(n_leapfrog=5, learn_scales=True), **KILLED)
    assert_same(long_run(tmp_path / "run"), whole)
