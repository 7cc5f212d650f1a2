"""Networks sampled: agreement of coordinates, limits, identities, interruption and resumption."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from attrs import evolve, field, frozen

from fltheory.errors import InterruptedWarning
from fltheory.model import Model
from fltheory.network import runs
from fltheory.network.chains import cooling
from fltheory.network.samples import PosteriorSamples
from fltheory.network.sampling import sample_network
from fltheory.network.target import IntegratedTarget
from fltheory.nonlinearity import Linear, ReLU, Sigmoid, Tanh
from fltheory.sampler.alternate import Alternate
from fltheory.sampler.base import Sampler
from fltheory.sampler.hmc import HMC
from fltheory.task import ArrayTask, OrthogonalClassification

SIGMOID = Sigmoid()


def small_model(temperature=0.05, *, width=8, depth=1, phi=SIGMOID, lazy=False, n_samples=4) -> Model:
    task = OrthogonalClassification(n_samples, (0.5, 0.5), n_inputs=5)
    return Model(task, phi, width, temperature, (1.0,) * depth, 1.0, lazy)


def sample(model: Model, **options) -> PosteriorSamples:
    defaults = {"n_draws": 6, "n_chains": 3, "n_warmup": 30, "progress": False}
    return sample_network(model, HMC(n_leapfrog=5), **(defaults | options))


@pytest.fixture(scope="module")
def samples() -> PosteriorSamples:
    return sample(small_model(depth=2))


# The posterior -----------------------------------------------------------------------------------


def functionals(samples: PosteriorSamples) -> np.ndarray:
    """Numbers that feel the data, shape (C, D, k)."""
    a, phi = samples.readouts, samples.activations(1)
    f = samples.outputs()
    t = samples.dual_field_draws
    kernel = np.einsum("cdnp,cdnq->cdpq", phi, phi)
    return np.stack(
        [
            (a**2).mean((2, 3)),
            f[:, :, 0, 0],
            f[:, :, 0, 1],
            t[:, :, 0, 0],
            kernel[..., 0, 1],
            kernel[..., 0, 3],
        ],
        -1,
    )


def z_scores(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Difference of means in standard errors from the effective sample sizes."""
    result = []
    for k in range(one.shape[-1]):
        error2 = sum(v[..., k].var() / array_stats.ess(v[..., k]) for v in (one, two))
        result.append((one[..., k].mean() - two[..., k].mean()) / math.sqrt(error2))
    return np.array(result)


@pytest.mark.slow
def test_both_coordinates_have_the_same_posterior_and_another_temperature_has_not():
    # Errors are about 2 % of a standard deviation. Six numbers beyond 4.5 by chance: 4e-5.
    options = {"n_chains": 16, "n_draws": 500, "n_warmup": 150, "progress": False}
    sampler, model = HMC(n_leapfrog=8), small_model()
    integrated = functionals(sample_network(model, sampler, seed=1, **options))
    weights = functionals(sample_network(model, sampler, seed=2, coordinates="weights", **options))
    assert np.abs(z_scores(integrated, weights)).max() < 4.5
    warmer = functionals(sample_network(small_model(temperature=0.065), sampler, seed=3, **options))
    assert np.abs(z_scores(integrated, warmer)).max() > 6


@pytest.mark.parametrize("coordinates", ["integrated", "weights"])
def test_infinite_temperature_gives_the_prior(coordinates):
    model = small_model(math.inf, depth=2, width=20)
    drawn = sample(model, coordinates=coordinates, n_draws=50, n_chains=8)
    for w, variance in zip((*drawn.weights, drawn.readouts), (1.0, 1.0, 1.0), strict=True):
        assert w.mean() == pytest.approx(0.0, abs=0.05)
        assert w.var() == pytest.approx(variance, rel=0.07)
    assert not drawn.dual_field.any()
    prediction = drawn.predict()
    assert not prediction.mean.any()
    feature_square = np.diag(drawn.kernel(2)) / model.width  # sigma_a^2 <phi^2> / N
    np.testing.assert_allclose(prediction.variance, np.repeat(feature_square[:, None], 2, 1))


