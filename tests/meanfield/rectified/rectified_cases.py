"""Small deep networks of ReLU and kin for the tests of their theory."""

import numpy as np
from attrs import evolve

import fltheory as flt
from fltheory.meanfield.quadrature.groups import GroupedTargets
from fltheory.meanfield.rectified.chain import ChainPoint, ChainProblem
from fltheory.meanfield.rectified.nodes import Lattice
from fltheory.meanfield.rectified.posterior import RectifiedPosterior
from fltheory.meanfield.rectified.search import ChainSearch

SCALED_TEMPERATURE, WIDTH = 0.03, 300


def two_classes(n_hidden_layers: int = 2, ratios: tuple[float, ...] = (0.5, 0.5)) -> flt.DeepNetworkPosterior:
    """60 orthogonal inputs at N T = 0.03."""
    task = flt.OrthogonalClassification(60, ratios)
    temperature = SCALED_TEMPERATURE / WIDTH
    return flt.DeepNetworkPosterior(
        task, flt.ReLU(), n_hidden_layers=n_hidden_layers, width=WIDTH, temperature=temperature
    )


def coarse_problem(n_hidden_layers: int = 2, **changes: object) -> ChainProblem:
    """The equations of ``two_classes`` on a lattice that is coarse and quick."""
    groups = GroupedTargets.of(np.repeat(np.eye(2), 30, axis=0), np.ones(60))
    lattice = Lattice(reach=24.0, spacing=0.7)
    problem = ChainProblem(groups, (0.0, 1.0), (1.0,) * n_hidden_layers, 1 / 60, SCALED_TEMPERATURE, lattice)
    return evolve(problem, **changes)


def point_of(theory: flt.MeanFieldSolution) -> ChainPoint:
    """The order parameters of a solution."""
    assert isinstance(theory.neuron, RectifiedPosterior)
    return theory.neuron.point


def solved(problem: ChainProblem, near: ChainPoint, tolerance: float = 1e-6) -> ChainPoint:
    """The solution of changed equations, from one nearby."""
    search = ChainSearch(problem, flt.ReLU(), lambda residual: None)
    return search.condense(ChainPoint(problem, near.state), tolerance, 20)
