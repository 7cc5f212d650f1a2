"""Corrections of order 1/N: docs/theory.md section 11, and the terms of order P / N of section 4."""

import math

import numpy as np
import pytest
from attrs import evolve
from cases import few, posterior, seeds
from exact import ExactNeurons, K, weighted
from hypothesis import given
from linear_networks import solved

import fltheory as flt
from fltheory.meanfield.finite_width import corrected, uncorrected
from fltheory.meanfield.reweighting import Fluctuations, WeightedNeurons, WidthCorrection


def random_neurons(seed: int, noise: float = 0.2) -> WeightedNeurons:
    rng = np.random.default_rng(seed)
    weights = rng.random(300)
    field = rng.standard_normal((4, 2))
    return weighted(
        1.5 * rng.standard_normal((300, 4)), weights / weights.sum(), flt.Tanh(), field, noise, 0.7
    )


# Examples ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phi", "readout_variance", "targets", "half_width", "before", "after", "chain", "error"),
    [
        (flt.Sigmoid(), 2.0, (1.0, 0.1), 9.0, 1.4531, 1.4595, 1.4602, 0.0007),
        (flt.ReLU(), 0.3, (0.3, 0.1), 18.0, 0.8856, 0.9092, 0.9088, 0.0006),
    ],
    ids=["sigmoid", "relu"],
)
def test_two_inputs(
    phi: flt.Nonlinearity,
    readout_variance: float,
    targets: tuple[float, float],
    half_width: float,
    before: float,
    after: float,
    chain: float,
    error: float,
) -> None:
    """The example of section 11, against numbers of a Markov chain."""
    exact = ExactNeurons(
        phi, targets, noise=0.05, readout_variance=readout_variance, half_width=half_width, n_nodes=401
    )
    correction = WidthCorrection.of(exact.neurons, 100)
    field = exact.field + correction.field_change
    assert exact.field[0, 0] == pytest.approx(before, abs=1e-4)
    assert field[0, 0] == pytest.approx(after, abs=1e-4)
    assert abs(field[0, 0] - chain) < 2 * error < abs(exact.field[0, 0] - chain)


@pytest.mark.parametrize("noise", [0.1, 0.0])
def test_the_correction_is_the_derivative_of_the_determinant(noise: float) -> None:
    """(17), total derivative, by differences of solutions with other targets."""
    step, width = 1e-4, 50
    values = []
    for sign in (1, -1):
        exact = ExactNeurons(flt.Erf(), (0.8 + sign * step, -0.3), noise=noise, readout_variance=1.5)
        correction = WidthCorrection.of(exact.neurons, width)
        values.append(exact.action - 0.5 * correction.log_det / width)
    exact = ExactNeurons(flt.Erf(), (0.8, -0.3), noise=noise, readout_variance=1.5)
    field = exact.field + WidthCorrection.of(exact.neurons, width).field_change
    assert (values[1] - values[0]) / (2 * step) == pytest.approx(field[0, 0], rel=1e-6)
    assert exact.field[0, 0] != pytest.approx(field[0, 0], rel=1e-3)


# Laws at order 1/N: they hold on any weighted neurons, to rounding --------------------------------


@given(seeds)
@few
def test_no_neuron_is_lost(seed: int) -> None:
    neurons = random_neurons(seed)
    correction = WidthCorrection.of(neurons, 30)
    assert neurons.weights @ correction.change == pytest.approx(0.0, abs=1e-12)


@given(seeds)
@few
def test_the_mean_output_follows_the_dual_field(seed: int) -> None:
    """Y = N T t_N + <phi a^T>_N."""
    neurons = random_neurons(seed)
    correction = WidthCorrection.of(neurons, 30)
    change = -neurons.activations_times(correction.readout_change)
    np.testing.assert_allclose(change, -neurons.noise * correction.field_change, atol=1e-8)


@given(seeds)
@few
def test_kernel_regression_misses_what_other_neurons_take_back(seed: int) -> None:
    """(17e): <phi a^T>_N is no longer sigma_a^2 K_N t_N."""
    width, neurons = 30, random_neurons(seed)
    correction = WidthCorrection.of(neurons, width)
    phi = neurons.nonlinearity(neurons.preactivations)
    means = neurons.readout_variance * phi @ neurons.field
    before = phi.T @ (neurons.weights[:, None] * means)
    after = before - neurons.activations_times(correction.readout_change)
    kernel = neurons.average_kernel(neurons.weights * (1 - correction.change))
    inverse = Fluctuations.of(neurons).inverse
    away = np.einsum("prqs,nqs->npr", inverse, phi[:, :, None] * means[:, None, :] - before)
    taken = np.einsum("n,np,nq,nqr->pr", neurons.weights, phi, phi, away) / width
    field = neurons.field + correction.field_change
    fitted = kernel @ neurons.field + neurons.average_kernel(neurons.weights) @ correction.field_change
    np.testing.assert_allclose(after, neurons.readout_variance * (fitted - taken), rtol=1e-6, atol=1e-8)
    assert np.abs(after - neurons.readout_variance * kernel @ field).max() > 1e-4


