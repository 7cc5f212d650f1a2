"""Two hidden layers by weighted particles: the parts against exact answers, the whole against EP."""

import numpy as np
import pytest
from attrs import evolve
from scipy.special import logsumexp

import fltheory as flt
from fltheory.errors import ConvergenceError
from fltheory.meanfield.general import particle_solver, solver, stack
from fltheory.meanfield.general.conjugate import ConjugateKernel, leading_directions
from fltheory.meanfield.general.drawn import DrawnNeurons, message, together
from fltheory.meanfield.general.guess import FirstGuess
from fltheory.meanfield.general.sampled_layer import HiddenParticles
from fltheory.meanfield.general.sampled_readout import SampledProblem
from fltheory.meanfield.law import HiddenLaw, NeuronLaw
from fltheory.numerics.weights import relative_ess
from fltheory.testing import check_solution

ROOT = np.array([[1.2, 0.0], [0.5, 1.0]])
TOTAL = np.array([[3.0, -1.0], [-1.0, 1.5]])
DIGITS = flt.DeepNetworkPosterior(
    flt.Digits((0, 1), n_samples=20, n_test=10), flt.Sigmoid(), n_hidden_layers=2, width=100, temperature=5e-4
)


def grid(law):
    """log Z, <phi phi^T> and weights on a dense grid of two latents, (n, 2) and (n,)."""
    x = np.linspace(-7, 7, 281)
    g = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    log_weight, log_prior = law.log_density(g), -0.5 * (g**2).sum(1)
    weight = np.exp(log_weight - logsumexp(log_weight))
    phi = law.activations(g)
    return float(logsumexp(log_weight) - logsumexp(log_prior)), (phi.T * weight) @ phi, g, weight


def conjugate_of(total, n_directions=1):
    return ConjugateKernel.of(total, leading_directions(total, n_directions))


def particles(phi, n, conjugate, seed=0):
    """Those of a law that is known exactly, and their layer near it."""
    moving = HiddenParticles(ROOT, phi, n, np.random.default_rng(seed))
    exact, v = grid(HiddenLaw(ROOT, conjugate.total, phi))[1], conjugate.directions
    return moving, moving.follow(conjugate, v.T @ exact @ v, 1e-3).state


@pytest.mark.parametrize("phi", [flt.Sigmoid(), flt.Erf()])
def test_the_first_layer_against_a_dense_grid(phi):
    """From the prior to a strong Kt; the twin: particles of the prior, reweighted all the way, are few.

    log Z has a standard error of .016 over seeds for Erf, .007 for Sigmoid.
    """
    law, conjugate = HiddenLaw(ROOT, 4.0 * TOTAL, phi), conjugate_of(4.0 * TOTAL)
    prior = HiddenParticles(ROOT, phi, 16_000, np.random.default_rng(0)).layer
    assert relative_ess(prior.state(conjugate).weights) < 0.5
    moving, found = particles(phi, 16_000, conjugate)
    np.testing.assert_allclose(found.conjugate.core, conjugate.core, rtol=0.1)
    state = moving.move(moving.layer.state(conjugate), 4)
    log_partition, kernel, _, _ = grid(law)
    assert state.log_partition == pytest.approx(log_partition, abs=0.06)
    np.testing.assert_allclose(state.kernel, kernel, atol=0.01)
    np.testing.assert_allclose(state.weights, 1 / 64_000)


def test_the_overlap_asked_for_is_found_and_others_are_refused():
    conjugate = conjugate_of(TOTAL)
    layer = particles(flt.Sigmoid(), 2000, conjugate)[0].layer
    wanted = 1.1 * layer.state(conjugate).overlap
    found = layer.at_overlap(conjugate, wanted, tolerance=1e-4, max_iterations=20)
    np.testing.assert_allclose(found.state.overlap, wanted, rtol=1e-4)
    with pytest.raises(ConvergenceError, match="do not reach"):
        layer.at_overlap(conjugate, 3.0 * wanted, tolerance=1e-4, max_iterations=20)


