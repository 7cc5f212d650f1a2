"""Files of samples: equal to the last bit, able to go on, and harmless whatever they hold."""

import json
import pickle
import random
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import xarray
from attrs import evolve, field, frozen

import fltheory as flt
from fltheory.errors import CheckpointError
from fltheory.io import load
from fltheory.network.saving import _digest
from fltheory.network.stock import from_data, to_data
from fltheory.sampler.alternate import Alternate
from fltheory.sampler.base import Sampler

TASK = flt.OrthogonalClassification(n_samples=4, class_ratios=(0.5, 0.5), n_inputs=5)
POSTERIOR = flt.DeepNetworkPosterior(TASK, flt.Sigmoid(), width=7, temperature=0.01, n_hidden_layers=2)
OPTIONS = {"n_draws": 5, "n_chains": 3, "n_warmup": 10, "chains_per_batch": 2}


@frozen
class Swish(flt.Nonlinearity):
    """A nonlinearity of the user's own."""

    beta: float = 1.0

    def __call__(self, z):
        return z * flt.special(z).expit(self.beta * z)


@frozen
class Own(Sampler):
    """A sampler of the user's own."""

    hmc: flt.HMC = field(factory=lambda: flt.HMC(n_leapfrog=3))

    def init(self, target, x, generator):
        return self.hmc.init(target, x, generator)

    def step(self, target, state, generator):
        return self.hmc.step(target, state, generator)


def saved(tmp_path, posterior=POSTERIOR, **options):
    samples = posterior.sample(**(OPTIONS | options))
    samples.save(tmp_path / "samples.flt")
    return samples, tmp_path / "samples.flt"


def assert_same(one, two):
    ours, theirs = one.draws, two.draws
    assert set(ours.rows) == set(theirs.rows) and set(ours.means) == set(theirs.means)
    for name, row in ours.rows.items():
        np.testing.assert_array_equal(row, theirs.rows[name], err_msg=name)
        assert not theirs.rows[name].flags.writeable
    for name, mean in ours.means.items():
        np.testing.assert_array_equal(mean, theirs.means[name], err_msg=name)


# There and back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["all", "readouts", "statistics"])
def test_loaded_samples_are_those_saved_and_go_on(tmp_path, keep):
    samples, path = saved(tmp_path, keep=keep, sampler=Alternate(flt.HMC(n_leapfrog=3), flt.HMC()))
    loaded = load(path)
    assert_same(samples, loaded)
    assert_same(samples.resume(3), loaded.resume(3))
    for layer in (0, 1, 2):
        np.testing.assert_array_equal(loaded.kernel(layer), samples.kernel(layer))
    np.testing.assert_array_equal(loaded.predict().mean, samples.predict().mean)
    np.testing.assert_array_equal(loaded.predict().labels, samples.predict().labels)
    assert loaded.diagnostics() == samples.diagnostics()
    assert repr(loaded) == repr(samples)
    loaded.resume(1).save(str(path))
    assert load(path).n_draws == 6


def test_tasks_and_settings_come_back(tmp_path):
    task = flt.Digits(n_samples=8, n_test=5)
    prior = flt.GaussianPrior(weight_variance=(0.5, 2.0), readout_variance=3.0)
    posterior = evolve(POSTERIOR, task=task, prior=prior, nonlinearity=flt.LeakyReLU(0.3), temperature=np.inf)
    targets = np.random.default_rng(0).normal(size=(3, 8, 3))
    samples, path = saved(
        tmp_path, posterior, targets=targets, dtype="float32", coordinates="weights", thin=2
    )
    loaded = load(path)
    assert loaded.model.task.fingerprint == task.fingerprint
    assert loaded.model.nonlinearity == flt.LeakyReLU(0.3)
    for name in ("width", "temperature", "weight_variances", "readout_variance", "is_lazy"):
        assert getattr(loaded.model, name) == getattr(samples.model, name)
    np.testing.assert_array_equal(loaded.targets, targets)
    assert_same(samples.resume(2), loaded.resume(2))
    assert_same(samples, load(path, posterior))


@pytest.mark.parametrize("phi", [flt.Sigmoid(), flt.ReLU()])
def test_moves_for_neurons_come_back(tmp_path, phi):
    samples, path = saved(tmp_path, evolve(POSTERIOR, n_hidden_layers=1, nonlinearity=phi, width=12))
    assert samples.continuation.plan.moves is not None
    assert load(path).continuation.plan.moves.fingerprint == samples.continuation.plan.moves.fingerprint
    assert_same(samples.resume(2), load(path).resume(2))


def test_classes_of_the_user_are_passed_in_never_imported(tmp_path):
    posterior = evolve(POSTERIOR, nonlinearity=Swish(2.0), sampler=Own())
    samples, path = saved(tmp_path, posterior)
    loaded = load(path, posterior)
    assert_same(samples.resume(2), loaded.resume(2))
    with pytest.raises(ValueError, match=r"posterior: .*Swish\(beta=2.0\)"):
        load(path)
    with pytest.raises(ValueError, match="posterior: .*nonlinearity"):
        load(path, evolve(posterior, nonlinearity=Swish(2.1)))
    with pytest.raises(ValueError, match="^resume"):
        load(path, evolve(posterior, sampler=None)).resume(1)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("width", evolve(POSTERIOR, width=8)),
        ("temperature", evolve(POSTERIOR, temperature=0.02)),
        ("task", evolve(POSTERIOR, task=flt.OrthogonalClassification(4, (0.5, 0.5)))),
        ("is_lazy", evolve(POSTERIOR, readout_scaling="lazy")),
    ],
)
def test_another_posterior_is_refused(tmp_path, name, other):
    _, path = saved(tmp_path)
    with pytest.raises(ValueError, match=f"^posterior: .*{name}"):
        load(path, other)


