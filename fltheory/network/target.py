"""The posterior (2) of a network as targets for a sampler, in two choices of coordinates.

Positions are whitened weights x = w / sigma, so that the prior is N(0, 1) in every coordinate.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from attrs import evolve, field, frozen
from torch import Tensor

from fltheory.model import Model
from fltheory.network.forward import Layers, backpropagate, hidden_layers, output_scale, outputs
from fltheory.network.readout import ReadoutPosterior, per_chain
from fltheory.network.reduction import weight_shapes
from fltheory.numerics.validation import Array
from fltheory.sampler.base import Target, standard_normal
from fltheory.sampler.blocks import Blocks

if TYPE_CHECKING:
    from fltheory.network.moves.base import Moves


@frozen(eq=False)
class NetworkTarget(Target):
    """What both coordinates share. A subclass says how the likelihood depends on features and readouts.

    Attributes
    ----------
    model
        The network and its task.
    temperature
        T, that of the model unless given (annealing), or one a chain, shape (C,); infinity is the prior.
    targets
        Y, shape (P, m), or (C, P, m) for one set of targets a chain; those of the task unless given.
    device, dtype
        Where and how precisely to compute.
    softest
        T of its softest version, for tempering; where the data hardly matter unless given.
    moves
        Proposals for single neurons, where the readout is integrated out; None: none are known.
    """

    model: Model
    temperature: float | Tensor = field()
    targets: Array = field()
    device: str = "cpu"
    dtype: torch.dtype = torch.float64
    softest: float | None = None
    moves: "Moves | None" = None

    @temperature.default
    def _model_temperature(self) -> float:
        return self.model.temperature

    @targets.default
    def _task_targets(self) -> Array:
        return self.model.task.targets

    @property
    @abstractmethod
    def _n_readouts(self) -> int:
        """How many readouts a neuron has among the coordinates: m or 0."""

    @abstractmethod
    def _likelihood(self, features: Tensor, readouts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The log likelihood (C,) and its gradients in features and readouts.

        From features (C, N, P) and the readouts among the coordinates (C, N, m or 0).
        """

    @abstractmethod
    def _log_likelihood(self, features: Tensor, readouts: Tensor) -> Tensor:
        """The first of ``_likelihood`` alone."""

    @abstractmethod
    def draw_readouts(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Readouts of the networks at positions ``x``, shape (C, N, m)."""

    @property
    def gaussian_factor(self) -> float:
        """1: the prior of whitened weights."""
        return 1.0

    def at(self, temperature: float | Tensor) -> Self:
        """The same posterior at another temperature."""
        return evolve(self, temperature=temperature)

    def softened(self, level: Tensor) -> "NetworkTarget":
        """At temperatures up to ``softest``, evenly spaced in the third root.

        Where chains have their own targets, the levels are those of all chains, several times over.
        """
        temperature = float(self.temperature)
        repeats = len(level) // len(self.targets) if self.targets.ndim == 3 else 1
        targets = np.tile(self.targets, (repeats, 1, 1)) if repeats > 1 else self.targets
        if math.isinf(temperature):  # nothing is softer than the prior
            return evolve(self, targets=targets)
        cold, soft = temperature ** (1 / 3), max(temperature, self._softest) ** (1 / 3)
        return evolve(self, temperature=(cold + level * (soft - cold)) ** 3, targets=targets)

    def tensor(self, values: Array) -> Tensor:
        """A copy on this target's device, in its precision."""
        return torch.tensor(values, dtype=self.dtype, device=self.device)

    @cached_property
    def inputs(self) -> Tensor:
        """X, shape (P, N0)."""
        return self.tensor(self.model.task.inputs)

    @cached_property
    def _y(self) -> Tensor:
        return self.tensor(self.targets)

    @property
    def _shapes(self) -> tuple[tuple[int, int], ...]:
        """Shapes of the coordinates."""
        return *weight_shapes(self.model)[:-1], (self.model.width, self._n_readouts)

    @property
    def _sigmas(self) -> tuple[float, ...]:
        variances = (*self.model.weight_variances, self.model.readout_variance)
        return tuple(math.sqrt(variance) for variance in variances)

    @property
    def dimension(self) -> int:
        """The number of weights among the coordinates."""
        return sum(rows * columns for rows, columns in self._shapes)

    def weights(self, x: Tensor) -> tuple[Tensor, ...]:
        """W^1 ... W^L, each (C, N, N_in), and the readouts among the coordinates, (C, N, m or 0)."""
        parts = zip(self._whitened(x), self._sigmas, strict=True)
        return tuple(sigma * part for part, sigma in parts)

    def _whitened(self, x: Tensor) -> list[Tensor]:
        """The same, whitened: views of ``x``."""
        sizes = [rows * columns for rows, columns in self._shapes]
        parts = zip(torch.split(x, sizes, dim=1), self._shapes, strict=True)
        return [part.reshape(len(x), *shape) for part, shape in parts]

    def position(self, weights: Sequence[Tensor], readouts: Tensor) -> Tensor:
        """The position (C, dimension) of a network with these W^l and readouts: ``weights`` inverted."""
        parts = zip((*weights, readouts[..., : self._n_readouts]), self._sigmas, strict=True)
        return torch.cat([part.flatten(1) / sigma for part, sigma in parts], dim=1)

    def layers(self, x: Tensor) -> Layers:
        """The hidden layers of the networks at positions ``x`` on the training inputs."""
        whitened, phi = self._whitened(x)[:-1], self.model.nonlinearity
        return hidden_layers(whitened, self.inputs, phi, self._sigmas[:-1])

    def log_density(self, x: Tensor) -> Tensor:
        readouts = self._sigmas[-1] * self._whitened(x)[-1]
        value = self._log_likelihood(self.layers(x).features, readouts)
        return value - 0.5 * _square(x)

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        layers = self.layers(x)
        *whitened, readouts = self._whitened(x)
        value, slope, readout_slope = self._likelihood(layers.features, self._sigmas[-1] * readouts)
        gradient = -x
        *hidden, last = self._whitened(gradient)  # filled in place
        last += self._sigmas[-1] * readout_slope
        phi, sigmas = self.model.nonlinearity, self._sigmas[:-1]
        backpropagate(whitened, self.inputs, phi, layers, slope, sigmas, hidden)
        return value - 0.5 * _square(x), gradient

    @cached_property
    def _softest(self) -> float:
        if self.softest is not None:
            return self.softest
        n_chains = len(self.targets) if self.targets.ndim == 3 else 4
        some = torch.empty(n_chains, self.dimension, dtype=self.dtype, device=self.device)
        return self.hot_temperature(standard_normal(some, torch.Generator(self.device).manual_seed(0)))

    def hot_temperature(self, x: Tensor) -> float:
        """T at which the data hardly matter to the networks at positions ``x``, shape (C, dimension).

        There t = Y / (N T), and the tilt of a neuron, sigma_a^2 |t^T phi|^2 / 2 in (4), is 1/8 on average.
        """
        hot = evolve(self, temperature=1.0).readout_posterior(self.layers(x).features)
        tilt = hot.kernel_scale / 2 * ((hot.features @ hot.targets) ** 2).sum(-1)  # (C, N)
        return math.sqrt(8.0 * float(tilt.mean(1).max()))

    def readout_posterior(self, features: Tensor) -> ReadoutPosterior:
        """The law of the readouts given features (C, N, P)."""
        model = self.model
        targets = self._y.expand(len(features), *self._y.shape[-2:])
        scale = output_scale(model.width, model.is_lazy)
        return ReadoutPosterior(features, targets, self.temperature, model.readout_variance, scale)


@frozen(eq=False)
class WeightTarget(NetworkTarget):
    """All weights as coordinates, readouts included; T > 0."""

    @property
    def _n_readouts(self) -> int:
        return self.model.task.n_outputs

    def _likelihood(self, features: Tensor, readouts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        residual = self._residual(features, readouts)
        error = output_scale(self.model.width, self.model.is_lazy) / per_chain(self.temperature) * residual
        return self._misfit(residual), readouts @ error.mT, features @ error

    def _log_likelihood(self, features: Tensor, readouts: Tensor) -> Tensor:
        return self._misfit(self._residual(features, readouts))

    def _residual(self, features: Tensor, readouts: Tensor) -> Tensor:
        return self._y - outputs(readouts, features, self.model.is_lazy)  # (C, P, m)

    def _misfit(self, residual: Tensor) -> Tensor:
        return -0.5 * (residual**2 / per_chain(self.temperature)).sum((-2, -1))

    def draw_readouts(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.weights(x)[-1]


@frozen(eq=False)
class IntegratedTarget(NetworkTarget):
    """Hidden weights as coordinates, the readout integrated out: smooth and exact at T = 0 if N >= P."""

    @cached_property
    def blocks(self) -> Blocks | None:
        return None if self.moves is None else self.moves.of(self)

    @property
    def _n_readouts(self) -> int:
        return 0

    def _likelihood(self, features: Tensor, readouts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        posterior = self.readout_posterior(features)
        return posterior.log_evidence, posterior.evidence_slope, readouts

    def _log_likelihood(self, features: Tensor, readouts: Tensor) -> Tensor:
        return self.readout_posterior(features).log_evidence

    def draw_readouts(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.readout_posterior(self.layers(x).features).draw(generator)


def _square(x: Tensor) -> Tensor:
    """|x|^2 of each row, in one pass."""
    square: Tensor = torch.linalg.vecdot(x, x)
    return square