@given(seeds)
@few
def test_the_virial_loses_the_variance_of_the_outputs(seed: int) -> None:
    """(17f), law 2 at order 1/N."""
    width, neurons = 30, random_neurons(seed)
    correction = WidthCorrection.of(neurons, width)
    phi, variance, t = neurons.nonlinearity(neurons.preactivations), neurons.readout_variance, neurons.field
    means = variance * phi @ t
    second = np.einsum("n,ni,nj->ij", neurons.weights, means, means) / variance
    change = -np.tensordot(neurons.weights, correction.readout_second_change, 1) / variance
    output = phi.T @ (neurons.weights[:, None] * means)
    output_change = -neurons.activations_times(correction.readout_change)
    inverse = Fluctuations.of(neurons).inverse.reshape(8, 8)
    explained = (np.eye(8) - neurons.noise * inverse).reshape(4, 2, 4, 2)  # Cov H^{-1}
    lost = np.einsum("pips->is", explained) / width
    np.testing.assert_allclose(second, output.T @ t, atol=1e-10)
    expected = output_change.T @ t + output.T @ correction.field_change - lost
    np.testing.assert_allclose(change, expected, rtol=1e-6, atol=1e-8)


def test_groups_average_over_permutations() -> None:
    """On neurons that come with all their permutations, groups change nothing."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((200, 4))
    orders = [(0, 1, 2, 3), (1, 0, 2, 3), (0, 2, 1, 3), (2, 1, 0, 3), (1, 2, 0, 3), (2, 0, 1, 3)]
    z = np.concatenate([z[:, order] for order in orders])
    rows = rng.standard_normal((2, 2))
    field, even = rows[[0, 0, 0, 1]], np.full(len(z), 1 / len(z))
    plain = weighted(z, even, flt.Erf(), field, 0.3, 0.5)
    grouped = evolve(plain, member=np.array([0, 0, 0, 1]))
    first, second = (WidthCorrection.of(neurons, 40) for neurons in (plain, grouped))
    for name in ("field_change", "change", "readout_change", "readout_second_change", "log_det"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=1e-6, atol=1e-9)
    one = WidthCorrection.of(evolve(grouped, preactivations=z[:200], weights=even[:200] * 6), 40)
    other = WidthCorrection.of(evolve(plain, preactivations=z[:200], weights=even[:200] * 6), 40)
    exact = np.linalg.norm(first.field_change)
    assert np.linalg.norm(one.field_change - first.field_change) < 0.5 * exact  # a sixth of the neurons
    assert np.linalg.norm(one.field_change - first.field_change) < np.linalg.norm(
        other.field_change - first.field_change
    )


# Linear networks ---------------------------------------------------------------------------------


def test_reweighting_gives_the_linear_term() -> None:
    """phi(z) = z, m = 1: the correction is half the derivative of log det (N T + U K_0 + 2 f f^T),
    whose part sum_k log(N T + U kappa_k) is that of (10')."""
    targets, noise, variance, step, width = np.array([0.9, -0.4]), 0.1, 0.3, 1e-5, 10**6

    def determinants(targets: np.ndarray) -> tuple[float, float]:
        exact = linear_neurons(targets, noise, variance)
        spread = exact.readout_variance * (1 + (exact.field * (targets[:, None] - noise * exact.field)).sum())
        f = targets - noise * exact.field[:, 0]
        extensive = np.linalg.slogdet(noise * np.eye(2) + spread * K)[1]
        return extensive, np.linalg.slogdet(noise * np.eye(2) + spread * K + 2 * np.outer(f, f))[1]

    exact = linear_neurons(targets, noise, variance)
    change = WidthCorrection.of(exact.neurons, 1).field_change[:, 0]
    unit = np.eye(2)
    slopes = np.array(
        [
            np.subtract(determinants(targets + step * e), determinants(targets - step * e)) / (4 * step)
            for e in unit
        ]
    )
    np.testing.assert_allclose(change, slopes[:, 1], rtol=1e-5)
    values, vectors = np.linalg.eigh(K)
    inputs = math.sqrt(2) * (vectors * np.sqrt(values)) @ vectors.T
    prior = flt.GaussianPrior(readout_variance=variance, scaling="none")
    p = flt.DeepNetworkPosterior(
        flt.ArrayTask(inputs, targets), flt.Linear(), prior=prior, width=width, temperature=noise / width
    )
    extensive = width * (solved(p).field - solved(p, finite_width=False).field)[:, 0]
    np.testing.assert_allclose(extensive, slopes[:, 0], rtol=1e-3)
    assert np.abs(extensive - change).max() > 0.1 * np.abs(change).max()


def linear_neurons(targets: np.ndarray, noise: float, variance: float) -> ExactNeurons:
    return ExactNeurons(
        flt.Linear(), targets, noise=noise, readout_variance=variance, half_width=14.0, n_nodes=201
    )


def test_reweighted_draws_of_a_linear_network() -> None:
    """With many inputs the terms of order P / N are nearly all there is."""
    task = flt.OrthogonalClassification(60, (0.5, 0.5))
    p = flt.DeepNetworkPosterior(task, flt.Linear(), width=10**5, temperature=1e-6)
    limit, wide = solved(p, finite_width=False), solved(p)
    z, _ = limit.draw(20_000, 1, np.random.default_rng(0))
    even = np.full(len(z), 1 / len(z))
    member = np.repeat([0, 1], 30)
    neurons = weighted(z, even, flt.Linear(), limit.field, 0.1, p.model.readout_variance, member)
    change = WidthCorrection.of(neurons, p.width).field_change
    expected = wide.field - limit.field
    assert np.linalg.norm(change - expected) < 0.15 * np.linalg.norm(expected)


# Solutions ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> tuple[flt.MeanFieldSolution, flt.MeanFieldSolution]:
    p = posterior(flt.OrthogonalClassification(20, (0.5, 0.25, 0.25)), 0.3, flt.Sigmoid())
    limit = evolve(p, prior=flt.GaussianPrior(readout_variance=4.0)).solve()
    return limit, corrected(limit, seed=0)


def test_all_questions_are_answered(pair: tuple[flt.MeanFieldSolution, flt.MeanFieldSolution]) -> None:
    limit, theory = pair
    task = theory.model.task
    assert theory.residual == limit.residual < 1e-6
    assert sum(b.probability for b in theory.branches) == pytest.approx(1.0)
    assert len(theory.branches) == len(limit.branches)
    kernel = theory.kernel(1)
    np.testing.assert_allclose(theory.decomposition(1).kernel, kernel, atol=1e-12)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-12)
    assert np.linalg.eigvalsh(kernel).min() > 0
    for mu, nu in ((0, 9), (10, 14), (15, 19)):  # equivalent inputs stay equivalent
        np.testing.assert_allclose(theory.dual_field[mu], theory.dual_field[nu], rtol=1e-10)
        assert kernel[mu, mu] == pytest.approx(kernel[nu, nu], rel=1e-6)
    mean = task.targets - theory.model.scaled_temperature * theory.dual_field
    np.testing.assert_allclose(theory.predict().mean, mean)
    np.testing.assert_allclose(theory.predict(task.inputs).mean, mean, atol=1e-5)
    scale = np.linalg.norm(kernel)
    assert np.linalg.norm(theory.kernel(1, task.inputs) - kernel) < 0.02 * scale
    np.testing.assert_allclose(theory.conjugate_kernel(1), theory.conjugate_kernel(1).T)


