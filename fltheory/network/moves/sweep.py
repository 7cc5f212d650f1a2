"""Independence proposals for one neuron after another."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

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
        j = self._index
        return torch.cat([self._new[:, j] + self._exchanges.log_ratios(j), self._old[:, j, None]], 1)

    def _open(self) -> None:
        """Draw candidates for the next group of neurons."""
        self._group, self._index = next(self._groups), 0
        old = self._x[:, self._group]
        found = self._proposal.draw(self._gram, self._group, old, self._k, self._generator)
        self._candidates = found.positions
        self._new = -0.5 * (found.positions**2).sum(-1) - found.log_density
        self._old = -0.5 * (old**2).sum(-1) - found.log_density_old
        self._exchanges = self._gram.exchanges(self._group, self._features(found.positions))

    def replace(self, step: int, choice: Tensor) -> None:
        j, neuron = self._index, self._group[self._index]
        self._exchanges.choose(j, choice)
        old = self._x[:, neuron, None]
        both = torch.cat([self._candidates[:, j], old], 1)  # (C, k + 1, q)
        self._x[:, neuron] = both[torch.arange(len(choice), device=choice.device), choice]
        self._index += 1
        if self._index == len(self._group):
            self._exchanges.finish()

    def position(self) -> Tensor:
        return self._x.flatten(1)


def groups(order: Sequence[int], size: int) -> list[list[int]]:
    """``order`` cut into pieces of up to ``size`` different ones."""
    found: list[list[int]] = [[]]
    for neuron in order:
        if len(found[-1]) == size or neuron in found[-1]:
            found.append([])
        found[-1].append(neuron)
    return found
