"""Independence proposals for one block of coordinates after another, as the target suggests them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from attrs import field, frozen
from torch import Tensor

from fltheory.numerics.validation import check_integer, checked, optional
from fltheory.sampler.base import Info, Sampler, State, Target

Memory = Mapping[str, Tensor]


class BlockSweep(ABC):
    """One pass over some blocks of C chains: it follows what was accepted.

    A subclass must implement all three methods. ``BlockIndependence`` calls ``log_weights`` and
    ``replace`` for step 0, 1, ... in turn, then ``position`` once.
    """

    @abstractmethod
    def log_weights(self, step: int) -> Tensor:
        """log of pi / q for k candidates and, last, for the block as it is: shape (C, k + 1).

        pi is the density of the block given the others, q that of the proposal, both up to one
        constant. An auxiliary variable of the block as it is may be drawn here, if it is drawn from
        its exact law given the block.
        """

    @abstractmethod
    def replace(self, step: int, choice: Tensor) -> None:
        """Put candidate ``choice`` (C,), from 0 to k, in the place of the block: k leaves it as it is."""

    @abstractmethod
    def position(self) -> Tensor:
        """Where the chains are now, shape (C, dimension)."""


class Blocks(ABC):
    """What a target knows of its blocks of coordinates.

    A subclass must implement ``n_blocks`` and ``sweep``. It may implement ``memory``, ``learn`` and
    ``settle``: proposals that adapt in warm-up keep what they learned in the memory of the state.
    """

    @property
    @abstractmethod
    def n_blocks(self) -> int:
        """The number of blocks."""

    @abstractmethod
    def sweep(
        self,
        x: Tensor,
        order: Sequence[int],
        n_candidates: int,
        memory: Memory,
        generator: torch.Generator,
    ) -> BlockSweep:
        """A pass over the blocks in ``order`` from positions ``x``, shape (C, dimension)."""

    def memory(self) -> Memory:
        """What is remembered at the start."""
        return {}

    def learn(self, memory: Memory, x: Tensor) -> Memory:
        """After a step of warm-up that ended at positions ``x``."""
        return memory

    def settle(self, memory: Memory) -> Memory:
        """Before the first draw."""
        return memory


_PREFIX = "blocks_"


@frozen
class BlockIndependence(Sampler):
    """Multiple-try independence Metropolis updates of blocks, proposed by the target (Liu 2001, 5.5).

    For each block k candidates are drawn, one is chosen in proportion to its weight w = pi / q and
    accepted with min(1, W / (W - w + w_old)), W the sum over the candidates. The blocks of a step are
    drawn anew, then visited in this order and back again, so that a step is reversible.

    Parameters
    ----------
    n_candidates
        k.
    n_updates
        Updates a step, rounded up to an even number; None: as many as there are blocks.

    Raises
    ------
    ValueError
        By ``init``, if the target knows no blocks.
    """

    n_candidates: int = field(default=1, converter=checked(check_integer))
    n_updates: int | None = field(default=None, converter=checked(optional(check_integer)))

    def init(self, target: Target, x: Tensor, generator: torch.Generator) -> State:
        memory = _blocks(target).memory()
        return State.at(target, x, **{_PREFIX + name: value for name, value in memory.items()})

    @property
    def uses_blocks(self) -> bool:
        return True

    def step(self, target: Target, state: State, generator: torch.Generator) -> tuple[State, Info]:
        blocks = _blocks(target)
        order = self._draw_order(blocks.n_blocks, generator)
        sweep = blocks.sweep(state.position, order, self.n_candidates, _recalled(state), generator)
        total = torch.zeros_like(state.log_density)
        accepted = torch.zeros_like(state.log_density, dtype=torch.bool)
        for step in range(len(order)):
            choice, probability = choose(sweep.log_weights(step), generator)
            sweep.replace(step, choice)
            total += probability
            accepted |= choice < self.n_candidates
        x = sweep.position()
        value, gradient = target.value_and_gradient(x)
        nothing = torch.zeros_like(accepted)
        one = torch.ones_like(value, dtype=torch.int64)
        none = torch.full_like(value, torch.nan)
        info = Info(total / len(order), accepted, nothing, -state.log_density, one, none)
        return State(x, value, gradient, state.memory), info

    def adapt(self, target: Target, state: State, info: Info, iteration: int) -> State:
        learned = _blocks(target).learn(_recalled(state), state.position)
        return state.remembering(**{_PREFIX + name: value for name, value in learned.items()})

    def settle(self, target: Target, state: State) -> State:
        learned = _blocks(target).settle(_recalled(state))
        return state.remembering(**{_PREFIX + name: value for name, value in learned.items()})

    def _draw_order(self, n_blocks: int, generator: torch.Generator) -> list[int]:
        n_there = min(n_blocks, -(-(n_blocks if self.n_updates is None else self.n_updates) // 2))
        there = torch.randperm(n_blocks, generator=generator, device=generator.device)[:n_there].tolist()
        return there + there[::-1]


def choose(log_weights: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The multiple-try rule: which candidate (the last entry: none), and its acceptance probability.

    Parameters
    ----------
    log_weights
        Of k candidates and, last, the present state, shape (C, k + 1); NaN counts as impossible.

    Returns
    -------
    tuple
        Indices (C,) and probabilities (C,).
    """
    new, old = log_weights[:, :-1].nan_to_num(nan=-torch.inf), log_weights[:, -1]
    exponential = torch.empty_like(new).exponential_(generator=generator)
    index = (new - exponential.log()).argmax(1, keepdim=True)  # Gumbel: drawn in proportion to w
    rest = torch.cat([new.scatter(1, index, -torch.inf), old[:, None]], 1).logsumexp(1)
    probability = (new.logsumexp(1) - rest).nan_to_num(nan=-torch.inf).exp().clamp(max=1.0)
    uniform = torch.rand(old.shape, generator=generator, dtype=old.dtype, device=old.device)
    stays = torch.full_like(index[:, 0], new.shape[1])
    return torch.where(uniform < probability, index[:, 0], stays), probability


def _blocks(target: Target) -> Blocks:
    if target.blocks is None:
        raise ValueError(f"target: expected one that proposes blocks, got {type(target).__name__} without")
    return target.blocks


def _recalled(state: State) -> Memory:
    return {
        name.removeprefix(_PREFIX): value for name, value in state.memory.items() if name.startswith(_PREFIX)
    }
