"""Answers from weighted neurons: the two forms of the covariance, and what they need of memory."""

import tracemalloc

import numpy as np
import pytest

import fltheory as flt
from fltheory.meanfield import ensemble
from fltheory.meanfield.ensemble import NeuronEnsemble, moments


class Example:
    """Neurons with a common latent: their law is known, so that many more of them give the truth."""

    def __init__(self, n_samples: int, m: int, n: int = 4000, seed: int = 0, n_inputs: int = 12) -> None:
        rng = np.random.default_rng(0)
        self.factor = rng.standard_normal((n_samples, n_inputs)) / np.sqrt(n_inputs)
        new = rng.standard_normal((6, n_inputs)) / np.sqrt(n_inputs)
        self.inputs = np.concatenate([self.factor[:3], new])
        self.spread = np.array([0.0, 0.0, 0.0, *np.full(6, 0.1)])
        self.pull = rng.standard_normal((n_samples, m)) / n_samples * 4
        self.phi = flt.Sigmoid()
        rng = np.random.default_rng(seed + 1)
        sign = np.sign(rng.standard_normal((n, 1)))
        self.latent = rng.standard_normal((n, n_inputs)) + 1.5 * sign * np.eye(n_inputs)[0]
        self.activations = self.phi(self.latent @ self.factor.T)
        self.readouts = self.activations @ self.pull + 0.2 * rng.standard_normal((n, m))

    def ensemble(self, outputs: np.ndarray | None = None, noise: float = 0.05) -> NeuronEnsemble:
        even = np.full(len(self.readouts), 1 / len(self.readouts))
        mean = self.activations.T @ self.readouts / len(even) if outputs is None else outputs
        return NeuronEnsemble(self.activations, self.readouts, even, mean, noise)

    def predict(self, neurons: NeuronEnsemble) -> tuple[np.ndarray, np.ndarray]:
        return neurons.predict(self.phi, self.latent @ self.inputs.T, self.spread)


@pytest.fixture
def structured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "_LARGEST_DENSE", 0)


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "structured"])
def test_a_training_input_is_predicted_exactly(dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not dense:
        monkeypatch.setattr(ensemble, "_LARGEST_DENSE", 0)
    example = Example(30, 2)
    outputs = example.ensemble().outputs + 0.01 * np.random.default_rng(2).standard_normal((30, 2))
    neurons = example.ensemble(outputs)
    mean, variance = example.predict(neurons)
    np.testing.assert_allclose(mean[:3], outputs[:3], atol=1e-6)
    np.testing.assert_allclose(variance[:3], neurons.training_variance()[:3], rtol=0.05, atol=1e-5)
    assert (variance > 0).all()


def test_both_forms_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean up to its noise, and the variance within a percent."""
    truth = Example(40, 2, n=60_000, seed=5).ensemble().outputs
    example = Example(40, 2)
    dense_mean, dense_variance = example.predict(example.ensemble(truth))
    dense_train = example.ensemble(truth).training_variance()
    monkeypatch.setattr(ensemble, "_LARGEST_DENSE", 0)
    mean, variance = example.predict(example.ensemble(truth))
    plain = example.predict(example.ensemble())[0]  # without what is known of the outputs
    assert np.linalg.norm(mean - dense_mean) < 0.3 * np.linalg.norm(plain - dense_mean)
    np.testing.assert_allclose(variance, dense_variance, rtol=1e-4)
    np.testing.assert_allclose(example.ensemble(truth).training_variance(), dense_train, rtol=0.05)


@pytest.mark.usefixtures("structured")
def test_known_outputs_make_predictions_better() -> None:
    truth = Example(40, 2, n=60_000, seed=5)
    exact = truth.predict(truth.ensemble())[0][3:]
    errors = []
    for seed in range(5):
        example = Example(40, 2, n=1000, seed=10 * seed)
        known = example.predict(example.ensemble(truth.ensemble().outputs))[0][3:]
        unknown = example.predict(example.ensemble())[0][3:]
        errors.append([np.linalg.norm(known - exact), np.linalg.norm(unknown - exact)])
    first, second = np.mean(errors, axis=0)
    assert first < 0.5 * second


@pytest.mark.usefixtures("structured")
def test_few_directions_leave_an_upper_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variance that is left by any regression is above that left by the best one."""
    example = Example(40, 2)
    best = example.predict(example.ensemble())[1]
    monkeypatch.setattr(ensemble, "_N_REFINEMENTS", 0)
    monkeypatch.setattr(ensemble, "_N_DIRECTIONS", 24)
    few = example.predict(example.ensemble())[1]
    assert (few > 0.999 * best).all()
    assert few.mean() < 1.5 * best.mean()


def test_no_large_array_is_made() -> None:
    """P m = 2400: neither the outputs of all neurons, (n, P m), nor their covariance, (P m, P m)."""
    example = Example(400, 6, n=3000)
    neurons = example.ensemble()
    assert neurons.outputs.size > ensemble._LARGEST_DENSE
    tracemalloc.start()
    example.predict(neurons)
    neurons.training_variance()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * neurons.outputs.size * 8 + 3 * neurons.outputs.size**2 * 8
    assert peak < 100e6


def test_without_spread_moments_are_values() -> None:
    mean = np.linspace(-2, 2, 7)
    first, second = moments(flt.Tanh(), mean, 0.0)
    np.testing.assert_array_equal(first, np.tanh(mean))
    np.testing.assert_array_equal(second, np.tanh(mean) ** 2)
    first, second = moments(flt.ReLU(), np.zeros(1), 2.0)
    np.testing.assert_allclose([first[0], second[0]], [np.sqrt(1 / np.pi), 1.0], rtol=1e-9)
