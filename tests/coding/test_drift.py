"""Drift: planted trajectories have the overlap they were made with; networks drift where theory says."""

import numpy as np
import pytest
from attrs import evolve

import fltheory as flt
from fltheory.coding import overlap, overlap_limit

N, P, N_DRAWS = 60, 6, 30
LINEAR = flt.DeepNetworkPosterior(
    flt.OrthogonalClassification(n_samples=P, class_ratios=(0.5, 0.5)),
    flt.Linear(),
    width=N,
    temperature=1e-2,
)


def with_weights(samples, weights):
    """The same samples with first-layer weights (C, D, N, P) in place of their own."""
    return evolve(samples, draws=evolve(samples.draws, weights=(weights,)))


@pytest.fixture(scope="module")
def networks():
    return LINEAR.sample(flt.HMC(), n_draws=N_DRAWS, n_chains=3, n_warmup=0, progress=False)


def trajectory(memory, seed=0):
    """Normal weights (C, D, N, P) that keep ``memory`` of themselves from one draw to the next."""
    noise = np.random.default_rng(seed).standard_normal((3, N_DRAWS, N, P))
    weights = noise.copy()
    for d in range(1, N_DRAWS):
        weights[:, d] = memory * weights[:, d - 1] + np.sqrt(1 - memory**2) * noise[:, d]
    return weights


def reordered(weights, seed=1):
    """Weights (C, D, N, P) with the neurons of each network in a random order."""
    rng = np.random.default_rng(seed)
    return np.stack([[rng.permutation(draw) for draw in chain] for chain in weights])


# Planted trajectories ----------------------------------------------------------------------------


def test_a_planted_overlap_is_found(networks):
    """The mean over 3 chains, 8 times, 60 neurons and 6 inputs has an error of .01 to .02."""
    found = overlap(with_weights(networks, trajectory(0.9)), lags=[0, 1, 5, 12])
    np.testing.assert_array_equal(found.lags, [0, 1, 5, 12])
    assert found.overlap[0] == pytest.approx(1.0)
    np.testing.assert_allclose(found.overlap, 0.9**found.lags, atol=0.1)
    np.testing.assert_allclose(found.overlap, found.by_chain.mean(0))
    np.testing.assert_allclose(found.standard_error, found.by_chain.std(0, ddof=1) / np.sqrt(3))
    assert abs(found.baseline) < 0.15


def test_what_stays_has_overlap_one_and_what_is_new_none(networks):
    still = np.repeat(trajectory(0.5)[:, :1], N_DRAWS, axis=1)
    np.testing.assert_allclose(overlap(with_weights(networks, still)).overlap, 1.0)
    fresh = overlap(with_weights(networks, trajectory(0.0)), lags=[1, 10])
    assert (np.abs(fresh.overlap) < 0.15).all()


def test_reordered_neurons_drift_modulo_nothing_alone(networks):
    still = np.repeat(trajectory(0.5)[:, :1], N_DRAWS, axis=1)
    moved = with_weights(networks, reordered(still))
    assert np.abs(overlap(moved, lags=[3]).overlap[0]) < 0.15
    assert overlap(moved, lags=[3], modulo="permutation").overlap[0] == pytest.approx(1.0)


def test_matching_finds_likeness_in_noise_and_the_baseline_says_how_much(networks):
    fresh = overlap(with_weights(networks, trajectory(0.0)), lags=[2, 9], modulo="permutation")
    assert fresh.baseline > 0.4
    np.testing.assert_allclose(fresh.overlap, fresh.baseline, atol=0.08)


def test_lags_are_chosen(networks):
    lags = overlap(networks).lags
    assert lags[0] == 0 and lags[-1] == N_DRAWS // 2 and (np.diff(lags) > 0).all()


def test_one_chain_has_no_error():
    one = LINEAR.sample(flt.HMC(), n_draws=3, n_chains=1, n_warmup=0, progress=False)
    found = overlap(one)
    assert found.standard_error is None and found.baseline is None


# What theory says --------------------------------------------------------------------------------