@pytest.mark.parametrize(("phi", "depth"), [(Sigmoid(), 1), (Sigmoid(), 2), (Sigmoid(), 3), (Linear(), 1)])
def test_training_error_vanishes_at_zero_temperature(phi, depth):
    drawn = sample(small_model(0.0, phi=phi, depth=depth, width=12))
    assert (drawn.training_error < 1e-20).all()
    assert np.isfinite(drawn.draws.statistics.log_density).all()
    np.testing.assert_allclose(drawn.predict().mean, drawn.model.task.targets, atol=1e-10)
    assert drawn.dual_field.any()


@pytest.mark.parametrize("lazy", [False, True])
def test_dual_field_is_the_scaled_residual_of_the_prediction(lazy):
    drawn = sample(small_model(lazy=lazy))
    residual = drawn.model.task.targets - drawn.predict().mean
    np.testing.assert_allclose(drawn.dual_field, residual / drawn.model.scaled_temperature, rtol=1e-8)


@pytest.mark.slow
def test_prediction_agrees_with_the_outputs_of_the_networks():
    drawn = sample(small_model(), n_draws=400, n_chains=8)
    new = np.random.default_rng(0).normal(size=(3, 5))
    outputs, prediction = drawn.outputs(new), drawn.predict(new)
    for mu in range(3):
        for r in range(2):
            values = outputs[:, :, mu, r]
            error = values.std() / math.sqrt(array_stats.ess(values))
            assert abs(values.mean() - prediction.mean[mu, r]) < 4.5 * error
            assert values.var() == pytest.approx(prediction.variance[mu, r], rel=0.15)
    np.testing.assert_array_equal(drawn.predict().labels, drawn.model.task.labels)


def test_targets_in_place_of_those_of_the_task():
    model = small_model()
    targets = np.stack([model.task.targets, -model.task.targets, 0 * model.task.targets])
    drawn = sample(model, targets=targets)
    means = drawn.outputs().mean(1)
    assert (means[0, :, 0] - means[1, :, 0])[0] > 0.5
    assert not drawn.dual_field_draws[2].any()
    same = sample(model, targets=model.task.targets)
    np.testing.assert_array_equal(same.readouts, sample(model).readouts)
    np.testing.assert_allclose(drawn.training_error, ((drawn.outputs() - targets[:, None]) ** 2).mean((2, 3)))


# Questions ---------------------------------------------------------------------------------------


def test_kernels_are_averages_over_activations(samples):
    for layer in (1, 2):
        phi = samples.activations(layer)
        assert phi.shape == (3, 6, 8, 4)
        expected = np.einsum("cdnp,cdnq->pq", phi, phi) / (3 * 6 * 8)
        np.testing.assert_allclose(samples.kernel(layer), expected)
        np.testing.assert_allclose(samples.kernel(layer, samples.model.task.inputs), expected)
    np.testing.assert_allclose(samples.kernel(0), samples.model.input_kernel, atol=1e-15)


def test_outputs_are_those_of_activations_and_readouts(samples):
    f = np.einsum("cdnp,cdnm->cdpm", samples.activations(2), samples.readouts) / 8
    np.testing.assert_allclose(samples.outputs(), f)


def test_functional_streams_over_draws(samples):
    trace = samples.functional(lambda phi: (phi**2).sum((1, 2)), 1)
    np.testing.assert_allclose(trace, (samples.activations(1) ** 2).sum((2, 3)))
    new = np.ones((2, 5))
    assert samples.functional(lambda phi: phi, inputs=new).shape == (3, 6, 8, 2)
    positive = samples.functional(lambda phi: phi[:, :, 0] > 0)
    np.testing.assert_array_equal(positive, samples.activations(2)[..., 0] > 0)
    assert positive.dtype == np.float64 and not positive.flags.writeable


