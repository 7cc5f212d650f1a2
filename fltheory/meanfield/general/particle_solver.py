"""Hidden layers on any input kernel by weighted particles: docs/theory.md section 5.8.

The search for K_1 runs on frozen particles of all layers, on which everything is a smooth function of Kt,
K_1 and t; then the particles move on. A solution is one that the next particles confirm.
"""

from typing import Any

import numpy as np
from attrs import evolve

from fltheory.errors import ConvergenceError
from fltheory.meanfield.general.moving import ParticlesAbove
from fltheory.meanfield.general.posterior import GeneralDeepPosterior
from fltheory.meanfield.general.sampled_readout import ReadoutParticles
from fltheory.meanfield.general.search import LayerPair
from fltheory.meanfield.general.stack import Stack, StackParticles
from fltheory.meanfield.settings import Settings
from fltheory.meanfield.solution import Agreement, MeanFieldSolution
from fltheory.model import Model

_N_HIDDEN, _N_READOUT = 4000, 1000  # particles of each layer that move (the last's are doubled on the way)
_N_COLLECTED = 16  # rounds that make a sample at the end
_UNRESOLVED = 0.05  # relative standard error of t from which particles do not know it


def solve_deep_particles(model: Model, settings: Settings) -> MeanFieldSolution:
    """By weighted particles of all layers: slow, of limited accuracy, and complete.

    A first run finds the solution; two others, which go there on the shortest way, tell its error.

    Raises
    ------
    ConvergenceError
        If particles do not settle, or do not know the solution.
    """
    seeds = np.random.SeedSequence(settings.seed).spawn(3)
    scout, *runs = (_particles(model, settings, seed) for seed in seeds)
    kernel, start = model.input_kernel, _start(model, settings)
    try:
        found = scout.settled(scout.begin(kernel, start))
        one, other = (run.move(run.begin(kernel, found.pair), _N_COLLECTED) for run in runs)
        both = runs[0].together(one, other)
    except ConvergenceError as error:
        latest = next((run.latest for run in (*runs, scout) if run.latest is not None), None)
        raise ConvergenceError(str(error), None if latest is None else _solution(model, latest)) from error
    depth = model.n_hidden_layers
    kernels = [
        (one.posterior.kernel_parts(k).total, other.posterior.kernel_parts(k).total)
        for k in range(1, depth + 1)
    ]
    solution = evolve(
        _solution(model, both),
        n_iterations=len(scout.path) + sum(len(run.path) for run in runs),
        agreement=Agreement.between("two runs of particles", (one.field, other.field), kernels),
        action_path=(*scout.path, *runs[0].path),
    )
    assert solution.agreement is not None
    if 0.5 * solution.agreement.dual_field > _UNRESOLVED:
        raise ConvergenceError(
            f"the theory is not resolved: {solution.agreement}; try a higher temperature", last=solution
        )
    return solution


def _start(model: Model, settings: Settings) -> LayerPair | None:
    """The layers of a given solution of this kind."""
    start = settings.start
    if start is None or start.model.n_hidden_layers != model.n_hidden_layers:
        return None
    return start.neuron.pair if isinstance(start.neuron, GeneralDeepPosterior) else None


def _particles(model: Model, settings: Settings, seed: np.random.SeedSequence) -> StackParticles:
    """Of all layers, none of them drawn yet."""
    *hidden, last = seed.spawn(model.n_hidden_layers)
    above: ParticlesAbove[Any] = ReadoutParticles(model, _N_READOUT, settings, last)
    for index in range(len(hidden), 0, -1):
        above = StackParticles(model, index, above, _N_HIDDEN, settings, hidden[index - 1])
    assert isinstance(above, StackParticles)
    return above


def _solution(model: Model, layers: Stack) -> MeanFieldSolution:
    """What there is, found or not."""
    return MeanFieldSolution(model, layers.posterior, -layers.action, layers.residual, None, 0, "particles")
