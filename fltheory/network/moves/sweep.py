"""Independence proposals for one neuron after another."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from fltheory.network.moves.gram import FeatureGram
from fltheory.network.moves.neurons import Neurons
from fltheory.sampler.blocks import BlockSweep


@frozen(eq=False)
class Candidates:
    """Proposals for n neurons of C chains.

    Attributes
    ----------
    positions
        Shape (C, n, k, q).
    log_density, log_density_old
        Of the proposal, there (C, n, k) and at the neurons as they are (C, n), up to one constant.
    """

    positions: Tensor
    log_density: Tensor
    log_density_old: Tensor


class NeuronProposal(ABC):
    """A density for the coordinates of a neuron, which may depend on the other neurons.

    A subclass must implement ``group_size`` and ``draw``.
    """

    @property
    @abstractmethod
    def group_size(self) -> int:
        """For how many neurons to draw at a time: 1 if the density depends on the others."""

    @abstractmethod
    def draw(
        self, gram: FeatureGram, neurons: Sequence[int], x: Tensor, k: int, generator: torch.Generator
    ) -> Candidates:
        """k candidates for each of n neurons, which are now at ``x``, shape (C, n, q)."""


class NeuronSweep(BlockSweep):
    """A pass over neurons in some order, with a proposal for their coordinates."""

    def __init__(
        self,
        neurons: Neurons,
        proposal: NeuronProposal,
        x: Tensor,
        order: Sequence[int],
        n_candidates: int,
        generator: torch.Generator,
    ) -> None:
        self._features, self._proposal = neurons.features, proposal
        self._x, self._k, self._generator = neurons.coordinates(x).clone(), n_candidates, generator
        self._gram = FeatureGram(neurons.target.readout_posterior(self._features(self._x)))
        self._groups = iter(groups(order, proposal.group_size))
        self._group: Sequence[int] = ()
        self._index = 0

    def log_weights(self, step: int) -> Tensor:
        if self._index == len(self._group):
            self._open()
        weights = self._log_weights[:, self._index]
        weights[:, : self._k] += self._exchanges.log_ratios(self._index)
        return weights

    def _open(self) -> None:
        """Draw candidates for the next group of neurons."""
        self._group, self._index = next(self._groups), 0
        old = self._x[:, self._group]
        found = self._proposal.draw(self._gram, self._group, old, self._k, self._generator)
        self._candidates = found.positions
        self._both = torch.cat([found.positions, old[:, :, None]], 2)  # (C, n, k + 1, q)
        log_density = torch.cat([found.log_density, found.log_density_old[..., None]], 2)
        self._log_weights = torch.add(log_density, self._both.square().sum(-1), alpha=0.5).neg_()
        self._exchanges = self._gram.exchanges(self._group, self._features(found.positions))

    def replace(self, step: int, choice: Tensor) -> None:
        self._exchanges.choose(self._index, choice)
        self._index += 1
        if self._index == len(self._group):
            self._exchanges.finish()
            self._settle()

    def _settle(self) -> None:
        """Give the neurons of the group, as far as it is visited, the coordinates that they were given."""
        choices = self._exchanges.choices  # (C, n)
        chains, places = np.indices(choices.shape, sparse=True)
        self._x[:, self._group] = self._both[chains, places, choices]

    def position(self) -> Tensor:
        if self._group:
            self._settle()
        return self._x.flatten(1)


def groups(order: Sequence[int], size: int) -> list[list[int]]:
    """``order`` cut into pieces of up to ``size`` different ones.

    A way there and back is cut alike in both directions, so that it stays reversible where what is proposed
    depends on the group.
    """
    n_there, is_odd = divmod(len(order), 2)
    if not is_odd and list(order[n_there:]) == list(order[:n_there])[::-1]:
        there = _pieces(order[:n_there], size)
        return there + [piece[::-1] for piece in there[::-1]]
    return _pieces(order, size)


def _pieces(order: Sequence[int], size: int) -> list[list[int]]:
    found: list[list[int]] = [[]]
    for neuron in order:
        if len(found[-1]) == size or neuron in found[-1]:
            found.append([])
        found[-1].append(neuron)
    return found
