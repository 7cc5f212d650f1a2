"""Files of samples and solutions: equal to the last bit, able to go on, and harmless whatever they hold."""

import json
import pickle
import random
import re
import struct
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import xarray
from attrs import evolve, field, frozen

import fltheory as flt
from fltheory.errors import CheckpointError
from fltheory.io import load
from fltheory.sampler.alternate import Alternate
from fltheory.sampler.base import Sampler
from fltheory.storage.archive import digest
from fltheory.storage.objects import Reader, Writer, is_stock

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
        writer = Writer()
        reference = writer.write(stock)
        assert Reader.of(json.loads(json.dumps(writer.objects)), {}).read(reference) == stock
    impostor = type("HMC", (Own,), {"__module__": flt.HMC.__module__})()
    for foreign in (impostor, Own(), Swish(), Alternate(Own(), flt.HMC()), np.random.default_rng(0)):
        assert not is_stock(foreign)


# Solutions --------------------------------------------------------------------------------------


TWO = flt.OrthogonalClassification(n_samples=12, class_ratios=(0.5, 0.5))
THEORY = flt.DeepNetworkPosterior(TWO, flt.Sigmoid(), width=60, temperature=1e-3)
SOLVED = {
    "closed form": (evolve(THEORY, nonlinearity=flt.Linear(), n_hidden_layers=2), {}),
    "lazy": (evolve(THEORY, readout_scaling="lazy"), {}),
    "prior": (evolve(THEORY, temperature=np.inf), {}),
    "quadrature": (THEORY, {}),
    "condensed": (evolve(THEORY, nonlinearity=flt.ReLU()), {}),
    "finite width": (THEORY, {"finite_width": True}),
    "imposed": (THEORY, {"code_fractions": {(1, 0): 0.5, (0, 1): 0.5}}),
    "ep": (evolve(THEORY, task=flt.Digits((0, 1), n_samples=12, n_test=3)), {}),
    "deep": (evolve(THEORY, n_hidden_layers=2), {}),
    "deep ReLU": (evolve(THEORY, nonlinearity=flt.ReLU(), n_hidden_layers=2), {}),
    "particles": (evolve(THEORY, task=evolve(TWO, n_samples=4)), {"method": "particles"}),
}


@pytest.fixture(scope="module")
def solved():
    """Each is solved once."""
    return cache(lambda name: SOLVED[name][0].solve(**SOLVED[name][1]))