@pytest.mark.parametrize("layer", [1, 2])
def test_neurons_are_of_one_network_up_to_its_width(samples, layer):
    drawn = samples.neurons(8, layer, seed=1)
    phi = samples.activations(layer).reshape(-1, 8, 4)
    found = [np.isclose(network[:, None], drawn.activations).all(-1).any(0).all() for network in phi]
    assert sum(found) == 1
    np.testing.assert_allclose(Sigmoid()(drawn.preactivations), drawn.activations)
    assert len(np.unique(drawn.activations[:, 0])) == 8
    if layer == 2:
        outputs = drawn.activations.T @ drawn.readouts / 8
        every = samples.outputs().reshape(-1, 4, 2)
        assert np.isclose(every, outputs).all((1, 2)).any()
    else:
        assert drawn.readouts is None


def test_more_neurons_are_pooled(samples):
    drawn = samples.neurons(3 * 6 * 8, 2)
    every = samples.activations(2).reshape(-1, 4)
    np.testing.assert_array_equal(np.sort(drawn.activations, axis=0), np.sort(every, axis=0))
    np.testing.assert_array_equal(
        samples.neurons(20, 1, 4).activations, samples.neurons(20, 1, 4).activations
    )


def test_arrays_are_read_only_float64(samples):
    prediction, neurons = samples.predict(), samples.neurons(3, 2)
    arrays = [*samples.weights, samples.readouts, samples.dual_field, samples.kernel(1), samples.outputs()]
    arrays += [samples.training_error, samples.acceptance_rate, samples.activations(1), prediction.mean]
    arrays += [prediction.variance, neurons.activations, neurons.readouts, samples.dual_field_draws]
    for array in arrays:
        assert array.dtype == np.float64
        assert not array.flags.writeable
        assert np.isfinite(array).all()


def test_diagnostics(samples):
    report = samples.diagnostics()
    assert set(report.functionals) >= {"log_density", "kernel_trace_1", "kernel_trace_2"}
    assert all(f.rhat > 0.9 and f.ess > 1 for name, f in report.functionals.items() if "code" not in name)
    assert report.stuck_chains == report.non_finite_chains == ()
    assert report.n_divergences == (0, 0, 0)
    np.testing.assert_allclose(report.acceptance_rate, samples.acceptance_rate)
    assert "log_density" in str(report)


def test_stuck_and_non_finite_chains_are_flagged(samples):
    statistics, traces = samples.draws.statistics, dict(samples.draws.traces)
    traces["readout_square"] = traces["readout_square"].copy()
    traces["readout_square"][2, 1] = np.nan
    log_density = statistics.log_density.copy()
    log_density[1] = 3.0
    draws = evolve(samples.draws, traces=traces, statistics=evolve(statistics, log_density=log_density))
    flagged = evolve(samples, draws=draws)
    report = flagged.diagnostics()
    assert report.stuck_chains == (1,)
    assert report.non_finite_chains == (2,)
    assert report.functionals["log_density"].ess is None
    assert report.functionals["readout_square"].rhat is None
    assert "not converged: chains (2,) are not finite" in repr(flagged)


@frozen
class Spoiled(Sampler):
    """HMC that puts NaN into one weight of one chain at its n-th step."""

    countdown: list[int]
    hmc: HMC = field(factory=lambda: HMC(n_leapfrog=5))

    def init(self, target, x, generator):
        return self.hmc.init(target, x, generator)

    def step(self, target, state, generator):
        state, info = self.hmc.step(target, state, generator)
        self.countdown[0] -= 1
        if self.countdown[0] == 0:
            state.position[1, 0] = math.nan
        return state, info


def test_a_chain_that_is_not_finite_is_reported_and_leaves_the_others_alone():
    options = {"n_draws": 8, "n_chains": 3, "n_warmup": 0, "progress": False}
    spoiled = sample_network(small_model(), Spoiled([5]), **options)
    assert spoiled.diagnostics().non_finite_chains == (1,)
    whole = sample_network(small_model(), Spoiled([1000]), **options)
    np.testing.assert_array_equal(spoiled.readouts[[0, 2]], whole.readouts[[0, 2]])


def test_few_draws_and_one_chain_have_no_rhat():
    report = sample(small_model(), n_draws=2).diagnostics()
    assert report.functionals["log_density"].ess is None
    alone = sample(small_model(), n_chains=1)
    assert alone.diagnostics().functionals["log_density"].rhat is None
    assert "1 chain of 6 draws; not converged: one chain" in repr(alone)
    assert "3 chains of 1 draw; not converged: too few draws" in repr(sample(small_model(), n_draws=1))


