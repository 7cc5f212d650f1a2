"""The network (1) in torch, forwards and backwards, for a batch of C chains.

Neurons come before inputs: a layer is (C, N, P), a weight matrix (C, N, N_in), as in z = W phi.
"""

import math
from collections.abc import Sequence

import torch
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


def hidden_layers(
    weights: Sequence[Tensor], inputs: Tensor, phi: Nonlinearity, sigmas: Sequence[float] | None = None
) -> Layers:
    """z^1 = W^1 x / sqrt(N0), z^l = W^l phi(z^{l-1}) / sqrt(N): the first line of (1).

    Parameters
    ----------
    weights
        W^1 ... W^L, each (C, N, N_in).
    inputs
        Shape (P, N0).
    sigmas
        Given if ``weights`` are whitened: W^l = sigma_l w^l.
    """
    preactivations, activations = [], []
    signal = inputs.mT  # (N0, P)
    for w, scale in zip(weights, _scales(weights, sigmas), strict=True):
        z = _product(w, signal, scale)
        signal = phi(z)
        preactivations.append(z)
        activations.append(signal)
    return Layers(tuple(preactivations), tuple(activations))


def backpropagate(
    weights: Sequence[Tensor],
    inputs: Tensor,
    phi: Nonlinearity,
    layers: Layers,
    slope: Tensor,
    sigmas: Sequence[float],
    gradients: Sequence[Tensor],
) -> None:
    """Add to ``gradients`` those of a function of the features, in the whitened weights w^1 ... w^L.

    From its ``slope`` in the features, shape (C, N, P), which is overwritten.
    """
    below = (inputs.mT, *layers.activations[:-1])
    scales = _scales(weights, sigmas)
    for k in reversed(range(len(weights))):
        delta = slope.mul_(phi.derivative(layers.preactivations[k]))  # (C, N, P)
        if k > 0:
            gradients[k].baddbmm_(delta, below[k].mT, alpha=scales[k])
            slope = _product(weights[k].mT, delta, scales[k])
        else:  # one matrix product for all chains
            first = delta.flatten(0, 1) @ (scales[0] * inputs)
            gradients[0] += first.reshape_as(gradients[0])


def _scales(weights: Sequence[Tensor], sigmas: Sequence[float] | None) -> list[float]:
    sigmas = [1.0] * len(weights) if sigmas is None else sigmas
    return [sigma / math.sqrt(w.shape[-1]) for w, sigma in zip(weights, sigmas, strict=True)]


def _product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """``scale`` times the product of (C, n, k) and (k, p) or (C, k, p), without a pass of its own."""
    if right.ndim == 2:
        return left @ (scale * right)
    return torch.baddbmm(left.new_zeros(()), left, right, beta=0.0, alpha=scale)


def output_scale(width: int, is_lazy: bool) -> float:
    """What the sum over neurons is multiplied by: 1/N, lazy 1/sqrt(N)."""
    return 1.0 / math.sqrt(width) if is_lazy else 1.0 / width


def outputs(readouts: Tensor, features: Tensor, is_lazy: bool) -> Tensor:
    """f = (1/N) sum_i a_i phi_i, lazy 1/sqrt(N): (C, N, m) and (C, N, P) -> (C, P, m)."""
    return output_scale(features.shape[-2], is_lazy) * (features.mT @ readouts)