def assert_answers(one, two):
    """The same answers, to the last bit where they are kept and to rounding where they are computed."""
    assert repr(one) == repr(two)
    new = np.random.default_rng(0).normal(size=(3, one.model.task.n_inputs))
    for layer in range(1, one.model.n_hidden_layers + 1):
        np.testing.assert_allclose(two.kernel(layer), one.kernel(layer), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(two.kernel(layer, new), one.kernel(layer, new), rtol=1e-10, atol=1e-12)
        ours, theirs = one.neurons(4, layer, seed=1), two.neurons(4, layer, seed=1)
        np.testing.assert_allclose(theirs.activations, ours.activations, rtol=1e-9, atol=1e-12)
        assert one.symmetry(layer) == two.symmetry(layer)
    np.testing.assert_array_equal(two.dual_field, one.dual_field)
    for inputs in (None, new):
        np.testing.assert_allclose(two.predict(inputs).mean, one.predict(inputs).mean, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(two.predict(inputs).variance, one.predict(inputs).variance, rtol=1e-8)
    for ours, theirs in zip(one.branches, two.branches, strict=True):
        np.testing.assert_allclose(theirs.readout, ours.readout, rtol=1e-12, atol=1e-14)
        assert theirs.probability == pytest.approx(ours.probability, rel=1e-12) and theirs.code == ours.code


@pytest.mark.parametrize("name", SOLVED)
def test_loaded_solutions_answer_as_before(tmp_path, solved, name):
    solution = solved(name)
    solution.save(tmp_path / "solution.flt")
    loaded = load(tmp_path / "solution.flt")
    assert_answers(solution, loaded)
    assert repr(load(tmp_path / "solution.flt", SOLVED[name][0])) == repr(solution)
    assert loaded.model.task.fingerprint == solution.model.task.fingerprint
    loaded.save(str(tmp_path / "again.flt"))
    np.testing.assert_array_equal(load(tmp_path / "again.flt").dual_field, solution.dual_field)


def test_the_solver_goes_on_from_a_loaded_solution(tmp_path, solved):
    solved("ep").save(tmp_path / "solution.flt")
    posterior = evolve(SOLVED["ep"][0], temperature=9e-4)
    cold = posterior.solve(start=load(tmp_path / "solution.flt"), method="ep")
    np.testing.assert_allclose(cold.dual_field, posterior.solve(start=solved("ep"), method="ep").dual_field)


def test_a_solution_for_a_nonlinearity_of_the_user(tmp_path):
    posterior = evolve(THEORY, nonlinearity=Swish(2.0), readout_scaling="lazy")
    posterior.solve().save(tmp_path / "solution.flt")
    assert_answers(posterior.solve(), load(tmp_path / "solution.flt", posterior))
    with pytest.raises(ValueError, match=r"posterior: .*Swish\(beta=2.0\)"):
        load(tmp_path / "solution.flt")
    with pytest.raises(ValueError, match="^posterior: .*nonlinearity"):
        load(tmp_path / "solution.flt", evolve(posterior, nonlinearity=Swish(2.1)))


@pytest.mark.parametrize("name", ["quadrature", "condensed", "closed form"])
def test_xarray_holds_a_solution(solved, name):
    solution = solved(name)
    tree = solution.to_xarray()
    found = tree["solution"]
    np.testing.assert_array_equal(found["dual_field"], solution.dual_field)
    last = solution.model.n_hidden_layers
    np.testing.assert_array_equal(found["kernel"].sel(layer=last), solution.kernel(last))
    assert found["branch_readout"].dims == ("branch", "output")
    assert found.sizes["outlier"] == len(solution.outliers)
    assert found.attrs["method"] == solution.method and found.attrs["residual"] == solution.residual
    np.testing.assert_array_equal(tree["observed_data"]["targets"], TWO.targets)


def test_a_representation_of_the_user_says_that_it_cannot_be_saved(tmp_path):
    class Own(flt.Representation):
        model = dual_field = kernel = predict = neurons = None

    with pytest.raises(NotImplementedError, match="^Own cannot be saved"):
        Own().save(tmp_path / "own.flt")
    with pytest.raises(NotImplementedError, match="^Own is not available"):
        Own().to_xarray()
    assert not list(tmp_path.iterdir())


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
    tensors = {"a": np.zeros(2)} if tensors is None else tensors
    text = json.dumps(record if record is not None else {"format": 2, "kind": "samples", **changes})
    return safetensors.numpy.save(tensors, {"fltheory": text, "sha256": digest(text, tensors)})


MADE = {"given": [], "described": {}, "model": {"object": 0}}
HOSTILE = {
    "empty": b"",
    "text": b"samples",
    "pickle": pickle.dumps(Harm()),
    "zip": b"PK\x03\x04" + bytes(100),
    "long header": struct.pack("<Q", 2**63) + b"{}",
    "no header": safetensors.numpy.save({"a": np.zeros(2)}),
    "deep header": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "list": forged([1]),
    "deep": safetensors.numpy.save({"a": np.zeros(2)}, {"fltheory": "[" * 100_000, "sha256": ""}),
    "another format": forged(format=3),
    "nothing else": forged(),
    "another kind": forged(kind="weights"),
    "a class": forged(**MADE, objects=[{"class": "os:system", "fields": {"command": "touch harm"}}]),
    "a function": forged(**MADE, objects=[{"class": "meanfield.saving:save", "fields": {}}]),
    "another class": forged(**MADE, kind="solution", solution={"object": 0},
                            objects=[{"class": "sampler.hmc:HMC", "fields": {}}]),
    "a bad field": forged(**MADE, objects=[{"class": "nonlinearity.stock:LeakyReLU",
                                            "fields": {"negative_slope": float("inf")}}]),
    "a later part": forged(**MADE, objects=[{"class": "sampler.alternate:Alternate",
                                             "fields": {"samplers": [{"object": 0}]}}]),
}  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused_and_run_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(content)
    with pytest.raises(CheckpointError, match="file"):
        load("file")
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    "name",
    ["builtins:eval", "subprocess:Popen", "Model", "__import__", "", "model:np", "model:describe_model",
     "nonlinearity:Sigmoid", "numerics.validation:np", "meanfield.none:None", "..os:system", "__main__:main",
     "network.runs:Group", "sampler.base:Sampler.init"],
)  # fmt: skip
def test_only_classes_of_frozen_objects_are_made(name):
    with pytest.raises(CheckpointError, match="not a stock class"):
        Reader.of([{"class": name, "fields": {}}], {})


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
