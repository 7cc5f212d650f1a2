"""Theory against sampled networks, on cases that nothing was tuned to.

Two kinds of comparison, never mixed: a *trend* over widths at fixed N T, whose limit must be the
theory's value within its error, and *one width*, where the gap is bounded by what 1/N explains.
Code shares freeze under HMC and are conditions here, not results.
"""

from collections.abc import Callable

import numpy as np
import pytest
from attrs import evolve, frozen

import fltheory as flt

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

WIDTHS = (150, 300, 600)
N_CHAINS = 8
LARGEST_SCORE = 5.0


@frozen(eq=False)
class Trend:
    """Quantities at infinite width by the fit gap(N) = g + c / N, and their standard errors."""

    limit: np.ndarray
    error: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "Trend":
        """From values (widths, chains, quantities); chains are independent, so they give the errors."""
        mean, error = values.mean(1), values.std(1, ddof=1) / np.sqrt(values.shape[1])
        design = np.stack([np.ones(len(WIDTHS)), 1 / np.array(WIDTHS)], axis=1)
        limits, errors = [], []
        for column, sigma in zip(mean.T, error.T, strict=True):
            weighted = design / sigma[:, None]
            covariance = np.linalg.inv(weighted.T @ weighted)
            limits.append((covariance @ weighted.T @ (column / sigma))[0])
            errors.append(np.sqrt(covariance[0, 0]))
        return cls(np.array(limits), np.array(errors))

    def scores(self, expected: np.ndarray) -> np.ndarray:
        return np.abs(self.limit - expected) / self.error


