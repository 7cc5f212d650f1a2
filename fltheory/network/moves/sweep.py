"""Independence proposals for one neuron after another."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from fltheory.network.moves.gram import Exchanges, FeatureGram
from fltheory.nonlinearity import Nonlinearity
from fltheory.sampler.blocks import BlockSweep


@frozen(eq=False)
class Candidates:
    """Proposals for n neurons of C chains.

    Attributes
    ----------
    positions
        Shape (C, n, k, q).
    log_density, log_density_old
        Of the proposal, at the candidates (C, n, k) and at the neurons as they are (C, n).
    """

    positions: Tensor
    log_density: Tensor
    log_density_old: Tensor


class NeuronProposal(ABC):
    """A density for the coordinates of a neuron that may depend on the others, not on itself.

    A subclass must implement ``group_size`` and ``draw``.
    """

    @property
    @abstractmethod
    def group_size(self) -> int:
        """For how many neurons candidates are drawn at a time: 1 if the density depends on the others."""

    @abstractmethod
    def draw(
        self, gram: FeatureGram, neurons: Sequence[int], x: Tensor, k: int, generator: torch.Generator
    ) -> Candidates:
        """k candidates for each of some neurons, which are now at ``x``, shape (C, n, q)."""


class NeuronSweep(BlockSweep):
    """A pass over neurons in ``order``, from coordinates ``x`` (C, N, q) with features phi(x F^T)."""

    def __init__(
        self,
        proposal: NeuronProposal,
        features: "Features",
        gram: FeatureGram,
        x: Tensor,
        order: Sequence[int],
        n_candidates: int,
        generator: torch.Generator,
    ) -> None:
        self._proposal, self._features, self._gram = proposal, features, gram
        self._x, self._k, self._generator = x.clone(), n_candidates, generator
        self._groups = groups(order, proposal.group_size)
        self._group, self._index = -1, 0
        self._neurons: Sequence[int] = ()

    def log_weights(self, step: int) -> Tensor:
        if self._index == len(self._neurons):
            self._open()
        j = self._index
        return torch.cat([self._ratios[:, j] + self._exchanges.log_ratios(j), self._old[:, j, None]], 1)

    def _open(self) -> None:
        """Draw candidates for the next group of neurons."""
        self._group, self._index = self._group + 1, 0
        self._neurons = neurons = self._groups[self._group]
        old = self._x[:, neurons]
        self._candidates = found = self._proposal.draw(self._gram, neurons, old, self._k, self._generator)
        self._ratios = -0.5 * (found.positions**2).sum(-1) - found.log_density
        self._old = -0.5 * (old**2).sum(-1) - found.log_density_old
        self._exchanges = Exchanges(self._gram, neurons, self._features(found.positions))

    def replace(self, step: int, choice: Tensor) -> None:
        j, neuron = self._index, self._neurons[self._index]
        self._exchanges.choose(j, choice)
        moved = choice < self._k
        new = self._candidates.positions[torch.arange(len(choice)), j, choice.clamp(max=self._k - 1)]
        self._x[:, neuron] = torch.where(moved[:, None], new, self._x[:, neuron])
        self._index += 1
        if self._index == len(self._neurons):
            self._exchanges.finish()

    def position(self) -> Tensor:
        return self._x.flatten(1)


@frozen(eq=False)
class Features:
    """phi(x F^T): a neuron's features from its coordinates.

    Attributes
    ----------
    factor
        F, shape (P, q), with K_0 = F F^T.
    """

    factor: Tensor
    nonlinearity: Nonlinearity

    def __call__(self, x: Tensor) -> Tensor:
        """(..., q) -> (..., P)."""
        return torch.as_tensor(self.nonlinearity(x @ self.factor.mT))


def groups(order: Sequence[int], size: int) -> list[list[int]]:
    """``order`` cut into pieces of up to ``size`` different ones."""
    found: list[list[int]] = [[]]
    for neuron in order:
        if len(found[-1]) == size or neuron in found[-1]:
            found.append([])
        found[-1].append(neuron)
    return found