# Runs --------------------------------------------------------------------------------------------


def assert_same_draws(one: PosteriorSamples, two: PosteriorSamples) -> None:
    for left, right in zip((*one.weights, one.readouts), (*two.weights, two.readouts), strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(one.draws.statistics.energy, two.draws.statistics.energy)


@pytest.mark.parametrize("coordinates", ["integrated", "weights"])
def test_a_resumed_run_is_one_longer_run(coordinates):
    options = {"coordinates": coordinates, "thin": 2, "seed": 5}
    whole = sample(small_model(), n_draws=7, **options)
    assert_same_draws(sample(small_model(), n_draws=3, **options).resume(4), whole)
    assert not np.array_equal(
        sample(small_model(), n_draws=7, coordinates=coordinates).readouts, whole.readouts
    )


@frozen
class Interrupted(Sampler):
    """HMC that is interrupted at its n-th step."""

    countdown: list[int]
    hmc: HMC = field(factory=lambda: HMC(n_leapfrog=5))

    def init(self, target, x, generator):
        return self.hmc.init(target, x, generator)

    def step(self, target, state, generator):
        self.countdown[0] -= 1
        if self.countdown[0] == 0:
            torch.rand(3, generator=generator)  # in the middle of its work
            raise KeyboardInterrupt
        return self.hmc.step(target, state, generator)


def test_an_interrupted_run_keeps_its_draws_and_goes_on():
    options = {"n_draws": 8, "n_chains": 2, "n_warmup": 10, "progress": False}
    whole = sample_network(small_model(), Interrupted([1000]), **options)
    with pytest.warns(InterruptedWarning, match="5 of 8") as record:
        part = sample_network(small_model(), Interrupted([10 + 6]), **options)
    assert [warning.filename for warning in record] == [__file__], "it points at this call"
    assert part.readouts.shape == (2, 5, 8, 2)
    assert_same_draws(part.resume(3, progress=False), whole)


@pytest.mark.parametrize("step", [3, 11])
def test_an_interruption_before_the_first_draw_passes_through(step):
    with pytest.raises(KeyboardInterrupt):
        sample_network(small_model(), Interrupted([step]), n_draws=4, n_warmup=10, progress=False)


def test_progress_bar_is_shown_on_request_only(capfd, monkeypatch):
    sample(small_model(), progress=None)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(runs, "_SECONDS_BETWEEN_REPORTS", 0.0)
    sampler = Alternate(HMC(n_leapfrog=5), HMC(n_leapfrog=5))
    sample_network(small_model(), sampler, n_draws=30, n_warmup=20, progress=True)
    shown = capfd.readouterr().err
    for what in ("warm-up", "draws", "acceptance=0.", "step=", "divergences=0", "error=0."):
        assert what in shown


def test_start_from_earlier_samples(samples):
    on = sample(samples.model, start=samples, n_warmup=0, n_draws=1)
    moved = np.abs(on.weights[0][:, 0] - samples.weights[0][:, -1]).mean()
    fresh = np.abs(on.weights[0][:, 0] - samples.weights[0][[1, 2, 0], -1]).mean()
    assert moved < 0.8 * fresh
    weights = sample(samples.model, start=samples, n_warmup=2, coordinates="weights")
    assert weights.readouts.shape == samples.readouts.shape


@pytest.mark.parametrize("temperature", [0.0, 1e-3, math.inf])
def test_cooling_ends_at_the_temperature_of_the_target(temperature):
    target = IntegratedTarget(small_model(temperature, width=20))
    x = torch.randn(2, target.dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    levels = cooling(target, x, 100)
    temperatures = [level for level, _ in levels]
    assert sum(n for _, n in levels) == 100
    assert temperatures[-1] == temperature
    assert all(a > b for a, b in pairwise(temperatures))
    assert levels[-1][1] >= 40


def test_single_precision_and_other_nonlinearities():
    drawn = sample(small_model(phi=Tanh()), dtype="float32")
    assert np.isfinite(drawn.predict().mean).all()


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"n_draws": 0}, ValueError),
        ({"n_draws": 2.0}, TypeError),
        ({"n_chains": True}, TypeError),
        ({"n_warmup": -1}, ValueError),
        ({"start": "posterior"}, ValueError),
        ({"start": 3}, TypeError),
        ({"seed": -1}, ValueError),
        ({"coordinates": "polar"}, ValueError),
        ({"device": "nowhere"}, ValueError),
        ({"device": 0}, TypeError),
        ({"dtype": "float16"}, ValueError),
        ({"thin": 0}, ValueError),
        ({"progress": "yes"}, TypeError),
        ({"targets": np.ones((4, 3))}, ValueError),
        ({"targets": np.ones((2, 4, 2))}, ValueError),
        ({"targets": np.full((4, 2), np.nan)}, ValueError),
    ],
)
def test_bad_arguments_are_named(options, error):
    with pytest.raises(error, match=next(iter(options))):
        sample(small_model(), **options)


