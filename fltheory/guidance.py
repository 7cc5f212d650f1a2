"""What the theory tells the sampler: moves for single neurons, and which sampler to choose."""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from fltheory.errors import ConvergenceError
from fltheory.meanfield.mixture import preactivation_mixture
from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.model import Model

if TYPE_CHECKING:  # torch is imported only where a network is sampled
    from fltheory.network.moves.base import Advice
    from fltheory.network.reduction import Reduction
    from fltheory.sampler.base import Sampler

# Stiffness up to which a neuron changes its code easily, and from which it hardly does so by itself: with
# moves conditioned on the other neurons, which are known for orthogonal inputs, and without.
_WITH_CONDITION, _WITHOUT = (10.0, 30.0), (3.0, 6.0)
_WARM = 0.02  # N T of a theory that suggests moves where there is none at T
_N_LEVELS = 14
_UPDATED = 0.25  # of the neurons for which a step proposes a move, half of them before the trajectory
_ROTATED = 6  # pairs of strong neurons tried before a trajectory, and after it
_N_NETWORKS = 2  # drawn from the theory to find how stiff they are


def has_frozen_codes(model: Model) -> bool:
    """Whether neurons settle on codes, or condense, for which moves are known: one nonlinear layer."""
    is_learned = not model.is_lazy and math.isfinite(model.temperature)
    return is_learned and model.n_hidden_layers == 1 and not model.nonlinearity.is_linear


def guide(
    model: Model,
    sampler: "Sampler | None",
    solve: Callable[[float], MeanFieldSolution],
    reduction: "Reduction",
) -> "Advice":
    """The sampler, chosen if there is none, and the moves that it asks for.

    Parameters
    ----------
    solve
        From a temperature to the theory there.
    reduction
        The network as the chains know it: what it is decides which moves there are.

    Raises
    ------
    ConvergenceError, ValueError
        If a given sampler asks for moves that the theory cannot suggest.
    """
    from fltheory.network.moves.base import Advice
    from fltheory.network.moves.rotations import RotationMoves
    from fltheory.sampler.alternate import Alternate
    from fltheory.sampler.blocks import BlockIndependence
    from fltheory.sampler.hmc import HMC

    if not has_frozen_codes(model) or not (sampler is None or sampler.uses_blocks):
        return Advice(HMC() if sampler is None else sampler)
    if not model.nonlinearity.is_bounded:
        return Advice(sampler or Alternate(BlockIndependence(4, _ROTATED), HMC()), RotationMoves())
    try:
        theory = _first(solve, (model.temperature, _WARM / model.width))
    except (ConvergenceError, ValueError):
        if sampler is not None:
            raise
        return Advice(HMC())
    return _with_codes(sampler, theory, reduction)


def _first(solve: Callable[[float], MeanFieldSolution], temperatures: Iterable[float]) -> MeanFieldSolution:
    """The theory at the first of these temperatures at which there is one."""
    *others, last = temperatures
    for temperature in others:
        try:
            return solve(temperature)
        except (ConvergenceError, ValueError):
            continue
    return solve(last)


def _with_codes(sampler: "Sampler | None", theory: MeanFieldSolution, reduction: "Reduction") -> "Advice":
    """For bounded phi: code moves, and tempering where these alone are of no use."""
    from fltheory.network.moves.base import Advice
    from fltheory.network.moves.codes import CONDITIONED, CodeMoves
    from fltheory.network.moves.neurons import Neurons
    from fltheory.network.moves.stiffness import stiffness, temperature_of
    from fltheory.network.target import IntegratedTarget
    from fltheory.sampler.alternate import Alternate
    from fltheory.sampler.blocks import BlockIndependence
    from fltheory.sampler.hmc import HMC
    from fltheory.sampler.tempering import Tempering

    mixture = preactivation_mixture(theory)
    moves = CodeMoves(mixture.weights, mixture.means, mixture.covariances, mixture.groups, mixture.threshold)
    model = reduction.model
    target = IntegratedTarget(model)
    drawn = [theory.neurons(model.width, 1, seed=k).preactivations for k in range(_N_NETWORKS)]
    z = np.stack(drawn)
    phi = target.tensor(np.asarray(model.nonlinearity(z)))
    found = stiffness(target.readout_posterior(phi))
    soft, stiff = _WITH_CONDITION if Neurons(target).are_orthogonal else _WITHOUT
    softest = temperature_of(target, z, soft) if found > soft else None
    if sampler is None:
        # Conditioned moves cost as much for several candidates as for one.
        n_candidates = 4 if found > CONDITIONED else 1
        n_updates = max(2, round(_UPDATED / 2 * model.width))
        sampler = Alternate(BlockIndependence(n_candidates, n_updates), HMC())
        sampler = Tempering(sampler, n_levels=_N_LEVELS) if found > stiff else sampler
    return Advice(sampler, moves, softest)
