"""Neurons that condense in the readout layer too, and three classes: all slow."""

import numpy as np
import pytest
from attrs import evolve, frozen
from numpy.testing import assert_allclose

import fltheory as flt
from fltheory.meanfield.rectified.posterior import RectifiedPosterior
from fltheory.testing import check_solution
from fltheory.testing.solution_case import SolutionCase
from fltheory.testing.solution_laws import SOLUTION_LAWS

pytestmark = pytest.mark.slow


def theory_of(n_samples: int, ratios: tuple[float, ...]) -> flt.MeanFieldSolution:
    """Two hidden layers at N T = 0.03."""
    task = flt.OrthogonalClassification(n_samples, ratios)
    return flt.DeepNetworkPosterior(task, flt.ReLU(), n_hidden_layers=2, width=300, temperature=1e-4).solve()


@pytest.fixture(scope="module")
def theory() -> flt.MeanFieldSolution:
    """200 inputs a class: one neuron a class condenses in each layer."""
    return theory_of(400, (0.5, 0.5))


def test_one_neuron_a_class_condenses_in_each_layer(theory: flt.MeanFieldSolution) -> None:
    labels = theory.model.task.labels
    assert theory.certificate == pytest.approx(1.0, abs=1e-6)
    assert_allclose(theory.neuron.gains, 1.0, atol=1e-6)
    for layer in (1, 2):
        strong = theory.decomposition(layer).outliers
        assert sorted(labels[row.argmax()] for row in strong) == [0, 1]
    assert len(theory.outliers) == 2


def test_its_neurons_are_tight(theory: flt.MeanFieldSolution) -> None:
    """Law 21: |abar|^2 / sigma_a^2 = zbar^T K_1^{-1} zbar = abar^T t^T phi(zbar)."""
    field, variance = theory.dual_field, theory.model.readout_variance
    for neuron in theory.outliers:
        cost = neuron.preactivations @ np.linalg.solve(theory.kernel(1), neuron.preactivations)
        gain = neuron.readout @ field.T @ neuron.activations
        assert_allclose([cost, gain], neuron.readout @ neuron.readout / variance, rtol=1e-5)


def test_they_carry_part_of_the_output(theory: flt.MeanFieldSolution) -> None:
    """Y - N T t is the sum of bulk and outliers, (R1); what the bulk has alone falls short."""
    model, field = theory.model, theory.dual_field
    parts = theory.decomposition(2)
    expected = model.task.targets - model.scaled_temperature * field
    alone = model.readout_variance * parts.bulk @ field
    beside = sum(np.outer(neuron.activations, neuron.readout) for neuron in theory.outliers)
    assert_allclose(alone + beside, expected, atol=1e-6)
    assert np.abs(alone - expected).max() > 0.02
    some = slice(190, 210)
    assert_allclose(theory.predict(model.task.inputs[some]).mean, expected[some], atol=1e-3)


@frozen(eq=False)
class Forgetful(RectifiedPosterior):
    """A wrong theory: the message to layer 1 is without what condensed neurons of layer 2 ask for."""

    def conjugate_kernel(self, layer: int) -> np.ndarray:
        if layer == 2:
            return super().conjugate_kernel(layer)
        return self.point.layers[1].bulk.message.expand(self._member)


def test_laws_hold_and_miss_what_is_left_out(theory: flt.MeanFieldSolution) -> None:
    neuron = theory.neuron
    wrong = evolve(theory, neuron=Forgetful(neuron.model, neuron.point, neuron.seed))
    law = next(law for law in SOLUTION_LAWS if law.name == "homogeneity")
    assert not law.found_in(SolutionCase(theory, 2e-3, 0))
    assert law.found_in(SolutionCase(wrong, 2e-3, 0))


def test_three_classes() -> None:
    """The first row of three classes of docs/theory.md section 6.2."""
    theory = theory_of(60, (1 / 3, 1 / 3, 1 / 3))
    check_solution(theory)
    assert max(theory.agreement.dual_field, theory.agreement.kernel) < 2e-3
    labels, kernel, field = theory.model.task.labels, theory.kernel(2), theory.dual_field
    last = np.flatnonzero(labels == 2)
    found = [field[last[0], 2], kernel[last[0], last[1]], kernel[last[0], 0]]
    assert_allclose(found, [0.5063, 6.614, 1.842], rtol=2e-3)
