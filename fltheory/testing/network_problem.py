"""Networks as problems for samplers: weights from the prior, targets from the network they make.

Networks and targets are drawn by the formulas (1) and (2), written out here once more, so that a scale
that is wrong in the density, prior or likelihood, does not cancel.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

from fltheory.model import Model
from fltheory.network.reduction import Reduction
from fltheory.network.target import IntegratedTarget, NetworkTarget
from fltheory.testing.ranks import Replicates, SamplingProblem

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from fltheory.sampler.base import Target

Coordinates = Callable[..., NetworkTarget]


@frozen(eq=False)
class NetworkProblem(SamplingProblem):
    """The posterior of a small network, T > 0.

    Readouts that are no coordinates are drawn, given weights and data, wherever the chain is: ranks then
    test those draws too.

    Attributes
    ----------
    model
        The network; targets are drawn, those of its task are not used.
    coordinates
        What is sampled, made from a model and ``targets``, shape (C, P, m).
    is_reduced
        Whether the first layer is sampled along the training inputs only.
    """

    model: Model
    coordinates: Coordinates = IntegratedTarget
    is_reduced: bool = False

    def draw(self, n_chains: int, generator: "Generator") -> Replicates:
        weights, readouts = _draw_network(self.model, n_chains, generator)
        outputs = _outputs(self.model, weights, readouts, self.model.task.inputs)[1]
        y = outputs + math.sqrt(self.model.temperature) * _noise(tuple(outputs.shape), generator)
        reduction = Reduction.of(self.model) if self.is_reduced else Reduction.none(self.model)
        target = self.coordinates(reduction.model, targets=y.numpy())
        seen = [target.tensor(reduction.reduce(weights[0].numpy())), *weights[1:]]
        statistics = _statistics(reduction.model, y, seen, readouts)
        return Replicates(target, target.position(seen, readouts), statistics)

    def statistics(self, target: "Target", x: "Tensor", generator: "Generator") -> Mapping[str, "Tensor"]:
        assert isinstance(target, NetworkTarget)
        y, readouts = target.tensor(target.targets), target.draw_readouts(x, generator)
        return _statistics(target.model, y, target.weights(x)[:-1], readouts)


def _statistics(
    model: Model, y: "Tensor", weights: Sequence["Tensor"], readouts: "Tensor"
) -> dict[str, "Tensor"]:
    """Of weights (C, N, N_in), readouts (C, N, m) and targets (C, P, m)."""
    inputs = model.task.inputs
    features, f = _outputs(model, weights, readouts, inputs)
    between = np.linspace(1.5, -0.5, len(inputs)) @ inputs  # in the span: reduced networks know it too
    energies = [(w**2).sum((1, 2)) / s for w, s in zip(weights, model.weight_variances, strict=True)]
    return {
        "residual": ((y - f) ** 2).sum((1, 2)),
        "output norm": (f**2).sum((1, 2)),
        "new output": _outputs(model, weights, readouts, between[None])[1][:, 0, 0],
        "prior energy": sum(energies[1:], energies[0]),
        "readout norm": (readouts**2).sum((1, 2)),
        "kernel trace": (features**2).sum((1, 2)),
    }


def _draw_network(model: Model, n_chains: int, generator: "Generator") -> tuple[list["Tensor"], "Tensor"]:
    """W^1 ... W^L and readouts from the prior."""
    n, task = model.width, model.task
    columns = (task.n_inputs, *(n,) * (model.n_hidden_layers - 1))
    weights = [
        math.sqrt(variance) * _noise((n_chains, n, n_in), generator)
        for variance, n_in in zip(model.weight_variances, columns, strict=True)
    ]
    readouts = math.sqrt(model.readout_variance) * _noise((n_chains, n, task.n_outputs), generator)
    return weights, readouts


def _outputs(
    model: Model, weights: Sequence["Tensor"], readouts: "Tensor", inputs: object
) -> tuple["Tensor", "Tensor"]:
    """Features (C, N, n) and outputs (C, n, m) at inputs (n, N_0)."""
    import torch

    features = torch.as_tensor(np.array(inputs)).mT
    for w in weights:
        features = model.nonlinearity(w @ features / math.sqrt(w.shape[2]))
    f = features.mT @ readouts / (math.sqrt(model.width) if model.is_lazy else model.width)
    return features, f


def _noise(shape: tuple[int, ...], generator: "Generator") -> "Tensor":
    import torch

    return torch.randn(shape, generator=generator, dtype=torch.float64)
