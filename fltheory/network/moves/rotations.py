"""Rotations of pairs of strong neurons, which merge and split them: for phi with a slope at infinity."""

import math
from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from fltheory.network.moves.base import Moves
from fltheory.network.moves.gram import FeatureGram
from fltheory.network.moves.neurons import Neurons
from fltheory.network.target import IntegratedTarget
from fltheory.sampler.blocks import Blocks, BlockSweep, Memory

_PAIRS = 16  # a pass
_STRONG = 5.0  # standard deviations of the prior's |x|^2 above its mean


@frozen
class RotationMoves(Moves):
    """(x_i, x_j) -> R(theta) (x_i, x_j) for two strong neurons: those with |x|^2 far above the prior's law.

    The prior does not change under a rotation, and hardly do the outputs while both neurons are on the
    same side of phi's kink. A first neuron is drawn evenly from the strong ones, its partner in
    proportion to (x_i . x_j)^2 plus a constant; the probability p to draw this pair enters the weights,
    and is 0 where a neuron is no longer strong. The angle is uniform, so any number of candidates may be
    tried. A block is one pair, drawn anew by each chain.
    """

    def of(self, target: IntegratedTarget) -> Blocks:
        return RotationBlocks(Neurons(target))


@frozen(eq=False)
class RotationBlocks(Blocks):
    """``RotationMoves`` for the networks of one target."""

    neurons: Neurons

    @property
    def n_blocks(self) -> int:
        return _PAIRS

    def sweep(
        self, x: Tensor, order: Sequence[int], n_candidates: int, memory: Memory, generator: torch.Generator
    ) -> "RotationSweep":
        return RotationSweep(self.neurons, x, n_candidates, generator)


class RotationSweep(BlockSweep):
    """A pass over pairs of strong neurons."""

    def __init__(self, neurons: Neurons, x: Tensor, n_candidates: int, generator: torch.Generator) -> None:
        self._features, self._k, self._generator = neurons.features, n_candidates, generator
        self._x = neurons.coordinates(x).clone()
        self._gram = FeatureGram(neurons.target.readout_posterior(self._features(self._x)))
        self._chains = torch.arange(len(x), device=x.device)

    def log_weights(self, step: int) -> Tensor:
        strong = _is_strong(self._x)  # (C, N)
        pair = self._pair = self._draw_pair(strong)
        old = self._x[self._chains[:, None], pair]  # (C, 2, q)
        new = self._rotated(old)  # (C, k, 2, q)
        both = self._both = torch.cat([new, old[:, None]], 1)
        others = strong.scatter(1, pair, False)
        can_move = strong.sum(1, keepdim=True) > 1
        choice = torch.where(can_move, _log_choice(both, self._x, others), 0.0)
        ratios = self._gram.log_ratios(self._gram.of(pair), self._features(new))
        new_weights = (ratios + choice[:, :-1]).masked_fill(~can_move, -torch.inf)
        return torch.cat([new_weights, choice[:, -1:]], 1)

    def _draw_pair(self, strong: Tensor) -> Tensor:
        """Two different neurons, strong if there are two such: (C, 2)."""
        first = self._draw_one(torch.zeros_like(self._x[..., 0]), strong)
        overlaps = (self._x @ self._x[self._chains, first][..., None])[..., 0]  # (C, N)
        partners = strong.scatter(1, first[:, None], False)
        return torch.stack([first, self._draw_one(_affinity(overlaps, self._x).log(), partners)], 1)

    def _draw_one(self, log_weights: Tensor, allowed: Tensor) -> Tensor:
        """One of those allowed in proportion to exp (C, N), the largest of Gumbel's sums: (C,)."""
        exponential = torch.empty_like(log_weights).exponential_(generator=self._generator)
        return torch.where(allowed, log_weights - exponential.log(), -torch.inf).argmax(1)

    def _rotated(self, pair: Tensor) -> Tensor:
        """A pair (C, 2, q), turned by k angles: (C, k, 2, q)."""
        angle = torch.empty((len(pair), self._k), dtype=pair.dtype, device=pair.device)
        angle.uniform_(0.0, 2.0 * math.pi, generator=self._generator)
        cos, sin = angle.cos(), angle.sin()
        rotation = torch.stack([cos, -sin, sin, cos], -1).reshape(len(pair), -1, 2, 2)
        return rotation @ pair[:, None]

    def replace(self, step: int, choice: Tensor) -> None:
        new = self._both[self._chains, choice]
        self._x[self._chains[:, None], self._pair] = new
        if bool((choice < self._k).any()):
            self._gram.exchange(self._pair, self._features(new))

    def position(self) -> Tensor:
        return self._x.flatten(1)


def _log_choice(pairs: Tensor, x: Tensor, others: Tensor) -> Tensor:
    """log p of pairs (C, k, 2, q) among the ``others`` (C, N) that are strong, at x (C, N, q), (C, k).

    Without the factor 1 / (number of strong neurons), which is the same wherever p is not 0.
    """
    mutual = _affinity((pairs[:, :, 0] * pairs[:, :, 1]).sum(-1), x)  # (C, k)
    overlaps = pairs.flatten(1, 2) @ x.mT  # (C, 2 k, N)
    total = (_affinity(overlaps, x) * others[:, None]).sum(-1).reshape(pairs.shape[:3])  # (C, k, 2)
    log_p = (mutual[..., None] / (total + mutual[..., None])).sum(-1).log()
    return log_p.masked_fill(~_is_strong(pairs).all(-1), -torch.inf)


def _affinity(overlaps: Tensor, x: Tensor) -> Tensor:
    """How strongly a neuron wants another as its partner, from x_i . x_j of any shape."""
    return overlaps**2 + _threshold(x) ** 2


def _is_strong(x: Tensor) -> Tensor:
    """Whether |x|^2 is far above its prior law, for coordinates (..., q): (...)."""
    return (x**2).sum(-1) > _threshold(x)


def _threshold(x: Tensor) -> float:
    """Of |x|^2, for coordinates (..., q)."""
    q = x.shape[-1]
    return q + _STRONG * math.sqrt(2.0 * q)