def test_nothing_is_left_where_all_drifts():
    deep = evolve(LINEAR, n_hidden_layers=2).solve()
    assert overlap_limit(deep, 1) == overlap_limit(deep) == 0.0
    assert overlap_limit(evolve(LINEAR, nonlinearity=flt.Sigmoid(), temperature=np.inf).solve()) == 0.0


def test_codes_that_stay_are_what_is_left():
    """Law of total variance: what is forgotten is the covariance inside codes."""
    theory = evolve(LINEAR, nonlinearity=flt.Sigmoid(), temperature=1e-4).solve()
    assert theory.symmetry(1) == "broken"
    variance = theory.neurons(20_000, 1, 0).activations.var(0).sum()
    inside = np.trace(theory.decomposition(1).bulk)
    assert 0.5 < overlap_limit(theory) == pytest.approx(1 - inside / variance, abs=0.01)


def test_condensed_neurons_of_a_hidden_layer_are_left():
    """Of the first layer of a deep ReLU network: the share of the drawn variance that they carry."""
    task = flt.OrthogonalClassification(60, (0.5, 0.5))
    theory = evolve(LINEAR, task=task, nonlinearity=flt.ReLU(), n_hidden_layers=2, temperature=5e-4).solve()
    assert [theory.symmetry(layer) for layer in (1, 2)] == ["broken", "intact"]
    condensed = (theory.decomposition(1).outliers ** 2).sum()
    activations = theory.neurons(20_000, 1, 0).activations
    bulk = np.sort(activations, axis=0)[:-2].var(0).sum()  # all but the condensed neuron of each class
    assert overlap_limit(theory, 1) == pytest.approx(condensed / (condensed + bulk), rel=0.03)
    assert overlap_limit(theory, 2) == 0.0


# Networks ----------------------------------------------------------------------------------------
#
# A layer "stays" if its overlap after a long while is more than half, and more than 5 standard errors above
# the baseline, that of networks that share nothing: with 4 chains chance does that once in a hundred times.
# It "drifts" if the overlap is less than .15 above the baseline, at a standard error below .05 (two codes
# among 50 neurons give .14 a chain and time, four chains and a few times half of that or less): so what
# keeps .3 of its variance is not taken for drift. Theory says the same of infinite width: a layer whose
# symmetry is intact drifts, one whose symmetry is broken stays.

SAYS = {"intact": "drifts", "broken": "stays"}


def verdict(found):
    above = found.overlap[-1] - found.baseline
    if above > 5 * found.standard_error[-1] and found.overlap[-1] > 0.5:
        return "stays"
    return "drifts" if above < 0.15 and found.standard_error[-1] < 0.05 else "unclear"


def still(samples):
    """A trajectory that goes nowhere: the first draw of each chain again and again."""
    weights = tuple(np.repeat(w[:, :1], w.shape[1], axis=1) for w in samples.draws.weights)
    return evolve(samples, draws=evolve(samples.draws, weights=weights))


def trajectories(posterior, start, n_steps, step_size=0.04):
    """40 draws of Langevin dynamics, ``n_steps`` steps apart, from chains equilibrated by HMC."""
    sampler = flt.HMC(n_leapfrog=12)
    warm = posterior.sample(sampler, n_draws=1, n_warmup=150, start=start, seed=1, progress=False)
    drift = flt.Langevin(step_size=step_size, friction=1.0)
    return posterior.sample(drift, n_draws=40, n_warmup=0, start=warm, thin=n_steps, seed=2, progress=False)


def posterior_of(phi, depth, width, n_samples, scaled_temperature):
    task = flt.OrthogonalClassification(n_samples=n_samples, class_ratios=(0.5, 0.5))
    temperature = scaled_temperature / width
    return flt.DeepNetworkPosterior(task, phi, n_hidden_layers=depth, width=width, temperature=temperature)


def condensed(posterior, n_chains=4):
    """Networks of one strong neuron a class, at random places, among neurons of the prior."""
    rng, n = np.random.default_rng(0), posterior.width
    class_of, starts = posterior.task.targets.T > 0, []  # (m, P)
    for _ in range(n_chains):
        z = rng.standard_normal((n, posterior.task.n_samples))
        z[rng.choice(n, len(class_of), replace=False)] = 1.1 * np.sqrt(n) * class_of
        starts.append(flt.Neurons(np.maximum(z, 0), z, np.zeros((n, len(class_of)))))
    return starts