def order_parameters(
    field: np.ndarray, kernel: np.ndarray, activations: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """t on its own and on the other class, <phi> of one-class neurons on theirs and on the other,
    and the kernel between inputs of the same and of different classes: arrays with leading axes."""
    own = np.eye(2, dtype=bool)[labels]
    same = (labels[:, None] == labels) & ~np.eye(len(labels), dtype=bool)
    other = labels[:, None] != labels
    return np.stack(
        [
            field[..., own].mean(-1),
            field[..., ~own].mean(-1),
            activations[..., 0],
            activations[..., 1],
            kernel[..., same].mean(-1),
            kernel[..., other].mean(-1),
        ],
        axis=-1,
    )


def code_activations(activations: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean activation of the neurons active on one class only, there and elsewhere: (C, N, P) -> (C, 2)."""
    means = np.stack([activations[..., labels == c].mean(-1) for c in (0, 1)], axis=-1)
    single = (means > 0.5).sum(-1) == 1
    high, low = (np.where(single, pick(means, -1), 0.0).sum(-1) for pick in (np.max, np.min))
    return np.stack([high, low], axis=-1) / single.sum(-1)[:, None]


@pytest.fixture(scope="module")
def two_classes() -> flt.DeepNetworkPosterior:
    task = flt.OrthogonalClassification(60, (0.5, 0.5))
    return flt.DeepNetworkPosterior(task, flt.Sigmoid(), width=300, temperature=1e-4)


@pytest.fixture(scope="module")
def trend(two_classes: flt.DeepNetworkPosterior) -> Trend:
    labels = two_classes.task.labels
    rows = []
    for width in WIDTHS:
        samples = two_classes.at_width(width).sample(
            flt.HMC(), n_draws=40, n_chains=N_CHAINS, n_warmup=500, seed=width
        )
        kernel = samples.functional(lambda phi: phi.swapaxes(-1, -2) @ phi / phi.shape[1], 1)
        codes = samples.functional(lambda phi: code_activations(phi, labels), 1)
        rows.append(order_parameters(samples.dual_field_draws, kernel, codes, labels).mean(1))
    return Trend.of(np.array(rows))


def expected(theory: flt.MeanFieldSolution) -> np.ndarray:
    labels = theory.model.task.labels
    neurons = theory.neurons(20_000, layer=1, seed=0)
    codes = code_activations(neurons.activations[None], labels)[0]
    return order_parameters(theory.dual_field, theory.kernel(1), codes, labels)


def test_networks_tend_to_the_theory(two_classes: flt.DeepNetworkPosterior, trend: Trend) -> None:
    scores = trend.scores(expected(two_classes.solve()))
    assert (scores < LARGEST_SCORE).all(), f"limits {trend.limit} +- {trend.error}, scores {scores}"
    # the smallest error that this would detect: 5 standard errors are below 2 % of every quantity
    assert (LARGEST_SCORE * trend.error < 0.02 * np.abs(trend.limit)).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda p: evolve(p, prior=flt.GaussianPrior(readout_variance=1.05)),
        lambda p: evolve(p, temperature=1.2 * p.temperature),
        lambda p: evolve(p, prior=flt.GaussianPrior(weight_variance=1.05)),
    ],
    ids=["readout variance", "temperature", "weight variance"],
)
def test_a_wrong_theory_is_rejected(
    wrong: Callable[[flt.DeepNetworkPosterior], flt.DeepNetworkPosterior],
    two_classes: flt.DeepNetworkPosterior,
    trend: Trend,
) -> None:
    assert trend.scores(expected(wrong(two_classes).solve())).max() > LARGEST_SCORE


@pytest.fixture(scope="module")
def digits() -> flt.DeepNetworkPosterior:
    return flt.DeepNetworkPosterior(flt.Digits(), flt.Sigmoid(), width=400, temperature=1e-4)


def test_digits_at_one_width(digits: flt.DeepNetworkPosterior) -> None:
    """Real images: the dual field of every example and the mean predictor on test images."""
    theory = digits.solve()
    networks = digits.sample(flt.HMC(), n_draws=100, n_chains=4, seed=0)
    mean = networks.predict().mean
    field = (digits.task.targets - mean) / digits.model.scaled_temperature
    np.testing.assert_allclose(field, networks.dual_field, atol=1e-6)
    correlation = np.corrcoef(theory.dual_field.ravel(), field.ravel())[0, 1]
    assert correlation > 0.995
    test_inputs = digits.task.test_inputs
    gap = theory.predict(test_inputs).mean - networks.predict(test_inputs).mean
    assert np.sqrt(np.mean(gap**2)) < 0.015
    # negative twin: the theory of another readout variance is further away
    wrong = evolve(digits, prior=flt.GaussianPrior(readout_variance=3.0)).solve()
    wrong_gap = wrong.predict(test_inputs).mean - networks.predict(test_inputs).mean
    assert np.sqrt(np.mean(wrong_gap**2)) > 1.5 * np.sqrt(np.mean(gap**2))


def test_digits_variance_of_the_predictor(digits: flt.DeepNetworkPosterior) -> None:
    """(16), over the test images: within 20 % at N = 400, where codes are frozen."""
    theory = digits.solve().predict(digits.task.test_inputs)
    networks = digits.sample(flt.HMC(), n_draws=100, n_chains=4, seed=1).predict(digits.task.test_inputs)
    assert networks.variance.mean() == pytest.approx(theory.variance.mean(), rel=0.2)


@pytest.mark.parametrize("kind", ["orthogonal", "digits"])
def test_zero_temperature(kind: str) -> None:
    """Zero training error, and a kernel that plain HMC's frozen code shares keep within 15 %."""
    if kind == "orthogonal":
        task: flt.Task = flt.OrthogonalClassification(60, (0.5, 0.25, 0.25))
        cold = flt.DeepNetworkPosterior(task, flt.Sigmoid(), width=300)
        theory = cold.solve()
    else:
        cold = flt.DeepNetworkPosterior(flt.Digits(), flt.Sigmoid(), width=400)
        theory = evolve(cold, temperature=0.006 / cold.width).solve()  # the coldest that is resolved
    networks = cold.sample(flt.HMC(), n_draws=50, n_chains=4, seed=0)
    assert networks.training_error.max() < 1e-20
    distance = np.linalg.norm(networks.kernel(1) - theory.kernel(1)) / np.linalg.norm(theory.kernel(1))
    assert distance < 0.15


# Free energy -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("phi", [flt.Sigmoid(), flt.ReLU()])
def test_the_free_energy_agrees_with_thermodynamic_integration(phi: flt.Nonlinearity) -> None:
    """log <e^(-beta loss)> = -int <loss> d beta; the theory has N S and half a log determinant.

    Errors from 0.1 in 240 and 170 would be noticed: without the determinant the twin is off by ten
    standard errors and more.
    """
    width, noise = 60, 0.3
    inputs = np.sqrt(8) * np.eye(8)[:5]
    task = flt.ArrayTask(inputs, np.array([1.0, -0.5, 0.6, 0.2, -1.0])[:, None])
    posterior = flt.DeepNetworkPosterior(task, phi, width=width, temperature=noise / width)
    theory = posterior.solve()
    neurons = theory.neurons(40_000, layer=1)
    spread = np.cov((neurons.activations * neurons.readouts).T)
    leading = -width * theory.free_energy
    expected = leading - 0.5 * np.linalg.slogdet(np.eye(5) + spread / noise)[1]
    nodes, weights = np.polynomial.legendre.leggauss(10)
    found, variance = 0.0, 0.0
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):  # beta = node^3 / T
        networks = evolve(posterior, temperature=posterior.temperature / node**3).sample(
            flt.HMC(), n_draws=200, n_chains=8, n_warmup=100, seed=1, coordinates="integrated"
        )
        loss = 2.5 * networks.training_error.mean(1)  # P / 2 of the mean square, one a chain
        measure = weight * 3 * node**2 / posterior.temperature
        found -= measure * loss.mean()
        variance += measure**2 * loss.var(ddof=1) / len(loss)
    error = np.sqrt(variance)
    assert error < 0.3
    assert abs(found - expected) < 4 * error
    assert abs(found - leading) > 6 * error


# Asymptotically linear phi ------------------------------------------------------------------------


@pytest.mark.slow
def test_relu_on_digits() -> None:
    """One width: t by example and the predictor; the negative twin forgets the condensed neurons."""
    task = flt.Digits()
    posterior = flt.DeepNetworkPosterior(task, flt.ReLU(), width=400, temperature=1e-4)
    theory = posterior.solve()
    networks = posterior.sample(flt.HMC(), n_draws=200, n_chains=2, n_warmup=600, seed=0, thin=2)
    found = networks.dual_field
    assert np.corrcoef(theory.dual_field.ravel(), found.ravel())[0, 1] > 0.998
    assert np.linalg.norm(theory.dual_field - found) < 0.05 * np.linalg.norm(found)
    reached = networks.predict(task.test_inputs).mean
    assert rms(theory.predict(task.test_inputs).mean - reached) < 0.01
    kernel = networks.kernel(1)
    assert np.linalg.norm(theory.kernel(1) - kernel) < 0.015 * np.linalg.norm(kernel)
    assert theory.certificate == pytest.approx(1.0, abs=1e-6)
    bulk = theory.decomposition(1).bulk
    forgetful = theory.model.readout_variance * bulk @ theory.dual_field
    assert rms(forgetful - networks.predict().mean) > 0.05
    assert np.linalg.norm(bulk - kernel) > 0.03 * np.linalg.norm(kernel)


@pytest.mark.slow
def test_the_variance_where_neurons_condense() -> None:
    """(16b) at one width; the negative twin is the bulk's variance alone."""
    task = flt.OrthogonalClassification(24, (0.5, 0.5), n_inputs=30)
    posterior = flt.DeepNetworkPosterior(task, flt.ReLU(), width=200, temperature=0.1 / 200)
    theory = posterior.solve()
    between = task.inputs[[0, -1]] * 0.7 + task.inputs[[1, -2]] * 0.7
    networks = posterior.sample(flt.HMC(), n_draws=600, n_chains=8, n_warmup=600, seed=0, thin=2)
    assert len(theory.outliers) == 2
    new = theory.predict(between).variance / networks.predict(between).variance
    assert abs(new.mean() - 1) < 0.05
    own = task.targets == 1  # the outputs that condensed neurons carry
    found = networks.predict().variance[own]
    assert abs((theory.predict().variance[own] / found).mean() - 1) < 0.04
    bulk = theory.neuron.bulk.training_variance()[own] / 200  # type: ignore[attr-defined]
    assert abs((bulk / found).mean() - 1) > 0.08


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
