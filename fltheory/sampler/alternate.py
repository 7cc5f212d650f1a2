"""Samplers in turn."""

from collections.abc import Iterator

import torch
from attrs import field, frozen

from fltheory.numerics.validation import check_instance
from fltheory.sampler.base import Info, Sampler, State, Target


@frozen(init=False)
class Alternate(Sampler):
    """One sampler after another, there and back: a step of a, b, c is a b c b a.

    The way back makes the step reversible if each sampler is. Each part remembers its own.

    Parameters
    ----------
    *samplers
        One or more.
    """

    samplers: tuple[Sampler, ...] = field()

    def __init__(self, *samplers: Sampler) -> None:
        if not samplers:
            raise ValueError("samplers: expected at least one, got none")
        self.__attrs_init__(tuple(check_instance("samplers", s, Sampler) for s in samplers))

    def init(self, target: Target, x: torch.Tensor, generator: torch.Generator) -> State:
        states = [sampler.init(target, x, generator) for sampler in self.samplers]
        return self._joined(states[-1], states)

    @property
    def uses_blocks(self) -> bool:
        return any(sampler.uses_blocks for sampler in self.samplers)

    @property
    def uses_softened(self) -> bool:
        return any(sampler.uses_softened for sampler in self.samplers)

    def step(self, target: Target, state: State, generator: torch.Generator) -> tuple[State, Info]:
        n, states = len(self.samplers), self._parts(state)
        infos: list[list[Info]] = [[] for _ in states]
        for k in [*range(n), *range(n - 2, -1, -1)]:
            here = State(state.position, state.log_density, state.gradient, states[k].memory)
            state, info = self.samplers[k].step(target, here, generator)
            states[k] = state
            infos[k].append(info)
        return self._joined(state, states), Info.composed([Info.repeated(part) for part in infos])

    def reminded(self, target: Target, state: State) -> State:
        parts = zip(self.samplers, self._parts(state), strict=True)
        return self._joined(state, [sampler.reminded(target, part) for sampler, part in parts])

    def adapt(self, target: Target, state: State, info: Info, iteration: int) -> State:
        parts = zip(self.samplers, self._parts(state), info.parts, strict=True)
        return self._joined(state, [s.adapt(target, part, own, iteration) for s, part, own in parts])

    def settle(self, target: Target, state: State) -> State:
        parts = zip(self.samplers, self._parts(state), strict=True)
        return self._joined(state, [s.settle(target, part) for s, part in parts])

    def _parts(self, state: State) -> list[State]:
        """The state as each part knows it."""
        memories: list[dict[str, torch.Tensor]] = [{} for _ in self.samplers]
        for name, value in state.memory.items():
            part, _, own = name.partition("/")
            memories[int(part)][own] = value
        return [State(state.position, state.log_density, state.gradient, memory) for memory in memories]

    def _joined(self, state: State, parts: list[State]) -> State:
        """``state`` with the memories of all parts."""
        return State(state.position, state.log_density, state.gradient, dict(self._named(parts)))

    def _named(self, parts: list[State]) -> Iterator[tuple[str, torch.Tensor]]:
        for k, part in enumerate(parts):
            yield from ((f"{k}/{name}", value) for name, value in part.memory.items())
