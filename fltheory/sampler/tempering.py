"""Parallel tempering: copies on easier versions of a target exchange places (Geyer 1991)."""

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from fltheory.numerics.validation import check_instance, check_integer, checked
from fltheory.sampler.base import Info, Sampler, State, Target

_INNER = "inner/"
_WARIEST = 0.5  # largest relative change of a gap between levels, divided by the root of the iteration


def _check_untempered(name: str, value: object) -> Sampler:
    sampler: Sampler = check_instance(name, value, Sampler)
    if sampler.uses_softened:
        raise ValueError(f"{name}: expected one without tempering of its own, got {sampler!r}")
    return sampler


@frozen
class Tempering(Sampler):
    """Each chain carries K copies, from the target itself (level 0) to its softest version (level 1).

    A step proposes exchanges between neighbouring levels, even pairs and odd pairs, moves all copies by
    the inner sampler, and proposes exchanges in the opposite order: it is reversible if the inner
    sampler is. What is drawn is the copy at level 0. Warm-up spaces the levels so that all neighbours
    exchange at the same rate, which ``Info.parts`` reports last.

    Parameters
    ----------
    sampler
        The inner sampler, without tempering of its own.
    n_levels
        K.

    Raises
    ------
    ValueError
        By ``init``, if the target has no softer versions.
    """

    sampler: Sampler = field(converter=checked(_check_untempered))
    n_levels: int = field(default=8, converter=checked(check_integer, minimum=2))

    def init(self, target: Target, x: Tensor, generator: torch.Generator) -> State:
        levels = torch.linspace(0.0, 1.0, self.n_levels, dtype=x.dtype, device=x.device)
        soft = target.softened(levels.repeat_interleave(len(x)))
        inner = self.sampler.init(soft, x.repeat(self.n_levels, 1), generator)
        return self._outer(inner, levels, torch.zeros_like(levels[1:]))

    @property
    def uses_blocks(self) -> bool:
        return self.sampler.uses_blocks

    @property
    def uses_softened(self) -> bool:
        return True

    def step(self, target: Target, state: State, generator: torch.Generator) -> tuple[State, Info]:
        levels, inner = state.memory["levels"], self._inner(state)
        soft = self._softened(target, state)
        inner, there, before = self._exchange(soft, inner, (0, 1), generator)
        inner, info = self.sampler.step(soft, inner, generator)
        inner, back, after = self._exchange(soft, inner, (1, 0), generator)
        rates = (there + back) / 2  # (K - 1, C)
        return self._outer(inner, levels, rates.mean(1)), _of_chains(info, rates, before | after)

    def reminded(self, target: Target, state: State) -> State:
        inner = self.sampler.refresh(self._softened(target, state), self._inner(state))
        return self._outer(inner, state.memory["levels"], state.memory["rates"])

    def adapt(self, target: Target, state: State, info: Info, iteration: int) -> State:
        assert info.inner is not None
        levels, rates = state.memory["levels"], state.memory["rates"]
        inner = self.sampler.adapt(self._softened(target, state), self._inner(state), info.inner, iteration)
        change = _WARIEST * (rates - rates.mean()) / iteration**0.5
        gaps = levels.diff() * change.exp()
        levels = torch.cat([levels[:1], (gaps / gaps.sum()).cumsum(0)])
        levels[-1] = 1.0
        return self.reminded(target, self._outer(inner, levels, rates))

    def settle(self, target: Target, state: State) -> State:
        inner = self.sampler.settle(self._softened(target, state), self._inner(state))
        return self._outer(inner, state.memory["levels"], state.memory["rates"])

    def _softened(self, target: Target, state: State) -> Target:
        return target.softened(state.memory["levels"].repeat_interleave(len(state.position)))

    def _exchange(
        self, soft: Target, inner: State, parities: tuple[int, int], generator: torch.Generator
    ) -> tuple[State, Tensor, Tensor]:
        """Exchanges of even (0) and odd (1) pairs.

        With the probability of each pair, (K - 1, C), and whether any copies of a chain changed places, (C,).
        """
        x, value = inner.position, inner.log_density
        rates = value.new_zeros(self.n_levels - 1, len(value) // self.n_levels)
        any_swapped = torch.zeros_like(rates[0], dtype=torch.bool)
        for parity in parities:
            partner = self._partners(parity, len(value), x.device)
            other = soft.log_density(x[partner])
            gain = other - value
            probability = (gain + gain[partner]).nan_to_num(nan=-torch.inf).exp().clamp(max=1.0)
            probability = probability.reshape(self.n_levels, -1)
            pairs = torch.arange(parity, self.n_levels - 1, 2, device=x.device)
            rates[pairs] = probability[pairs]
            uniform = torch.rand(rates.shape, generator=generator, dtype=x.dtype, device=x.device)
            swapped = torch.zeros_like(probability, dtype=torch.bool)
            swapped[pairs] = swapped[pairs + 1] = uniform[pairs] < probability[pairs]
            any_swapped |= swapped.any(0)
            swapped = swapped.flatten()
            x = torch.where(swapped[:, None], x[partner], x)
            value = torch.where(swapped, other, value)
        moved = self.sampler.refresh(soft, State(x, value, inner.gradient, inner.memory))
        return moved, rates, any_swapped

    def _partners(self, parity: int, n_rows: int, device: torch.device) -> Tensor:
        """The row of the copy that each copy may change places with: its own if none."""
        level = torch.arange(self.n_levels, device=device)
        partner = level + 1 - 2 * ((level - parity) % 2)
        partner = torch.where((partner < 0) | (partner >= self.n_levels), level, partner)
        n_chains = n_rows // self.n_levels
        return (partner[:, None] * n_chains + torch.arange(n_chains, device=device)).flatten()

    def _inner(self, state: State) -> State:
        """All copies, level by level."""
        copies = {name.removeprefix(_INNER): v for name, v in state.memory.items() if name.startswith(_INNER)}
        x, value, gradient = (copies.pop(name) for name in ("position", "log_density", "gradient"))
        return State(
            torch.cat([state.position, x]),
            torch.cat([state.log_density, value]),
            torch.cat([state.gradient, gradient]),
            copies,
        )

    def _outer(self, inner: State, levels: Tensor, rates: Tensor) -> State:
        """The copies at level 0, with the others in the memory."""
        n = len(inner.position) // self.n_levels
        copies = {
            "position": inner.position[n:],
            "log_density": inner.log_density[n:],
            "gradient": inner.gradient[n:],
            **inner.memory,
        }
        memory = {"levels": levels, "rates": rates, **{_INNER + name: v for name, v in copies.items()}}
        return State(inner.position[:n], inner.log_density[:n], inner.gradient[:n], memory)


def _of_chains(inner: Info, rates: Tensor, swapped: Tensor) -> Info:
    """What the chains themselves did, the exchanges as the last part."""
    first = inner.first(rates.shape[1])
    none = torch.full_like(first.step_size, torch.nan)
    exchanges = evolve(first, acceptance=rates.mean(0), accepted=swapped, step_size=none, parts=())
    parts = (*(first.parts or (evolve(first, parts=()),)), exchanges)
    return evolve(first, parts=parts, inner=inner)