def test_branches_make_up_the_output(pair: tuple[flt.MeanFieldSolution, flt.MeanFieldSolution]) -> None:
    """<a>_N over branches against reweighted draws, and the change against that without correction."""
    limit, theory = pair
    means = [sum(b.probability * b.readout for b in s.branches) for s in (limit, theory)]
    neurons = theory.neurons(60_000, layer=1, seed=1)
    assert neurons.readouts is not None
    error = neurons.readouts.std(0) / math.sqrt(60_000)
    assert (np.abs(neurons.readouts.mean(0) - means[1]) < 5 * error).all()
    output = neurons.activations.T @ neurons.readouts / 60_000
    np.testing.assert_allclose(output, theory.predict().mean, atol=0.05)
    second = neurons.readouts.T @ neurons.readouts / 60_000 - np.outer(means[1], means[1])
    np.testing.assert_allclose(second, theory.readout_covariance, atol=0.03)


def test_the_noise_of_the_correction_is_known(
    pair: tuple[flt.MeanFieldSolution, flt.MeanFieldSolution], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight sets of neurons scatter as their standard errors say, and little."""
    monkeypatch.setattr("fltheory.meanfield.finite_width._N_NEURONS", 2000)
    limit, _ = pair
    corrections = [corrected(limit, seed=seed).neuron.correction for seed in range(8)]
    changes = np.array([c.field_change[[0, 10, 15]] for c in corrections])
    errors = np.array([c.field_error[[0, 10, 15]] for c in corrections]).mean(0)
    scatter = changes.std(0, ddof=1)
    assert 0.4 < np.sqrt((scatter**2).mean() / (errors**2).mean()) < 1.8
    assert np.linalg.norm(scatter) < 0.05 * np.linalg.norm(changes.mean(0))


def test_corrections_fall_like_one_over_the_width(
    pair: tuple[flt.MeanFieldSolution, flt.MeanFieldSolution],
) -> None:
    limit, narrow = pair
    wide = corrected(evolve(limit, model=evolve(limit.model, width=400, temperature=0.3 / 400)), seed=0)
    for quantity in ("dual_field", "free_energy"):
        change, small = (getattr(s, quantity) - getattr(limit, quantity) for s in (narrow, wide))
        np.testing.assert_allclose(change, 4 * small, rtol=1e-6, atol=1e-8)


def test_the_prior_is_left_alone() -> None:
    p = flt.DeepNetworkPosterior(
        flt.OrthogonalClassification(6, (0.5, 0.5)), flt.Tanh(), temperature=math.inf
    )
    limit = p.solve()
    assert corrected(limit, seed=0) is limit


def test_what_is_not_small_is_refused(
    pair: tuple[flt.MeanFieldSolution, flt.MeanFieldSolution], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, _ = pair
    with pytest.raises(ValueError, match="width: expected one at which corrections .* at 2 they change"):
        corrected(evolve(limit, model=evolve(limit.model, width=2, temperature=0.15)), seed=0)
    monkeypatch.setattr("fltheory.meanfield.finite_width._LARGEST", 8)
    with pytest.raises(ValueError, match="finite_width: expected False for so many inputs.* got 9 rows"):
        corrected(limit, seed=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"weight_variances": (1.0, 1.0)}, "got 2 layers"), ({"is_lazy": True}, "lazy networks")],
    ids=["deep", "lazy"],
)
def test_what_is_not_known_is_refused(
    pair: tuple[flt.MeanFieldSolution, flt.MeanFieldSolution], change: dict[str, object], words: str
) -> None:
    limit, _ = pair
    with pytest.raises(ValueError, match=f"finite_width: expected False for .*{words}"):
        corrected(evolve(limit, model=evolve(limit.model, **change)), seed=0)


def test_condensed_neurons_are_refused() -> None:
    condensed = posterior(flt.OrthogonalClassification(60, (0.5, 0.5)), 0.03, flt.ReLU()).solve()
    with pytest.raises(ValueError, match="finite_width: expected False where neurons condense"):
        corrected(condensed, seed=0)


@pytest.mark.slow
def test_relu_that_does_not_condense() -> None:
    """Six inputs a class at N = 100: eight chains of 300 draws gave t = 1.6711(12), where the limit has
    1.66746(3), by 65536 points."""
    p = posterior(flt.OrthogonalClassification(12, (0.5, 0.5)), 0.5, flt.ReLU())
    limit = evolve(p, prior=flt.GaussianPrior(readout_variance=0.5)).solve()
    assert limit.dual_field[0, 0] == pytest.approx(1.66746, abs=4e-4)
    assert corrected(limit, seed=0).dual_field[0, 0] == pytest.approx(1.6711, abs=0.0024)


def test_the_limit_is_kept(pair: tuple[flt.MeanFieldSolution, flt.MeanFieldSolution]) -> None:
    limit, theory = pair
    assert uncorrected(theory).neuron is limit.neuron
    assert uncorrected(limit) is limit


def test_another_kernel() -> None:
    """Not diagonal: each input for itself, and exact predictions at training inputs."""
    rng = np.random.default_rng(0)
    labels = np.arange(10) % 2
    inputs = rng.standard_normal((2, 30))[labels] + 1.5 * rng.standard_normal((10, 30))
    p = posterior(flt.ArrayTask.from_labels(inputs, labels), 1.0, flt.Sigmoid())
    limit = p.solve(method="ep")
    theory = corrected(limit, seed=0)
    assert np.abs(theory.dual_field - limit.dual_field).max() > 1e-4
    np.testing.assert_allclose(theory.predict(inputs).mean, theory.predict().mean, atol=1e-5)
    change = theory.kernel(1, inputs) - limit.kernel(1, inputs)
    np.testing.assert_allclose(change, theory.kernel(1) - limit.kernel(1), atol=1e-8)


# Networks ----------------------------------------------------------------------------------------

WIDTH, N_CHAINS = 100, 24  # as many as give a standard error that is known to 15 %
LARGEST_SCORE = 3.5


class Gaps:
    """Distances of sampled networks from theories, in standard errors, along the change that is predicted.

    A change of t along which the networks' error is sigma is told from none if it exceeds 7 sigma.
    """

    def __init__(self, p: flt.DeepNetworkPosterior, seed: int) -> None:
        networks = p.sample(flt.HMC(), n_draws=200, n_chains=N_CHAINS, seed=seed)
        self.field = networks.dual_field_draws.mean(1)
        self.kernel = networks.functional(lambda phi: phi.swapaxes(-1, -2) @ phi / phi.shape[1], 1).mean(1)

    @staticmethod
    def of(chains: np.ndarray, before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
        direction = (after - before) / np.linalg.norm(after - before)
        values = (chains * direction).sum((1, 2))
        error = values.std(ddof=1) / math.sqrt(N_CHAINS)
        first, second = (
            abs(values.mean() - (theory * direction).sum()) / error for theory in (before, after)
        )
        return float(first), float(second)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phi", "n_samples", "ratios", "readout_variance", "noise"),
    [
        (flt.Sigmoid(), 18, (0.5, 0.5), 5.0, 0.4),
        (flt.Tanh(), 10, (0.4, 0.6), 2.5, 0.3),
        (flt.Erf(), 15, (0.6, 0.2, 0.2), 3.0, 0.4),
    ],
    ids=["sigmoid", "tanh", "erf"],
)
def test_networks_agree_with_the_corrected_theory_only(
    phi: flt.Nonlinearity, n_samples: int, ratios: tuple[float, ...], readout_variance: float, noise: float
) -> None:
    """Orthogonal inputs; the theory of infinite width is the negative twin."""
    p = posterior(flt.OrthogonalClassification(n_samples, ratios), noise, phi, WIDTH)
    p = evolve(p, prior=flt.GaussianPrior(readout_variance=readout_variance))
    gaps, limit = Gaps(p, seed=n_samples), p.solve()
    theory = corrected(limit, seed=0)
    before, after = gaps.of(gaps.field, limit.dual_field, theory.dual_field)
    assert after < LARGEST_SCORE < before
    before, after = gaps.of(gaps.kernel, limit.kernel(1), theory.kernel(1))
    assert after < LARGEST_SCORE
    if not isinstance(phi, flt.Sigmoid):  # whose kernel hardly changes
        assert before > LARGEST_SCORE


@pytest.mark.slow
@pytest.mark.parametrize("phi", [flt.Sigmoid(), flt.Tanh(), flt.Erf()], ids=["sigmoid", "tanh", "erf"])
def test_networks_on_a_gaussian_mixture(phi: flt.Nonlinearity) -> None:
    """Inputs in the plane, two classes: K_0 of rank two, so that (5) is solved exactly."""
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1], 5)
    inputs = np.array([[1.2, 0.3], [-0.6, 1.0]])[labels] + 0.4 * rng.standard_normal((10, 2))
    p = posterior(flt.ArrayTask.from_labels(inputs, labels), 0.3, phi, WIDTH)
    p = evolve(p, prior=flt.GaussianPrior(readout_variance=3.0))
    gaps, variance = Gaps(p, seed=1), p.model.readout_variance
    factor = inputs / math.sqrt(2)
    exact = ExactNeurons(phi, p.task.targets, noise=0.3, readout_variance=variance, factor=factor)
    correction = WidthCorrection.of(exact.neurons, WIDTH)
    before, after = gaps.of(gaps.field, exact.field, exact.field + correction.field_change)
    assert after < LARGEST_SCORE < before
    change = -exact.neurons.average_kernel(exact.neurons.weights * correction.change)
    kernel = exact.kernel(exact.field)
    assert gaps.of(gaps.kernel, kernel, kernel + change)[1] < LARGEST_SCORE