def test_stock_classes_are_told_by_identity():
    for stock in (flt.HMC(jitter=0.1), Alternate(flt.HMC(), Alternate(flt.HMC(3))), flt.LeakyReLU(0.2)):
        assert from_data(json.loads(json.dumps(to_data(stock)))) == stock
    impostor = type("HMC", (Own,), {})()
    assert to_data(impostor) is None and to_data(Own()) is None and to_data(Swish()) is None
    assert to_data(Alternate(Own(), flt.HMC())) is None


# What others read --------------------------------------------------------------------------------


def test_arviz_reads_them(tmp_path):
    samples = POSTERIOR.sample(**OPTIONS, sampler=Alternate(flt.HMC(n_leapfrog=3), flt.HMC()))
    tree = samples.to_xarray()
    assert set(tree.children) == {"posterior", "sample_stats", "observed_data"}
    assert tree["posterior"]["readouts"].dims[:2] == ("chain", "draw")
    np.testing.assert_array_equal(tree["posterior"]["readouts"], samples.readouts)
    names = {"diverging", "acceptance_rate", "energy", "lp", "step_size", "n_steps", "part_acceptance"}
    assert set(tree["sample_stats"].data_vars) == names
    assert tree["sample_stats"]["diverging"].dtype == bool
    samples.to_arviz().to_netcdf(tmp_path / "samples.nc", engine="h5netcdf")
    with xarray.open_datatree(tmp_path / "samples.nc", engine="h5netcdf") as again:
        np.testing.assert_array_equal(again["sample_stats"]["lp"], samples.draws.statistics.log_density)


# Bad files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cut", "flipped"])
def test_damaged_files_are_refused(tmp_path, kind):
    samples, path = saved(tmp_path)
    content, rng, n_refused = path.read_bytes(), random.Random(0), 0
    for _ in range(100):
        at = rng.randrange(len(content)) if rng.random() < 0.5 else rng.randrange(3000)
        flipped = content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
        path.write_bytes(content[:at] if kind == "cut" else flipped)
        try:
            assert_same(samples, load(path))  # a space in the header
        except CheckpointError as error:
            n_refused += str(path) in str(error)
    assert n_refused >= 98


class Harm:
    """What a hostile pickle does."""

    def __reduce__(self):
        return Path.write_text, (Path("harm"), "done")


def forged(record=None, tensors=None, **changes):
    """A file with a right hash that somebody made up."""
    tensors = {"a": torch.zeros(2)} if tensors is None else tensors
    text = json.dumps(record if record is not None else {"format": 1, **changes})
    return safetensors.torch.save(tensors, {"fltheory": text, "sha256": _digest(text, tensors)})


HOSTILE = {
    "empty": b"",
    "text": b"samples",
    "pickle": pickle.dumps(Harm()),
    "zip": b"PK\x03\x04" + bytes(100),
    "long header": struct.pack("<Q", 2**63) + b"{}",
    "no header": safetensors.torch.save({"a": torch.zeros(2)}),
    "deep header": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "list": forged([1]),
    "deep": safetensors.torch.save({"a": torch.zeros(2)}, {"fltheory": "[" * 100_000, "sha256": ""}),
    "another format": forged(format=2),
    "nothing else": forged(),
    "a class": forged(nonlinearity={"class": "os.system", "fields": {"command": {"value": "touch harm"}}},
                      model={"weight_variances": [1.0]}, described={}),
}  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused_and_run_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(content)
    with pytest.raises(CheckpointError, match="file"):
        load("file")
    assert not Path("harm").exists()


@pytest.mark.parametrize("name", ["builtins.eval", "subprocess.Popen", "Model", "__import__", ""])
def test_only_listed_classes_are_made(name):
    with pytest.raises(CheckpointError, match="not a stock class"):
        from_data({"class": name, "fields": {}})


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(TypeError, match="^path"):
        load(3)
    with pytest.raises(TypeError, match="^posterior"):
        load(tmp_path / "x", flt.Sigmoid())
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path / "x")


def test_an_old_file_stays_where_saving_fails(tmp_path, monkeypatch):
    samples, path = saved(tmp_path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        samples.resume(1).save(path)
    assert path.read_bytes() == before


# No pickles --------------------------------------------------------------------------------------

UNSAFE = re.compile(
    r"pickle\.loads?\b|allow_pickle\s*=\s*True|weights_only\s*=\s*False|\bUnpickler\b|(?<!safetensors\.)torch\.load\b"
)


def test_nothing_is_unpickled():
    package = Path(flt.__file__).parent
    files = [path for path in package.rglob("*.py") if path.parent.name != "testing"]  # which pickles its own
    assert [path for path in files if UNSAFE.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("line", ["pickle.load(file)", "np.load(f, allow_pickle=True)", "torch.load(f)"])
def test_unpickling_would_be_found(line):
    assert UNSAFE.search(line)
