"""The network (1) in torch, forwards and backwards, for a batch of C chains.

Neurons come before inputs: a layer is (C, N, P), a weight matrix (C, N, N_in), as in z = W phi.
"""

import math
from collections.abc import Sequence

from attrs import frozen
from torch import Tensor

from fltheory.nonlinearity import Nonlinearity


@frozen(eq=False)
class Layers:
    """All hidden layers on P inputs.

    Attributes
    ----------
    preactivations, activations
        z^l and phi(z^l), l = 1 ... L, each (C, N, P).
    """

    preactivations: tuple[Tensor, ...]
    activations: tuple[Tensor, ...]

    @property
    def features(self) -> Tensor:
        """phi(z^L), shape (C, N, P)."""
        return self.activations[-1]


def hidden_layers(weights: Sequence[Tensor], inputs: Tensor, phi: Nonlinearity) -> Layers:
    """z^1 = W^1 x / sqrt(N0), z^l = W^l phi(z^{l-1}) / sqrt(N): the first line of (1).

    Parameters
    ----------
    weights
        W^1 ... W^L, each (C, N, N_in).
    inputs
        Shape (P, N0).
    """
    preactivations, activations = [], []
    signal = inputs.mT  # (N0, P)
    for w in weights:
        z = w @ (signal / math.sqrt(w.shape[-1]))
        signal = phi(z)
        preactivations.append(z)
        activations.append(signal)
    return Layers(tuple(preactivations), tuple(activations))


def backpropagate(
    weights: Sequence[Tensor], inputs: Tensor, phi: Nonlinearity, layers: Layers, slope: Tensor
) -> tuple[Tensor, ...]:
    """The gradients in W^1 ... W^L of a function of the features, from its ``slope`` there (C, N, P)."""
    below = (inputs.mT, *layers.activations[:-1])
    gradients = []
    for w, z, signal in zip(weights[::-1], layers.preactivations[::-1], below[::-1], strict=True):
        delta = slope * phi.derivative(z)  # (C, N, P)
        scale = 1.0 / math.sqrt(w.shape[-1])
        gradients.append(delta @ (scale * signal.mT))
        if signal is not below[0]:
            slope = w.mT @ (scale * delta)
    return tuple(gradients[::-1])


def output_scale(width: int, is_lazy: bool) -> float:
    """What the sum over neurons is multiplied by: 1/N, lazy 1/sqrt(N)."""
    return 1.0 / math.sqrt(width) if is_lazy else 1.0 / width


def outputs(readouts: Tensor, features: Tensor, is_lazy: bool) -> Tensor:
    """f = (1/N) sum_i a_i phi_i, lazy 1/sqrt(N): (C, N, m) and (C, N, P) -> (C, P, m)."""
    return output_scale(features.shape[-2], is_lazy) * (features.mT @ readouts)
