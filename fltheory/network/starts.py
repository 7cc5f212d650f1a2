"""Where chains start, other than from the prior: earlier samples, or neurons that somebody drew."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from fltheory.network.reduction import Reduction
from fltheory.network.samples import PosteriorSamples
from fltheory.network.target import NetworkTarget
from fltheory.numerics.validation import Array, check_choice, check_instance, check_sequence, describe
from fltheory.representation import Neurons

Start = str | PosteriorSamples | Sequence[Neurons]


def positions(target: NetworkTarget, reduction: Reduction, start: object, n_chains: int) -> int | Tensor:
    """The number of chains to start from the prior, or the positions (C, dimension) to start from.

    Raises
    ------
    TypeError, ValueError
        If ``start`` is no ``Start``, or of networks of other shapes.
    """
    if isinstance(start, str):
        check_choice("start", start, ("prior",))
        return n_chains
    if isinstance(start, PosteriorSamples):
        weights, readouts = start.weights_of(start.n_draws - 1), start.readouts[:, -1]
        _check_shapes(reduction, (*weights, readouts), n_chains)
        weights = (reduction.reduce(weights[0]), *weights[1:])
    elif isinstance(start, Sequence):
        weights, readouts = _of_neurons(reduction, start, n_chains)
    else:
        raise TypeError(f"start: expected 'prior', earlier samples or neurons, got {describe(start)}")
    return target.position([target.tensor(w) for w in weights], target.tensor(readouts))


def _check_shapes(reduction: Reduction, arrays: Sequence[Array], n_chains: int) -> None:
    wanted = [(n_chains, *shape) for shape in reduction.whole_shapes]
    if [array.shape for array in arrays] != wanted:
        raise ValueError(
            f"start: expected samples of {n_chains} chains with weights and readouts of shapes "
            f"{wanted}, got {[array.shape for array in arrays]}"
        )


def _of_neurons(
    reduction: Reduction, start: Sequence[object], n_chains: int
) -> tuple[tuple[Array, ...], Array]:
    """First-layer weights (C, N, q) that give the preactivations of each network, and its readouts."""
    model = reduction.model
    if model.n_hidden_layers != 1:
        raise ValueError(
            f"start: expected neurons for one hidden layer, got them for {model.n_hidden_layers}"
        )
    networks = check_sequence("start", start, check_instance, kind=Neurons)
    shape = (model.width, model.task.n_samples)
    if len(networks) != n_chains or any(network.preactivations.shape != shape for network in networks):
        shapes = [network.preactivations.shape for network in networks]
        raise ValueError(f"start: expected {n_chains} networks of preactivations {shape}, got {shapes}")
    z = np.stack([network.preactivations for network in networks])  # (C, N, P)
    weights = math.sqrt(model.task.n_inputs) * z @ np.linalg.pinv(model.task.inputs).T
    none = np.zeros((model.width, model.task.n_outputs))
    readouts = [none if network.readouts is None else network.readouts for network in networks]
    return (weights,), np.stack(readouts)
