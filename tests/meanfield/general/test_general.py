"""Two hidden layers on any kernel: against class blocks, laws, answers, refusals."""

import numpy as np
import pytest
from attrs import evolve

import fltheory as flt
from fltheory.meanfield.dual import evaluate
from fltheory.meanfield.general.ep_readout import ReadoutProblem
from fltheory.meanfield.general.lattice_solver import _Attempt, _checked
from fltheory.meanfield.settings import Settings
from fltheory.meanfield.solution import Agreement
from fltheory.testing import check_solution

TASK = flt.OrthogonalClassification(20, (0.5, 0.5))
ORTHOGONAL = flt.DeepNetworkPosterior(TASK, flt.Sigmoid(), n_hidden_layers=2, width=100, temperature=5e-4)
DIGITS = evolve(ORTHOGONAL, task=flt.Digits(classes=(0, 1), n_samples=20, n_test=10))
TOLERANCE = 5e-3  # EP's own error and that of the lattice, as for EP at one hidden layer


@pytest.fixture(scope="module")
def orthogonal():
    return ORTHOGONAL.solve(method="ep")


@pytest.fixture(scope="module")
def digits():
    return DIGITS.solve()


def blocks(kernel, labels):
    """Means over pairs of different inputs of each pair of classes."""
    off = ~np.eye(len(labels), dtype=bool)
    n = labels.max() + 1
    return [
        kernel[(labels[:, None] == a) & (labels == b) & off].mean() for a in range(n) for b in range(a, n)
    ]


def test_the_laws_hold(orthogonal, digits):
    check_solution(orthogonal, tolerance=TOLERANCE)
    check_solution(digits, tolerance=TOLERANCE)
    for solution in (orthogonal, digits):
        lattice, exact = solution.kernel(1), solution.neuron.pair.hidden.state.exact_kernel
        assert solution.agreement.kernel >= np.linalg.norm(exact - lattice) / np.linalg.norm(lattice)
        assert solution.agreement.kernel < 0.01 and solution.agreement.dual_field < 0.01


def test_on_one_kernel_of_the_first_layer_the_field_follows_the_targets(digits):
    """Law 17, and what follows from S being concave in N T."""
    attempt, kernel = (
        _Attempt(DIGITS.model, Settings("ep", None, 1e-6, 60, 0, False, print)),
        digits.kernel(1),
    )
    targets, noise = DIGITS.task.targets, DIGITS.model.scaled_temperature

    def field(targets, noise):
        template = evolve(attempt.free.template, targets=targets, noise=noise)
        return evolve(attempt.free, template=template).first(kernel, None, 40).field

    t = field(targets, noise)
    np.testing.assert_allclose(t, digits.dual_field, rtol=1e-3, atol=1e-3)
    change = 0.1 * np.random.default_rng(0).standard_normal(targets.shape)
    moved = field(targets + change, noise) - t
    assert (moved * change).sum() > noise * (moved**2).sum() > 0
    warmer = field(targets, 1.5 * noise)
    assert np.linalg.norm(warmer) < np.linalg.norm(t) < 1.5 * np.linalg.norm(warmer)


def test_a_wrong_kernel_of_the_first_layer_breaks_the_laws(digits):
    pair = digits.neuron.pair
    state = evolve(pair.hidden.state, kernel=1.2 * pair.hidden.state.kernel)
    neuron = evolve(digits.neuron, pair=evolve(pair, hidden=evolve(pair.hidden, state=state)))
    with pytest.raises(AssertionError, match="drawn kernels"):
        check_solution(evolve(digits, neuron=neuron), tolerance=TOLERANCE)


def test_a_readout_without_one_of_its_codes_is_refused(digits):
    """Exact neurons find the code that is missing; with all of them the same check passes."""
    pair = digits.neuron.pair
    point = pair.readout.point
    kept = np.argsort(-point.probabilities)[:2]
    worse = evaluate(point.problem, point.field, point.sites[:, kept], residual=1e-4)
    readout = evolve(pair.readout, point=worse)
    solution = evolve(digits, neuron=evolve(digits.neuron, pair=evolve(pair, readout=readout)))
    lattices = Agreement("a coarser lattice", 0.0, 0.0)
    with pytest.raises(flt.ConvergenceError, match="exact neurons") as caught:
        _checked(solution, lattices)
    assert caught.value.last.agreement.missing_probability > 0.05
    assert _checked(digits, lattices).agreement.missing_probability < 0.01