def test_derivatives_of_the_first_layer_are_those_of_its_particles():
    conjugate = conjugate_of(TOTAL)
    layer = particles(flt.Sigmoid(), 500, conjugate)[0].layer
    step, here = 1e-5, layer.state(conjugate)
    there, back = (layer.state(evolve(conjugate, core=conjugate.core + s * step)) for s in (1, -1))
    slope = (there.log_partition - back.log_partition) / (2 * step)
    assert slope == pytest.approx(0.5 * here.overlap[0, 0], rel=1e-6)
    assert here.response()[0, 0] == pytest.approx((there.overlap - back.overlap)[0, 0] / (2 * step), rel=1e-6)
    moved = (there.kernel - back.kernel) / (2 * step)
    np.testing.assert_allclose(here.kernel_directions()[0], moved, rtol=1e-5)


def test_one_sample_of_two_laws():
    """Samples of two laws together are one of a law between them."""
    phi, samples = flt.Sigmoid(), []
    for seed, total in enumerate((0.8 * TOTAL, 1.2 * TOTAL)):
        moving, _ = particles(phi, 4000, conjugate_of(total), seed)
        samples.append(moving.move(moving.layer.state(conjugate_of(total)), 2).neurons)
    law = HiddenLaw(ROOT, TOTAL, phi)
    both = together(law, *samples)
    weights, log_partition = both.weights(law.exponent(law.activations(both.latent)))
    exact, kernel, _, _ = grid(law)
    found = law.activations(both.latent)
    np.testing.assert_allclose((found.T * weights) @ found, kernel, atol=0.01)
    assert log_partition == both.log_partition == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize("phi", [flt.Sigmoid(), flt.Erf(), flt.Tanh()])
def test_the_message_is_twice_the_derivative_of_log_z(phi):
    """(7f) on weighted points of a dense grid, against finite differences of log Z in the kernel.

    The twin: without the second derivatives.
    """
    values, vectors = np.linalg.eigh(ROOT @ ROOT.T)
    root = (vectors * np.sqrt(values)) @ vectors.T
    law = NeuronLaw(root, np.array([[1.8, 0.3], [-0.4, 1.4]]), 1.0, phi)
    log_partition, _, g, weight = grid(law)
    neurons = DrawnNeurons(law, g, law.exponent(law.activations(g)) - np.log(weight * len(g)), log_partition)
    found = message(law, neurons, weight)
    step = 1e-4
    for change in (np.diag([1.0, 0.0]), np.diag([0.0, 1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])):
        there, back = (
            grid(evolve(law, factor=np.linalg.cholesky(root @ root + sign * step * change)))[0]
            for sign in (1, -1)
        )
        assert (found * change).sum() == pytest.approx((there - back) / step, abs=2e-3)
    z = g @ root.T
    pull = law.pull(phi(z)) * phi.derivative(z)
    assert np.abs((pull.T * weight) @ pull - found).max() > 0.1


def test_an_input_without_a_signal_asks_for_nothing():
    """A vanishing input of an odd phi: its z and its part of the kernel are 0."""
    root = np.diag([1.0, 0.0])
    law = NeuronLaw(root, np.array([[1.5], [0.7]]), 1.0, flt.Erf())
    g = np.random.default_rng(0).standard_normal((500, 2))
    neurons = DrawnNeurons(law, g, np.zeros(500), 0.0)
    problem = SampledProblem(np.array([[0.5], [0.0]]), 0.1, 1.0, 1e-6, 0)
    found = problem.solve(law, neurons).message
    assert np.isfinite(found).all() and found[1, 1] == 0.0 and found[0, 0] != 0.0


def test_the_first_guess_spans_the_targets():
    """Two one-hot outputs of an odd phi need the constant codes; of +-1 targets and others they do not."""
    one_hot = FirstGuess(evolve(DIGITS, nonlinearity=flt.Erf()).model)
    assert len(one_hot._coded) == 4 and len(FirstGuess(DIGITS.model)._coded) == 2
    task = flt.ArrayTask(DIGITS.task.inputs, 2.0 * DIGITS.task.targets[:, :1] - 1)
    assert len(FirstGuess(evolve(DIGITS, task=task, nonlinearity=flt.Erf()).model)._coded) == 2


