"""Which samplers are tested on which networks: all combinations, and a few that cover all pairs.

To test a sampler more, add a ``Subject``.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
from attrs import astuple, evolve, field, frozen

from fltheory.network.moves.base import Moves
from fltheory.network.moves.codes import CodeBlocks, CodeMoves
from fltheory.network.moves.neurons import Neurons
from fltheory.network.moves.sweep import NeuronSweep
from fltheory.network.target import IntegratedTarget, NetworkTarget, WeightTarget
from fltheory.nonlinearity import GELU, LeakyReLU, Linear, Nonlinearity, ReLU, Sigmoid, Tanh
from fltheory.numerics.validation import Array
from fltheory.posterior import DeepNetworkPosterior
from fltheory.prior import GaussianPrior
from fltheory.sampler.alternate import Alternate
from fltheory.sampler.base import Sampler, State, Target, standard_normal
from fltheory.sampler.blocks import BlockIndependence, Blocks, Memory
from fltheory.sampler.elliptical import EllipticalSlice, PreconditionedCrankNicolson
from fltheory.sampler.hmc import HMC, MALA
from fltheory.sampler.nuts import NUTS
from fltheory.sampler.tempering import Tempering
from fltheory.task import ArrayTask, OrthogonalClassification
from fltheory.testing.network_problem import NetworkProblem
from fltheory.testing.ranks import Ranks, rank_test, simulation_based_calibration

if TYPE_CHECKING:
    from torch import Generator, Tensor

_N_SAMPLES, _WIDTH = 4, 5
_TEMPERATURE, _OUTPUT_VARIANCE = 0.7, 2.0  # the latter of a unit that is always active
_PRIOR = 1e12  # a temperature at which the data do not count
_INPUTS, _TARGETS = (np.random.default_rng(i).standard_normal((_N_SAMPLES, (5, 2)[i])) for i in (0, 1))
_ORTHOGONAL = OrthogonalClassification(_N_SAMPLES, (0.5, 0.5), n_inputs=5).inputs


def _code_moves(kind: type[CodeMoves], inputs: Array) -> CodeMoves:
    """Three codes: none, and one for each half of the inputs."""
    return kind(
        weights=np.array([4.0, 1.0, 1.0]),
        means=np.array([[0.0, 0.0, 0.0, 0.0], [0.5, 0.5, -0.5, -0.5], [-0.5, -0.5, 0.5, 0.5]]),
        covariances=np.stack([inputs @ inputs.T / inputs.shape[1]] * 3),
        groups=np.array([0, 0, 1, 1]),
        threshold=0.5,
    )


@frozen(eq=False)
class _ConditionedMoves(CodeMoves):
    """Conditioned on the other neurons, always, two drawn together: else only in colder, wider networks."""

    def of(self, target: IntegratedTarget) -> Blocks:
        return _ConditionedBlocks(self, Neurons(target))


@frozen(eq=False)
class _ConditionedBlocks(CodeBlocks):
    def sweep(
        self,
        x: "Tensor",
        order: Sequence[int],
        n_candidates: int,
        memory: Memory,
        generator: "Generator",
    ) -> NeuronSweep:
        is_conditioned, two = memory["is_conditioned"] | True, 0 * memory["n_together"] + 2
        always = {**memory, "is_conditioned": is_conditioned, "n_together": two}
        return super().sweep(x, order, n_candidates, always, generator)


_CODES, _CONDITIONED = _code_moves(CodeMoves, _INPUTS), _code_moves(_ConditionedMoves, _ORTHOGONAL)
_MOVES_AND_HMC = Alternate(BlockIndependence(2, n_updates=2), HMC(n_leapfrog=2, step_size=0.4))


class _TemperedFromPrior(Tempering):
    """Two levels, the upper one the prior: its copies, too, start at exact draws, as the rank test needs."""

    def init(self, target: Target, x: "Tensor", generator: "Generator") -> State:
        state = super().init(target, x, generator)
        drawn = {"inner/position": standard_normal(x, generator)}
        return self.refresh(target, evolve(state, memory={**state.memory, **drawn}))


@frozen
class Subject:
    """A sampler with its settings, and the steps in which it learns.

    Attributes
    ----------
    name, sampler, n_warmup
        What to call it, what it is, and the steps of warm-up.
    moves
        What the target has to know: for one hidden layer, reduced, the readout integrated out.
    inputs
        X of the networks.
    """

    name: str
    sampler: Sampler
    n_warmup: int = 0
    moves: Moves | None = None
    inputs: Array = field(default=_INPUTS, eq=False, repr=False)


SUBJECTS: tuple[Subject, ...] = (
    Subject("HMC, short steps", HMC(n_leapfrog=3, step_size=0.3)),
    Subject("HMC, long steps", HMC(n_leapfrog=3, step_size=0.55)),
    Subject("HMC, learned", HMC(n_leapfrog=3, learn_scales=True), n_warmup=30),
    Subject("MALA", MALA(step_size=0.5)),
    Subject("NUTS", NUTS(step_size=0.4, max_depth=4)),
    Subject("elliptical slice", EllipticalSlice()),
    Subject("pCN", PreconditionedCrankNicolson(step_size=0.5)),
    Subject("code moves", BlockIndependence(n_updates=6), moves=_CODES),
    Subject("conditioned moves", BlockIndependence(2, n_updates=4), moves=_CONDITIONED, inputs=_ORTHOGONAL),
    Subject("tempering", _TemperedFromPrior(HMC(n_leapfrog=3, step_size=0.4), n_levels=2)),
    Subject(
        "tempered code moves and HMC, learned",
        _TemperedFromPrior(_MOVES_AND_HMC, n_levels=2),
        n_warmup=8,
        moves=_CODES,
    ),
)


@frozen
class Cell:
    """A sampler on a network.

    Attributes
    ----------
    subject, phi, n_hidden_layers
        Sampler, nonlinearity, depth.
    is_lazy, has_equal_layers
        How the output scales with width, and whether layers have the same prior.
    coordinates, is_reduced
        As in ``NetworkProblem``.
    """

    subject: Subject
    phi: Nonlinearity
    n_hidden_layers: int
    is_lazy: bool
    has_equal_layers: bool
    coordinates: type[NetworkTarget]
    is_reduced: bool

    @property
    def is_possible(self) -> bool:
        """Whether the sampler finds what it asks for."""
        is_shallow = self.n_hidden_layers == 1 and self.is_reduced
        return self.subject.moves is None or (is_shallow and self.coordinates is IntegratedTarget)

    @property
    def problem(self) -> NetworkProblem:
        """The network: N = 5 neurons, P = 4 inputs in 5 dimensions, m = 2 outputs."""
        variance = 0.8 * _OUTPUT_VARIANCE if self.is_lazy else _WIDTH * _OUTPUT_VARIANCE
        variances = (1.0, 1.0) if self.has_equal_layers else (0.5, 2.0)
        posterior = DeepNetworkPosterior(
            ArrayTask(self.subject.inputs, _TARGETS),
            self.phi,
            GaussianPrior(variances[: self.n_hidden_layers], variance, scaling="none"),
            n_hidden_layers=self.n_hidden_layers,
            width=_WIDTH,
            temperature=_TEMPERATURE,
            readout_scaling="lazy" if self.is_lazy else "non-lazy",
        )
        known = partial(self.coordinates, moves=self.subject.moves, softest=_PRIOR)
        return NetworkProblem(posterior.model, known, self.is_reduced)

    def test(self, n_replicates: int, seed: int) -> Ranks:
        """The rank test."""
        subject = self.subject
        return rank_test(
            self.problem, subject.sampler, n_replicates=n_replicates, n_warmup=subject.n_warmup, seed=seed
        )

    def calibrate(self, n_replicates: int, seed: int) -> Ranks:
        """Simulation-based calibration, thinned for the slowest of the samplers."""
        return simulation_based_calibration(
            self.problem, self.subject.sampler, n_simulations=n_replicates, thin=6, seed=seed
        )

    def __str__(self) -> str:
        words = (
            self.subject.name,
            repr(self.phi),
            f"L = {self.n_hidden_layers}",
            "lazy" if self.is_lazy else "non-lazy",
            "equal layers" if self.has_equal_layers else "unequal layers",
            self.coordinates.__name__,
            "reduced" if self.is_reduced else "whole",
        )
        return ", ".join(words)


_LEVELS = (
    SUBJECTS,
    (Sigmoid(), Tanh(), ReLU(), Linear(), GELU(), LeakyReLU(0.3)),
    (1, 2),
    (False, True),
    (True, False),
    (IntegratedTarget, WeightTarget),
    (False, True),
)
"""Of each attribute of a cell."""


@cache
def all_cells() -> tuple[Cell, ...]:
    """Every combination that is possible."""
    cells = itertools.starmap(Cell, itertools.product(*_LEVELS))
    return tuple(cell for cell in cells if cell.is_possible)


@cache
def covering_cells() -> tuple[Cell, ...]:
    """A few that contain every possible pair of levels, but for sampler and nonlinearity.

    Those pairs alone would take 66 cells. They are left out on purpose: most samplers see phi through
    the density and its gradient, which are tested for every phi on their own, and moves of neurons through
    its values. ``all_cells`` has them. Each sampler takes at least two cells, as many things have two
    levels. Chosen one by one, each with the most pairs that are new.
    """
    pairs = {cell: set(_pairs(cell)) for cell in all_cells()}
    missing = set().union(*pairs.values())
    chosen = []
    while missing:
        best = max(pairs, key=lambda cell: len(pairs[cell] & missing))
        chosen.append(best)
        missing -= pairs[best]
    return tuple(chosen)


def _pairs(cell: Cell) -> Iterator[tuple[int, object, int, object]]:
    levels = astuple(cell, recurse=False)
    for i, j in itertools.combinations(range(len(levels)), 2):
        if (i, j) != (0, 1):
            yield i, levels[i], j, levels[j]