def test_class_blocks_and_the_general_way_agree(orthogonal):
    exact = ORTHOGONAL.solve()
    assert exact.method == "quadrature" and orthogonal.method == "lattice"
    for layer in (1, 2):
        np.testing.assert_allclose(orthogonal.kernel(layer), exact.kernel(layer), atol=2e-3)
    np.testing.assert_allclose(orthogonal.dual_field, exact.dual_field, atol=0.01 * exact.dual_field.max())
    conjugate = exact.conjugate_kernel(1)
    gap = np.abs(orthogonal.conjugate_kernel(1) - conjugate).max()
    assert gap < 5e-3 * np.abs(conjugate).max()
    for found, known in zip(orthogonal.branches, exact.branches, strict=True):
        assert found.probability == pytest.approx(known.probability, abs=2e-3)


def test_another_guess_where_the_readout_fails_on_the_first():
    """Few images: EP of the readout layer finds nothing on the first guess of the kernel."""
    task = flt.Digits((5, 8), n_samples=16, n_test=1, seed=219)
    model = evolve(DIGITS, task=task, temperature=3e-4).model
    attempt = _Attempt(model, Settings("ep", None, 1e-6, 60, 0, False, lambda residual: None))
    with pytest.raises(flt.ConvergenceError, match="codes form"):
        attempt._first_readout(attempt.guess.kernel(0.5))
    pair, converged = attempt.run()
    assert converged and pair.residual < 1e-3


@pytest.mark.slow
def test_targets_without_classes():
    """Ten Gaussian inputs and noise to fit: EP's error in J must not end the search."""
    rng = np.random.default_rng(5)
    task = flt.ArrayTask(rng.normal(size=(10, 50)), rng.normal(size=(10, 1)))
    solution = evolve(DIGITS, task=task, nonlinearity=flt.Erf(), temperature=1e-3).solve()
    assert solution.agreement.kernel < 0.03 and solution.residual < 1e-5


@pytest.mark.parametrize("phi", [flt.Sigmoid(), flt.Erf()])
def test_one_output_for_two_classes(phi):
    """Targets of +-1: two codes that are opposite, as many neurons on each but for the images."""
    digits = flt.Digits((2, 8), n_samples=16, n_test=1, seed=3)
    task = flt.ArrayTask(digits.inputs, 2 * digits.targets[:, :1] - 1, digits.labels)
    solution = evolve(DIGITS, task=task, nonlinearity=phi).solve()
    first, second = solution.branches[:2]
    assert {first.code, second.code} == {(1, 0), (0, 1)}
    np.testing.assert_allclose([first.probability, second.probability], 0.5, atol=0.03)
    np.testing.assert_allclose(first.readout, -second.readout, rtol=0.1)
    check_solution(solution, tolerance=TOLERANCE)


def test_the_conjugate_kernel_is_the_message(digits):
    """(7) on drawn neurons of the second layer: Kt_1 = K_1^-1 <z z^T> K_1^-1 - K_1^-1, along its directions.

    The twin: without the learned part, <z z^T> = K_1, it would vanish.
    """
    kernel, conjugate = digits.kernel(1), digits.conjugate_kernel(1)
    z = digits.neurons(40_000, 2).preactivations
    whole = np.linalg.solve(kernel, np.linalg.solve(kernel, z.T @ z / len(z)).T) - np.linalg.inv(kernel)
    v = digits.neuron.pair.hidden.state.conjugate.directions
    expected = v.T @ conjugate @ v
    np.testing.assert_allclose(v.T @ whole @ v, expected, atol=0.05 * np.abs(expected).max())
    assert np.abs(expected).max() > 0.5


def test_new_inputs_are_answered(digits):
    known = digits.predict()
    few = [0, 5, 13]
    again = digits.predict(DIGITS.task.inputs[few])
    np.testing.assert_allclose(again.mean, known.mean[few], atol=1e-4)
    new = digits.predict(DIGITS.task.test_inputs)
    assert (new.labels == DIGITS.task.test_targets.argmax(1)).mean() > 0.8
    both = np.concatenate([DIGITS.task.inputs[few], DIGITS.task.test_inputs])
    kernel = digits.kernel(2, both)
    np.testing.assert_allclose(kernel[:3, :3], digits.kernel(2)[np.ix_(few, few)], atol=2e-3)


