"""Three hidden layers by weighted particles: against exact integrals, the laws, and networks."""

import numpy as np
import pytest
from attrs import evolve

import fltheory as flt
from fltheory.meanfield.general import particle_solver
from fltheory.meanfield.general.guess import FirstGuess
from fltheory.meanfield.settings import Settings
from fltheory.testing import check_solution

PRIOR = flt.GaussianPrior(weight_variance=(1.0, 1.5, 0.7))
IMAGES = flt.DeepNetworkPosterior(
    flt.Digits((0, 1), n_samples=24, n_test=10), flt.Sigmoid(), n_hidden_layers=3, width=100, temperature=5e-4
)
ORTHOGONAL = evolve(IMAGES, task=flt.OrthogonalClassification(16, (0.5, 0.5)), prior=PRIOR)


@pytest.fixture(scope="module")
def few():
    """Few particles: enough to see mistakes of a few percent."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_N_HIDDEN", 1000), ("_N_READOUT", 250)):
            patch.setattr(particle_solver, name, value)
        yield


@pytest.fixture(scope="module")
def images(few):
    return IMAGES.solve()


def distance(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


def rms(difference):
    return float(np.sqrt((difference**2).mean()))


def test_what_layers_send_down_is_the_derivative_of_their_action(monkeypatch):
    """Message of layers 2 and 3 against finite differences of their J in K_1, with all of it solved again.

    The twin: the variance of the weights forgotten.
    """
    monkeypatch.setattr(particle_solver, "_N_READOUT", 2000)
    model = evolve(IMAGES, task=flt.Digits((0, 1), n_samples=6, n_test=0), prior=PRIOR).model
    settings = Settings("auto", None, 1e-8, 60, 0, False, lambda residual: None)
    above = particle_solver._particles(model, settings, np.random.SeedSequence(0)).above
    kernel = FirstGuess(model).kernel(1 / 3)
    layers = above.first(kernel)
    change = np.random.default_rng(0).standard_normal((6, 6))
    change = 1e-3 * (change + change.T)
    there, back = layers.again(kernel + change), layers.again(kernel - change)
    found, expected = there.action - back.action, (layers.message * change).sum()
    assert expected == pytest.approx(found, rel=0.06)
    assert expected / 1.5 != pytest.approx(found, rel=0.06)


def test_another_engine_is_refused_by_name():
    with pytest.raises(ValueError, match="method: expected 'auto' or 'particles'"):
        IMAGES.solve(method="ep")


def test_particles_that_do_not_settle_in_a_layer_above_say_so(monkeypatch):
    for name, value in (("_N_HIDDEN", 200), ("_N_READOUT", 100)):
        monkeypatch.setattr(particle_solver, name, value)
    small = evolve(IMAGES, task=flt.Digits((0, 1), n_samples=6, n_test=0))
    with pytest.raises(flt.ConvergenceError, match="hidden layer 2 do not settle"):
        small.solve(max_iterations=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_orthogonal_inputs_against_exact_integrals(few):
    """With weights of another variance in each layer. The twin: the same variance in all."""
    exact, found = ORTHOGONAL.solve(), ORTHOGONAL.solve(method="particles")
    assert (exact.method, found.method) == ("quadrature", "particles")
    assert found.free_energy == pytest.approx(exact.free_energy, abs=0.4)
    assert distance(found.dual_field, exact.dual_field) < 0.01
    plain = evolve(ORTHOGONAL, prior=flt.GaussianPrior()).solve()
    for layer in (1, 2, 3):
        assert distance(found.kernel(layer), exact.kernel(layer)) < 0.015
        assert found.symmetry(layer) == exact.symmetry(layer)
    assert distance(found.kernel(2), plain.kernel(2)) > 0.05
    assert abs(found.free_energy - plain.free_energy) > 0.8


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_layers_on_images(images, tmp_path):
    assert images.method == "particles"
    assert images.agreement.dual_field < 0.01 and images.agreement.kernel < 0.02
    check_solution(images, tolerance=0.01)
    assert [images.symmetry(layer) for layer in (1, 2, 3)] == ["intact", "intact", "broken"]
    for layer in (1, 2, 3):
        again = images.kernel(layer, IMAGES.task.inputs)
        np.testing.assert_allclose(again, images.kernel(layer), atol=1e-5)
    images.save(tmp_path / "solution")
    same = flt.load(tmp_path / "solution")
    new = IMAGES.task.test_inputs
    np.testing.assert_array_equal(same.predict(new).mean, images.predict(new).mean)
    np.testing.assert_array_equal(same.kernel(2), images.kernel(2))
    on = IMAGES.solve(start=images, seed=1)
    assert on.n_iterations < images.n_iterations
    assert distance(on.kernel(2), images.kernel(2)) < 0.02


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_networks_on_images_tend_to_it(images):
    """Started from its neurons, at two widths: gaps that shrink, and are small at the larger."""
    new, gaps = IMAGES.task.test_inputs, []
    for width in (50, 200):
        start = [[images.neurons(width, k, 10 * c + k) for k in (1, 2, 3)] for c in range(4)]
        networks = IMAGES.at_width(width).sample(flt.HMC(), start=start, n_draws=150, n_warmup=100, thin=2)
        kernels = [rms(networks.kernel(k) - images.kernel(k)) for k in (1, 2, 3)]
        field = distance(networks.dual_field_draws.mean((0, 1)), images.dual_field)
        gaps.append([*kernels, field, rms(networks.predict(new).mean - images.predict(new).mean)])
    assert (np.array(gaps[1]) < [0.004, 0.004, 0.004, 0.02, 0.004]).all(), gaps
    assert (np.array(gaps[1]) < np.array(gaps[0])).all(), gaps


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_imposed_fractions_against_exact_integrals(few):
    """On as many inputs as part the codes: neurons between them are cut off. The twin: without shares."""
    task = flt.OrthogonalClassification(24, (0.5, 0.5))
    posterior = evolve(ORTHOGONAL, task=task, prior=flt.GaussianPrior())
    fractions = {(1, 0): 0.36, (0, 1): 0.39, (1, 1): 0.25}
    exact, free = posterior.solve(code_fractions=fractions), posterior.solve()
    found = posterior.solve(method="particles", code_fractions=fractions)
    assert {b.code: b.probability for b in found.branches} == pytest.approx(fractions, abs=1e-3)
    assert found.free_energy == pytest.approx(exact.free_energy, abs=0.4)
    for layer in (1, 2, 3):
        assert distance(found.kernel(layer), exact.kernel(layer)) < 0.015
    assert distance(found.kernel(3), exact.kernel(3)) < 0.003
    assert distance(free.kernel(3), exact.kernel(3)) > 0.03
    assert distance(found.dual_field, exact.dual_field) < 0.01 < distance(free.dual_field, exact.dual_field)
    check_solution(found, tolerance=0.02)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_networks_with_frozen_codes_have_the_theory_at_their_shares(images):
    fractions = {(1, 0): 0.41, (0, 1): 0.34, (1, 1): 0.25}
    own = IMAGES.solve(code_fractions=fractions)
    start = [[own.neurons(150, k, 10 * c + k) for k in (1, 2, 3)] for c in range(4)]
    networks = IMAGES.at_width(150).sample(flt.HMC(), start=start, n_draws=60, n_warmup=60, thin=2)
    shares = flt.code_fractions(networks)
    theory = IMAGES.solve(code_fractions=shares, start=own)
    assert rms(networks.kernel(3) - theory.kernel(3)) < 0.002
    assert rms(networks.kernel(3) - images.kernel(3)) > 0.006
    field = networks.dual_field_draws.mean((0, 1))
    assert distance(field, theory.dual_field) < 0.01 < distance(field, images.dual_field)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_classes_of_orthogonal_inputs(few):
    """More than exact integrals cover: five classes, whose codes of two and three classes are alike."""
    posterior = evolve(
        ORTHOGONAL,
        task=flt.OrthogonalClassification(20, (0.2,) * 5),
        n_hidden_layers=2,
        prior=flt.GaussianPrior(),
    )
    theory = posterior.solve()
    assert theory.method == "particles" and theory.agreement.kernel < 0.02
    shares = {k: [b.probability for b in theory.branches if sum(b.code) == k] for k in (2, 3)}
    assert [len(shares[k]) for k in (2, 3)] == [10, 10]
    for k, mean in ((3, 0.088), (2, 0.011)):
        assert np.mean(shares[k]) == pytest.approx(mean, abs=0.003)
        assert np.std(shares[k]) < 0.004
