"""Laws of docs/theory.md section 10 that take several solutions of a network of two hidden layers."""

import numpy as np
import pytest
from attrs import evolve, frozen

import fltheory as flt

PRIOR = flt.GaussianPrior(readout_variance=0.35, scaling="none")
ORTHOGONAL = flt.DeepNetworkPosterior(
    flt.OrthogonalClassification(12, (0.5, 0.5)),
    flt.Linear(),
    PRIOR,
    n_hidden_layers=2,
    width=100,
    temperature=2e-3,
)


@frozen
class Bent(flt.Nonlinearity):
    """z - bend^2 z^3 / 3 and bounded far out."""

    bend: float

    def __call__(self, z):
        return flt.namespace(z).tanh(self.bend * z) / self.bend


def distance(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


def test_a_bounded_phi_that_is_nearly_linear_has_the_linear_solution():
    """Law 20: the engine of bounded phi against (9); what is left falls as the square of the bend."""
    linear = ORTHOGONAL.solve()
    gaps = []
    for bend in (0.2, 0.1):
        found = evolve(ORTHOGONAL, nonlinearity=Bent(bend)).solve()
        assert (found.method, linear.method) == ("quadrature", "closed form")
        kernels = [distance(found.kernel(layer), linear.kernel(layer)) for layer in (1, 2)]
        gaps.append(
            [*kernels, distance(found.dual_field, linear.dual_field), found.free_energy - linear.free_energy]
        )
    wide, narrow = np.array(gaps)
    assert (narrow < [0.04, 0.07, 0.06, 0.2]).all()
    np.testing.assert_allclose(wide / narrow, 4.0, rtol=0.2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_input_twice():
    """Law 15, on a singular kernel, against the exact integrals for the inputs once.

    The twin: without the factor of N T.
    """
    once = evolve(ORTHOGONAL, nonlinearity=flt.Sigmoid(), temperature=5e-4)
    task = flt.ArrayTask(
        *(np.concatenate([x, x]) for x in (once.task.inputs, once.task.targets, once.task.labels))
    )
    twice = evolve(once, task=task, temperature=1e-3)
    one, two = once.solve(), twice.solve()
    other = evolve(once, temperature=1e-3).solve()
    assert two.free_energy == pytest.approx(one.free_energy, abs=0.15)
    assert other.free_energy != pytest.approx(one.free_energy, abs=0.15)
    assert distance(2.0 * two.dual_field[:12], one.dual_field) < 0.01
    np.testing.assert_allclose(two.dual_field[:12], two.dual_field[12:], atol=1e-6)
    for layer in (1, 2):
        assert distance(two.kernel(layer)[:12, 12:], one.kernel(layer)) < 0.01
