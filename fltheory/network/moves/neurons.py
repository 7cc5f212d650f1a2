"""What a neuron of a one-layer network is: a whitened position, and features on the training inputs."""

import math
from functools import cached_property

import torch
from attrs import frozen
from torch import Tensor

from fltheory.network.target import IntegratedTarget

_ROUNDING = 1e-9


@frozen(eq=False)
class Neurons:
    """The neurons of networks with one hidden layer and the readout integrated out.

    A neuron has coordinates x ~ N(0, 1_q) under the prior, preactivations z = F x and features phi(z).

    Attributes
    ----------
    target
        The posterior.
    """

    target: IntegratedTarget

    def __attrs_post_init__(self) -> None:
        if (depth := self.target.model.n_hidden_layers) != 1:
            raise ValueError(f"target: expected a network with one hidden layer, got {depth}")

    @property
    def width(self) -> int:
        """N."""
        return self.target.model.width

    @cached_property
    def factor(self) -> Tensor:
        """F (P, q), with K_0 = F F^T."""
        model = self.target.model
        return self.target.inputs * math.sqrt(model.weight_variances[0] / model.task.n_inputs)

    @cached_property
    def are_orthogonal(self) -> bool:
        """Whether each preactivation has a coordinate of its own: F is diagonal to rounding."""
        if (f := self.factor).shape[0] != f.shape[1]:
            return False
        rest = f - torch.diag(f.diagonal())
        return bool(rest.abs().max() < _ROUNDING * f.diagonal().abs().min())

    def coordinates(self, x: Tensor) -> Tensor:
        """Of all neurons at positions (C, dimension): (C, N, q)."""
        return x.reshape(len(x), self.width, -1)

    def features(self, x: Tensor) -> Tensor:
        """phi(F x), from coordinates (..., q) to (..., P)."""
        return torch.as_tensor(self.target.model.nonlinearity(x @ self.factor.mT))