@pytest.mark.slow
def test_linear_networks_drift_in_all_layers():
    posterior = posterior_of(flt.Linear(), 2, 60, 30, 0.02)
    samples, theory = trajectories(posterior, "prior", n_steps=10), posterior.solve()
    for layer in (1, 2):
        found = overlap(samples, layer, lags=[32])
        assert verdict(found) == SAYS[theory.symmetry(layer)] == "drifts"
        assert found.overlap[0] == pytest.approx(overlap_limit(theory, layer), abs=0.15)
        assert verdict(overlap(still(samples), layer, lags=[32])) == "stays"
        # In any order of the neurons, they are no more alike than two networks are.
        matched = overlap(samples, layer, lags=[32], modulo="permutation")
        assert matched.overlap[0] == pytest.approx(matched.baseline, abs=0.05)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigmoidal_networks_drift_in_all_layers_but_the_last():
    """From the final temperature on, where codes form. Layer 1 has two weak codes, which neurons change
    after a time of about 100, the last layer strong ones, which they keep: all else is forgotten within a
    time of 10, and an eighth of the codes within 320, which at infinite width none is."""
    posterior = posterior_of(flt.Sigmoid(), 2, 50, 20, 0.02)
    prior = evolve(posterior, temperature=np.inf).sample(flt.HMC(), n_draws=1, n_warmup=0, progress=False)
    samples = trajectories(posterior, prior, n_steps=100, step_size=0.1)
    theory = posterior.solve(progress=False)
    assert [theory.symmetry(layer) for layer in (1, 2)] == ["intact", "broken"]
    first, second = (overlap(samples, layer, lags=[1, 32]) for layer in (1, 2))
    assert verdict(first) == SAYS[theory.symmetry(1)]
    assert verdict(second) == SAYS[theory.symmetry(2)]
    assert first.overlap[-1] == pytest.approx(overlap_limit(theory, 1), abs=0.15)
    assert second.overlap[0] == pytest.approx(overlap_limit(theory, 2), abs=0.02)
    moved = reordered(samples.draws.weights[1])  # of the last layer
    wrong = evolve(samples, draws=evolve(samples.draws, weights=(samples.draws.weights[0], moved)))
    assert verdict(overlap(wrong, 2, lags=[32])) == "drifts"
    assert verdict(overlap(still(samples), 1, lags=[32])) == "stays"


@pytest.mark.slow
def test_condensed_relu_neurons_do_not_drift_and_reordered_ones_do():
    """What is left is what the theory leaves: the strong neurons."""
    posterior = posterior_of(flt.ReLU(), 1, 100, 40, 0.03)
    samples = trajectories(posterior, condensed(posterior), n_steps=10)
    found = overlap(samples, lags=[32])
    assert verdict(found) == "stays"
    assert found.overlap[0] == pytest.approx(overlap_limit(posterior.solve()), abs=0.05)
    moved = with_weights(samples, reordered(samples.draws.weights[0]))
    assert verdict(overlap(moved, lags=[32])) == "drifts"


@pytest.mark.slow
def test_deep_relu_networks_drift_where_no_neuron_condenses():
    """Two layers: condensed neurons of the first are what is left of it, the second forgets all."""
    posterior = posterior_of(flt.ReLU(), 2, 100, 40, 0.03)
    theory = posterior.solve()
    assert [theory.symmetry(layer) for layer in (1, 2)] == ["broken", "intact"]
    samples = trajectories(posterior, "theory", n_steps=40, step_size=0.08)
    first, second = (overlap(samples, layer, lags=[32]) for layer in (1, 2))
    assert first.overlap[0] - first.baseline > 5 * first.standard_error[0]
    assert first.overlap[0] == pytest.approx(overlap_limit(theory, 1), abs=0.05)
    assert verdict(second) == "drifts"
    moved = with_weights(samples, reordered(samples.draws.weights[0]))
    assert verdict(overlap(moved, 1, lags=[32])) == "drifts"