def test_bad_sampler_is_named():
    with pytest.raises(TypeError, match=r"sampler.*call it"):
        sample_network(small_model(), HMC, n_draws=1)


def test_samples_of_other_shapes_are_no_start(samples):
    with pytest.raises(ValueError, match="start"):
        sample(small_model(), start=samples)
    with pytest.raises(ValueError, match="start"):
        sample(samples.model, start=samples, n_chains=2)


def test_zero_temperature_needs_wide_networks_and_integrated_readouts():
    with pytest.raises(ValueError, match="width"):
        sample(small_model(0.0, width=3))
    for coordinates in ("weights", "preactivations"):
        with pytest.raises(ValueError, match=f"coordinates: .*'hidden weights' .*got '{coordinates}'"):
            sample(small_model(0.0), coordinates=coordinates)


@pytest.mark.parametrize(
    ("third", "phi", "match"),
    [
        ([1.0, 2.0], Sigmoid(), "3 different training inputs at temperature 0, got 2"),
        ([1.0, 1.0], Linear(), "3 linearly independent training inputs at temperature 0, got 2"),
        ([2.0, 4.0], ReLU(), "linearly independent features"),
    ],
)
def test_zero_temperature_needs_independent_features(third, phi, match):
    inputs = np.array([[1.0, 2.0], [0.0, 1.0], third])
    model = Model(ArrayTask(inputs, np.ones((3, 1))), phi, 8, 0.0, (1.0,), 1.0, False)
    with pytest.raises(ValueError, match=f"^inputs: .*{match}"):
        sample(model)
    assert np.isfinite(sample(evolve(model, temperature=0.1)).training_error).all()


@pytest.mark.parametrize(
    ("question", "name"),
    [
        (lambda s: s.kernel(3), "layer"),
        (lambda s: s.kernel(True), "layer"),
        (lambda s: s.kernel(1, np.ones((2, 4))), "inputs"),
        (lambda s: s.kernel(1, [[math.nan] * 5]), "inputs"),
        (lambda s: s.activations(0), "layer"),
        (lambda s: s.activations(None), "layer"),
        (lambda s: s.outputs("x"), "inputs"),
        (lambda s: s.predict(np.ones(5)), "inputs"),
        (lambda s: s.neurons(0, 1), "n"),
        (lambda s: s.neurons(3 * 6 * 8 + 1, 1), "n"),
        (lambda s: s.neurons(2, 0), "layer"),
        (lambda s: s.neurons(2, 1, seed=0.5), "seed"),
        (lambda s: s.functional(3), "function"),
        (lambda s: s.functional(lambda phi: 1.0), "function"),
        (lambda s: s.functional(lambda phi: np.full(3, math.nan)), "function"),
        (lambda s: s.resume(0), "n_draws"),
        (lambda s: s.resume(1, progress=1), "progress"),
        (lambda s: evolve(s, continuation=None).resume(1), "resume"),
    ],
)
def test_bad_questions_are_refused_by_name(samples, question, name):
    with pytest.raises((ValueError, TypeError), match=f"^{name}"):
        question(samples)
