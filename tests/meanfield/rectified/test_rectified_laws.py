"""Laws of docs/theory.md section 10 on deep networks of ReLU, and twins that must break them."""

import numpy as np
import pytest
from attrs import evolve, frozen
from numpy.testing import assert_allclose
from rectified_cases import coarse_problem, point_of, solved

import fltheory as flt
from fltheory.meanfield.rectified.chain import ChainPoint, ChainProblem
from fltheory.meanfield.rectified.classes import ClassMatrix
from fltheory.meanfield.rectified.posterior import RectifiedPosterior
from fltheory.meanfield.rectified.search import error
from fltheory.numerics.validation import Array
from fltheory.testing import check_solution
from fltheory.testing.solution_case import SolutionCase
from fltheory.testing.solution_laws import SOLUTION_LAWS

STEP = 0.02


@pytest.fixture(scope="module")
def here(relu_theory: flt.MeanFieldSolution) -> ChainPoint:
    """The solution on a coarse lattice, to be changed and solved again."""
    return solved(coarse_problem(), point_of(relu_theory))


def slope(here: ChainPoint, **factors: float | tuple[float, ...]) -> float:
    """dJ / dlog of numbers of the problem; t starts where a neuron's gain far out is as before."""

    def value(sign: int) -> float:
        names = {name: np.multiply(factor, sign * STEP) for name, factor in factors.items()}
        changes = {name: getattr(here.problem, name) * np.exp(step) for name, step in names.items()}
        louder = sum(float(np.sum(step)) for name, step in names.items() if name != "noise")
        state = evolve(here.state, field=here.state.field * np.exp(-0.5 * louder))
        there = solved(evolve(here.problem, **changes), evolve(here, state=state))
        assert error(there) < 1e-6
        return there.value

    return (value(1) - value(-1)) / (2 * STEP)


def test_the_solution_obeys_all_laws_that_it_can_show(relu_theory: flt.MeanFieldSolution) -> None:
    assert relu_theory.residual < 1e-6
    check_solution(relu_theory)


@frozen(eq=False)
class Twin(RectifiedPosterior):
    """A wrong theory: conjugate kernels are too large."""

    def conjugate_kernel(self, layer: int) -> Array:
        return 1.02 * super().conjugate_kernel(layer)


@frozen(eq=False)
class Uncondensed(RectifiedPosterior):
    """A wrong theory: its first layer forgets the condensed neurons."""

    def kernel_parts(self, layer: int) -> flt.Decomposition:
        parts = super().kernel_parts(layer)
        return evolve(parts, patterns=0.0 * parts.patterns)


@pytest.mark.parametrize("twin", [Twin, Uncondensed])
def test_a_wrong_theory_breaks_laws(relu_theory: flt.MeanFieldSolution, twin: type) -> None:
    neuron = relu_theory.neuron
    wrong = evolve(relu_theory, neuron=twin(neuron.model, neuron.point, neuron.seed))
    law = next(law for law in SOLUTION_LAWS if law.name == "homogeneity")
    assert not law.found_in(SolutionCase(relu_theory, 2e-3, 0))
    assert law.found_in(SolutionCase(wrong, 2e-3, 0))


def test_law_3(here: ChainPoint) -> None:
    """dJ / d(N T) = |t|^2 / 2."""
    expected = 0.5 * here.problem.noise * float((here.problem.counts[:, None] * here.state.field**2).sum())
    assert slope(here, noise=1.0) == pytest.approx(expected, rel=5e-3)
    assert slope(here, noise=1.0) != pytest.approx(1.05 * expected, rel=5e-3)


def test_law_4(here: ChainPoint) -> None:
    """dJ / dlog sigma_a^2 = tr t^T (Y - N T t) / 2."""
    outputs = here.problem.groups.targets - here.problem.noise * here.state.field
    expected = 0.5 * float((here.problem.counts[:, None] * here.state.field * outputs).sum())
    assert slope(here, readout_variance=1.0) == pytest.approx(expected, rel=5e-3)


def test_law_6(here: ChainPoint) -> None:
    """dJ / dlog sigma_2^2 = tr Kt_1 K_1 / (2 sigma_2^2)."""
    expected = 0.5 * here.conjugates[0].trace_with(here.kernel(1), here.problem.counts)
    assert slope(here, weight_variances=(0.0, 1.0)) == pytest.approx(expected, rel=5e-3)


def test_law_8(here: ChainPoint) -> None:
    """tr Kt_l <phi phi^T>_l is the same in all layers."""
    traces = [here.conjugates[k].trace_with(here.kernel(k + 1), here.problem.counts) for k in (0, 1)]
    assert_allclose(traces[0], traces[1], rtol=2e-3)


def scaled(problem: ChainProblem, factor: float) -> ChainProblem:
    """K_0 larger by a factor."""
    groups = evolve(problem.groups, variances=factor * problem.groups.variances)
    return evolve(problem, groups=groups)


def test_law_10(here: ChainPoint) -> None:
    """A factor of K_0 can be taken from sigma_a^2: J and t stay, Kt_1 shrinks."""
    problem = scaled(here.problem, 4.0)
    conjugate = here.state.conjugates[0] * 0.25
    state = evolve(here.state, conjugates=(ClassMatrix(conjugate.blocks, conjugate.diagonal),))
    moved = ChainPoint(evolve(problem, readout_variance=problem.readout_variance / 4.0), state)
    assert error(moved) < 1e-5
    assert moved.value == pytest.approx(here.value, rel=1e-7)
    assert error(ChainPoint(problem, state)) > 1e-2  # the twin: sigma_a^2 is not changed


def test_condensed_neurons_are_tight_and_solve_their_equation(here: ChainPoint) -> None:
    """(R4), and law 21: zbar^T K_0^{-1} zbar = phi(zbar)^T Kt_1 phi(zbar)."""
    counts, rays, amplitudes = here.problem.counts, here.layers[0].rays, here.state.amplitudes[0]
    z = np.sqrt(amplitudes)[:, None] * rays.preactivations
    phi = np.sqrt(amplitudes)[:, None] * rays.activations
    pull = phi @ here.conjugates[0].on_sums(counts) / counts
    assert_allclose(z, np.where(z > 0, pull, 0.0), atol=1e-5)
    assert (pull[z == 0] < 0).all()  # held at the kink
    assert_allclose(((phi * counts) * pull).sum(1), amplitudes, rtol=1e-5)
