"""A sampler at work, as the laws look at it."""

import copy
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from fltheory.sampler.base import Info, Sampler, State, Target
from fltheory.testing.ranks import Replicates, SamplingProblem, equilibrium, warmed_up

if TYPE_CHECKING:
    from torch import Generator, Tensor

FEW = 5  # chains in laws that hold for each chain
N_WARMUP, N_STEPS = 40, 30
_N_CHAINS, _N_REFERENCE = 4000, 200_000  # in laws on averages


@frozen(eq=False)
class Run:
    """Chains in equilibrium for ``N_STEPS`` steps.

    Attributes
    ----------
    averages
        Of each chain over its steps, by name, (C,).
    moved
        Mean squared distance along each coordinate, over that of independent draws.
    """

    averages: Mapping[str, "Tensor"]
    moved: "Tensor"


@frozen(eq=False)
class SamplerCase:
    """A sampler, a problem that can be drawn from, and a seed."""

    sampler: Sampler
    problem: SamplingProblem
    seed: int

    def generator(self, offset: int = 0) -> "Generator":
        """A generator that starts at the seed."""
        import torch

        return torch.Generator().manual_seed(self.seed + offset)

    @cached_property
    def drawn(self) -> Replicates:
        """A few exact draws."""
        return self.problem.draw(FEW, self.generator())

    @property
    def target(self) -> Target:
        return self.drawn.target

    @cached_property
    def start(self) -> State:
        """Chains that have just begun."""
        return self.sampler.init(self.target, self.drawn.position, self.generator(1))

    @cached_property
    def learned(self) -> State:
        """Chains after warm-up."""
        return warmed_up(self.sampler, self.target, self.drawn.position, N_WARMUP, self.generator(2))

    @property
    def stages(self) -> Iterator[tuple[str, State]]:
        """What a step may begin from."""
        yield "at first", self.start
        yield "after warm-up", self.learned

    def step(self, state: State, sampler: Sampler | None = None) -> tuple[State, Info, "Tensor"]:
        """One step by a fresh generator, and the state of that generator afterwards.

        A copy of the sampler takes it, unless one is given: what it remembers is lost.
        """
        generator = self.generator(3)
        acting = copy.deepcopy(self.sampler) if sampler is None else sampler
        state, info = acting.step(self.target, state, generator)
        return state, info, generator.get_state()

    def elsewhere(self, state: State, x: "Tensor") -> State:
        """The same chains at positions ``x``."""
        return self.sampler.refresh(self.target, evolve(state, position=x))

    @cached_property
    def reference(self) -> Mapping[str, "Tensor"]:
        """Statistics of many exact draws, and their squared deviations from the mean."""
        return self._moments(self._exact)

    @cached_property
    def runs(self) -> Mapping[str, Run]:
        """From exact draws: with the sampler as it starts, and as it is after warm-up."""
        return {"at first": self._run(0), "after warm-up": self._run(N_WARMUP)}

    @cached_property
    def _exact(self) -> Mapping[str, "Tensor"]:
        return self.problem.draw(_N_REFERENCE, self.generator(5)).statistics

    @cached_property
    def _centres(self) -> Mapping[str, "Tensor"]:
        return {name: values.mean() for name, values in self._exact.items()}

    def _moments(self, values: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
        squares = {f"the variance of {k}": (v - self._centres[k]) ** 2 for k, v in values.items()}
        return {f"the mean of {k}": v for k, v in values.items()} | squares

    def _run(self, n_warmup: int) -> Run:
        import torch

        generator = self.generator(6)
        here, state = equilibrium(self.problem, self.sampler, _N_CHAINS, n_warmup, generator)
        first, draws = state.position, []
        for _ in range(N_STEPS):
            state, _ = self.sampler.step(here.target, state, generator)
            draws.append(self._moments(self.problem.statistics(here.target, state.position, generator)))
        averages = {name: torch.stack([draw[name] for draw in draws]).mean(0) for name in draws[0]}
        moved = ((state.position - first) ** 2).mean(0) / (2.0 * first.var(0))
        return Run(averages, moved)


def tensors(state: State) -> dict[str, "Tensor"]:
    """All that a state is made of, by name."""
    memory = {f"memory[{name!r}]": value for name, value in state.memory.items()}
    own = {"position": state.position, "log_density": state.log_density, "gradient": state.gradient}
    return own | memory


def infos(info: Info) -> Iterator[Info]:
    """The report and those of its parts."""
    yield info
    for part in info.parts:
        yield from infos(part)