def test_what_the_layers_say_of_themselves(digits):
    assert digits.symmetry(2) == "broken"
    assert digits.neurons(10, 1).readouts is None and digits.neurons(10, 2).readouts.shape == (10, 2)
    parts = digits.decomposition(1)
    np.testing.assert_allclose(parts.kernel, digits.kernel(1), atol=1e-12)


def test_on_from_a_solution(digits):
    again = DIGITS.solve(start=digits)
    assert again.n_iterations < digits.n_iterations
    np.testing.assert_allclose(again.kernel(1), digits.kernel(1), atol=1e-3)


def test_a_start_in_vain_is_followed_by_a_search_from_scratch(digits, monkeypatch):
    """Where the readout layer finds no way on from the given solution."""
    first, refused = ReadoutProblem.first, []

    def only_cold(problem, kernel, start, max_iterations):
        if start is not None:
            refused.append(start)
            raise flt.ConvergenceError("in vain", last=None)
        return first(problem, kernel, start, max_iterations)

    monkeypatch.setattr(ReadoutProblem, "first", only_cold)
    started = DIGITS.solve(start=digits)
    assert refused and started.n_iterations == digits.n_iterations
    np.testing.assert_array_equal(started.dual_field, digits.dual_field)


def test_imposed_fractions(orthogonal):
    fractions = {(1, 0): 0.37, (0, 1): 0.37, (1, 1): 0.26}
    frozen = ORTHOGONAL.solve(method="ep", code_fractions=fractions)
    for branch in frozen.branches:
        assert branch.probability == pytest.approx(fractions[branch.code], abs=1e-7)
    assert frozen.free_energy > orthogonal.free_energy + 0.05
    check_solution(frozen, tolerance=TOLERANCE)
    own = ORTHOGONAL.solve(method="ep", code_fractions={b.code: b.probability for b in orthogonal.branches})
    np.testing.assert_allclose(own.kernel(1), orthogonal.kernel(1), atol=1e-3)


def test_a_variance_of_the_second_layer_is_taken_into_the_kernel(digits):
    """sigma_2^2 = c with phi alike is the network of phi sqrt(c) in the first layer: here by its law 6."""
    prior = flt.GaussianPrior(weight_variance=(1.0, 1.1))
    wide = evolve(DIGITS, prior=prior).solve()
    change = digits.free_energy - wide.free_energy
    traces = [
        float((s.conjugate_kernel(1) * s.kernel(1)).sum()) / 2 for s in (digits, wide)
    ]  # dJ / dlog sigma_2^2, at both ends
    assert change == pytest.approx(np.log(1.1) * np.mean(traces), rel=0.02)


@pytest.mark.parametrize(
    ("change", "arguments", "match"),
    [
        ({}, {"finite_width": True, "code_fractions": {(1, 0): 1.0}}, "code_fractions: expected None with"),
        ({}, {"code_fractions": {(0, 0): 1.0}}, r"code_fractions: .*got \[\(0, 0\)\]"),
    ],
)
def test_what_is_not_covered_is_refused_by_name(change, arguments, match):
    with pytest.raises(ValueError, match=match):
        evolve(DIGITS, **change).solve(**arguments)


def test_non_convergence_carries_the_last_iterate():
    with pytest.raises(flt.ConvergenceError, match="relative residual") as caught:
        DIGITS.solve(method="ep", max_iterations=1)
    last = caught.value.last
    assert isinstance(last, flt.MeanFieldSolution) and last.kernel(1).shape == (20, 20)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_numbers_on_orthogonal_inputs():
    p = evolve(ORTHOGONAL, task=flt.OrthogonalClassification(60, (0.5, 0.5)), temperature=2e-4)
    theory = p.solve(method="ep")
    found = [*blocks(theory.kernel(1), p.task.labels), np.diagonal(theory.kernel(1)).mean()]
    np.testing.assert_allclose(found, [0.3085, 0.1994, 0.3085, 0.376], atol=5e-4)
    assert theory.free_energy == pytest.approx(147.684, abs=0.05)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_laws_hold_on_three_classes_of_digits():
    theory = evolve(ORTHOGONAL, task=flt.Digits(n_samples=30, n_test=10), temperature=4e-4).solve()
    check_solution(theory, tolerance=TOLERANCE)
    assert theory.agreement.kernel < 0.01
