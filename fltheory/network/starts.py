"""Where chains start, other than from the prior: earlier samples, or neurons that somebody drew."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from fltheory.model import Model
from fltheory.network.reduction import Reduction
from fltheory.network.samples import PosteriorSamples
from fltheory.network.target import NetworkTarget
from fltheory.numerics.validation import (
    Array,
    check_choice,
    check_instance,
    check_sequence,
    describe,
    fingerprint,
)
from fltheory.representation import Neurons

Network = Neurons | Sequence[Neurons]  # of its hidden layer, or of each
Start = str | PosteriorSamples | Sequence[Network]


def positions(
    target: NetworkTarget, reduction: Reduction, start: object, n_chains: int, seed: int
) -> int | Tensor:
    """The number of chains to start from the prior, or the positions (C, dimension) to start from.

    What neurons leave open of the weights is drawn from the prior, with this ``seed``.

    Raises
    ------
    TypeError, ValueError
        If ``start`` is no ``Start``, or of networks of other shapes.
    """
    if isinstance(start, str):
        check_choice("start", start, ("prior",))
        return n_chains
    if isinstance(start, PosteriorSamples):
        weights, readouts = start.last_networks()
        _check_shapes(reduction, (*weights, readouts), n_chains)
        weights = (reduction.reduce(weights[0]), *weights[1:])
    elif isinstance(start, Sequence):
        networks = _check_networks(reduction.model, start, n_chains)
        weights, readouts = _of_neurons(reduction.model, networks, np.random.default_rng(seed))
    else:
        raise TypeError(f"start: expected 'prior', earlier samples or neurons, got {describe(start)}")
    return target.position([target.tensor(w) for w in weights], target.tensor(readouts))


def in_words(start: Start) -> str:
    """A start that was checked: two of them are told apart by it."""
    if isinstance(start, str):
        return start
    if isinstance(start, PosteriorSamples):
        return fingerprint(start.draws.statistics.log_density, start.seeds)
    layers = [layer for entry in start for layer in ([entry] if isinstance(entry, Neurons) else entry)]
    return fingerprint(*(array for layer in layers for array in (layer.preactivations, layer.readouts)))


def _check_shapes(reduction: Reduction, arrays: Sequence[Array], n_chains: int) -> None:
    wanted = [(n_chains, *shape) for shape in reduction.whole_shapes]
    if [array.shape for array in arrays] != wanted:
        raise ValueError(
            f"start: expected samples of {n_chains} chains with weights and readouts of shapes "
            f"{wanted}, got {[array.shape for array in arrays]}"
        )


def _check_networks(model: Model, start: Sequence[object], n_chains: int) -> list[list[Neurons]]:
    """One sequence of L layers a chain."""
    networks = [
        check_sequence(
            f"start[{c}]", [entry] if isinstance(entry, Neurons) else entry, check_instance, kind=Neurons
        )
        for c, entry in enumerate(start)
    ]
    shapes = [[layer.preactivations.shape for layer in network] for network in networks]
    shape = (model.width, model.task.n_samples)
    wanted = [[shape] * model.n_hidden_layers] * n_chains
    if shapes != wanted:
        raise ValueError(
            f"start: expected {n_chains} networks, each of {model.n_hidden_layers} layers of preactivations "
            f"{shape}, got {shapes}"
        )
    if model.n_hidden_layers > 1 and model.task.n_samples > model.width:
        raise ValueError(
            f"start: expected at most as many inputs as neurons, so that weights between hidden layers give "
            f"any preactivations, got {model.task.n_samples} inputs and width {model.width}"
        )
    return [list(network) for network in networks]


def _of_neurons(
    model: Model, networks: Sequence[Sequence[Neurons]], rng: np.random.Generator
) -> tuple[tuple[Array, ...], Array]:
    """Weights that give the preactivations of each layer, first those (C, N, q), and readouts."""
    layers = list(zip(*networks, strict=True))
    z = [np.stack([neurons.preactivations for neurons in layer]) for layer in layers]  # (C, N, P) each
    first = math.sqrt(model.task.n_inputs) * z[0] @ np.linalg.pinv(model.task.inputs).T
    deeper = [
        _weights_between(np.asarray(model.nonlinearity(below)), above, variance, rng)
        for below, above, variance in zip(z[:-1], z[1:], model.weight_variances[1:], strict=True)
    ]
    none = np.zeros((model.width, model.task.n_outputs))
    readouts = [none if neurons.readouts is None else neurons.readouts for neurons in layers[-1]]
    return (first, *deeper), np.stack(readouts)


def _weights_between(below: Array, above: Array, variance: float, rng: np.random.Generator) -> Array:
    """W (C, N, N) from its prior, given W phi / sqrt(N) = z: phi ``below`` and z ``above``, (C, N, P)."""
    n = below.shape[1]
    free = math.sqrt(variance) * rng.standard_normal((len(below), n, n))
    return np.asarray(free + (math.sqrt(n) * above - free @ below) @ np.linalg.pinv(below))