@pytest.fixture(scope="module")
def few():
    """Few particles: enough to see mistakes of a few percent."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_N_HIDDEN", 1500), ("_N_READOUT", 400), ("_N_COLLECTED", 4)):
            patch.setattr(particle_solver, name, value)
        yield


@pytest.fixture(scope="module")
def small(few):
    return DIGITS.solve(method="particles"), DIGITS.solve(method="ep")


def test_particles_and_the_lattice_agree(small):
    found, known = small
    assert found.method == "particles" and known.method == "lattice"
    assert 0 < found.agreement.kernel < 0.1 and 0 < found.agreement.dual_field < 0.05
    error = found.agreement.kernel + 0.01
    for layer in (1, 2):
        gap = np.linalg.norm(found.kernel(layer) - known.kernel(layer))
        assert gap < error * np.linalg.norm(known.kernel(layer))
    assert np.linalg.norm(found.dual_field - known.dual_field) < 0.03 * np.linalg.norm(known.dual_field)
    assert found.free_energy == pytest.approx(known.free_energy, abs=0.3)
    theirs = {branch.code: branch.probability for branch in known.branches}
    for branch in found.branches[:3]:
        assert branch.probability == pytest.approx(theirs[branch.code], abs=0.03)


def test_answers_of_particles(small):
    found, known = small
    check_solution(found, tolerance=0.03)
    inputs = DIGITS.task.test_inputs
    np.testing.assert_allclose(found.predict(inputs).mean, known.predict(inputs).mean, atol=0.03)
    np.testing.assert_allclose(found.kernel(1, inputs), known.kernel(1, inputs), atol=0.02)
    z = found.neurons(4000, 1).preactivations
    phi = found.model.nonlinearity(z)
    np.testing.assert_allclose(phi.T @ phi / len(z), found.kernel(1), atol=0.02)


def test_a_file_gives_them_back(small, tmp_path):
    found, _ = small
    found.save(tmp_path / "solution")
    again = flt.load(tmp_path / "solution")
    np.testing.assert_array_equal(again.dual_field, found.dual_field)
    np.testing.assert_array_equal(again.predict().mean, found.predict().mean)
    np.testing.assert_array_equal(again.kernel(1), found.kernel(1))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_classes_of_an_odd_nonlinearity(few):
    """Few images, where EP answers too; with more it does not (docs/theory.md section 5.8).

    Codes come in pairs of opposite ones, all four of them.
    """
    posterior = evolve(DIGITS, task=flt.Digits((2, 8), n_samples=12, seed=3), nonlinearity=flt.Erf())
    known, found = posterior.solve(), posterior.solve(method="particles")
    assert known.method == "lattice" and found.agreement.kernel < 0.06
    for layer in (1, 2):
        gap = np.linalg.norm(found.kernel(layer) - known.kernel(layer))
        assert gap < 0.04 * np.linalg.norm(known.kernel(layer))
    shares = {branch.code: branch.probability for branch in found.branches}
    assert set(shares) == {(1, 0), (0, 1), (1, 1), (0, 0)}
    assert shares[1, 0] == pytest.approx(shares[0, 1]) and shares[1, 1] == pytest.approx(shares[0, 0])
    check_solution(found, tolerance=0.03)
    again = posterior.solve(method="particles", start=known, seed=1)
    assert again.n_iterations < found.n_iterations
    np.testing.assert_allclose(again.kernel(1), found.kernel(1), atol=0.04)


def test_particles_answer_where_ep_fails_and_nothing_else_is_asked_for(monkeypatch, small):
    found, known = small

    def fails(model, settings):
        raise ConvergenceError("no fixed point", last=known)

    monkeypatch.setattr(solver, "solve_lattice", fails)
    monkeypatch.setattr(solver, "solve_deep_particles", lambda model, settings: found)
    assert DIGITS.solve().free_energy == found.free_energy
    with pytest.raises(ConvergenceError, match="no fixed point"):
        DIGITS.solve(method="ep")


def test_particles_that_cannot_settle_say_so(monkeypatch):
    for module, name, value in (
        (particle_solver, "_N_HIDDEN", 300),
        (particle_solver, "_N_READOUT", 200),
        (stack, "_N_STEPS", 1),
    ):
        monkeypatch.setattr(module, name, value)
    with pytest.raises(ConvergenceError, match="do not settle") as caught:
        DIGITS.solve(method="particles", max_iterations=1)
    assert isinstance(caught.value.last, flt.MeanFieldSolution)
