"""Markov steps of a batch of chains, in warm-up and between draws; each begins where the last one ended."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from attrs import evolve, field, frozen
from torch import Tensor

from fltheory.network.target import NetworkTarget
from fltheory.sampler.base import Info, Sampler, State, standard_normal

_COOLING_SHARE = 0.6  # of the warm-up, spent on the way down to the temperature of the target
_N_LEVELS = 12  # temperatures on the way
_COLDEST = 1e-3  # of the hot temperature: on colder ones small eigenvalues of the kernels collapse
_STATE = ("position", "log_density", "gradient")
_MEMORY, _MEANS = "memory/", "means/"

Schedule = tuple[tuple[float, int], ...]


def _row_by_row(state: State) -> State:
    """The same, laid out in memory as a file brings it back: last digits depend on it."""
    tensors = {name: getattr(state, name).contiguous() for name in _STATE}
    return evolve(state, **tensors, memory={name: t.contiguous() for name, t in state.memory.items()})


@frozen(eq=False)
class Moment:
    """All that decides how a batch of chains goes on.

    Attributes
    ----------
    state, generator_state
        Where the chains are, and the state of their generator.
    schedule
        Temperatures of the warm-up, and Markov steps at each.
    n_warm, n_draws
        Markov steps of warm-up, and draws, since the start.
    means
        Averages over the draws, (C, ...) each.
    """

    state: State = field(converter=_row_by_row)
    generator_state: Tensor
    schedule: Schedule
    n_warm: int = 0
    n_draws: int = 0
    means: Mapping[str, Tensor] = field(factory=dict)

    def generator(self) -> torch.Generator:
        """A generator that goes on from here."""
        generator = torch.Generator(self.state.position.device)
        generator.set_state(self.generator_state)
        return generator

    def temperature(self) -> tuple[float, int]:
        """Of the next step of warm-up, and which step at that temperature it is, from 1."""
        before = 0
        for temperature, n_steps in self.schedule:
            if self.n_warm < before + n_steps:
                return temperature, self.n_warm - before + 1
            before += n_steps
        raise ValueError("n_warm: expected a warm-up that has not ended")

    @property
    def tensors(self) -> dict[str, Tensor]:
        """As named tensors, and with ``numbers``: what can be written down."""
        state = {name: getattr(self.state, name) for name in _STATE}
        memory = {_MEMORY + name: value for name, value in self.state.memory.items()}
        means = {_MEANS + name: value for name, value in self.means.items()}
        return {**state, "generator": self.generator_state, **memory, **means}

    @property
    def numbers(self) -> dict[str, Any]:
        """The rest."""
        return {"schedule": self.schedule, "n_warm": self.n_warm, "n_draws": self.n_draws}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any], device: str) -> "Moment":
        """From what was written down."""

        def beginning(start: str) -> dict[str, Tensor]:
            return {k.removeprefix(start): v.to(device) for k, v in tensors.items() if k.startswith(start)}

        position, log_density, gradient = (tensors[name].to(device) for name in _STATE)
        state = State(position, log_density, gradient, beginning(_MEMORY))
        schedule = tuple((float(temperature), int(n)) for temperature, n in numbers["schedule"])
        n_warm, n_draws = int(numbers["n_warm"]), int(numbers["n_draws"])
        return cls(state, tensors["generator"], schedule, n_warm, n_draws, beginning(_MEANS))


@frozen
class Chains:
    """A batch of chains with one generator, and how to move them.

    Attributes
    ----------
    target, sampler
        What is sampled, by which Markov kernel.
    thin
        Markov steps a draw.
    """

    target: NetworkTarget
    sampler: Sampler
    thin: int = 1

    def begin(self, start: int | Tensor, n_warmup: int, seed: int) -> Moment:
        """Before the first step.

        Parameters
        ----------
        start
            Positions (C, dimension), or a number C of draws from the prior. Those are cooled down to
            the temperature of the target, for 60 % of the ``n_warmup`` Markov steps.
        """
        generator = torch.Generator(self.target.device).manual_seed(seed)
        schedule: Schedule = ((float(self.target.temperature), n_warmup),)
        if isinstance(start, int):
            start = self._prior_draws(start, generator)
            schedule = tuple(cooling(self.target, start, n_warmup))
        state = self.sampler.init(self.target, start, generator)
        if n_warmup == 0:
            _check_finite(state, float(self.target.temperature))
            state = self.sampler.settle(self.target, state)
        return Moment(state, generator.get_state(), schedule)

    def warmed(self, moment: Moment, target: NetworkTarget) -> tuple[Moment, Info]:
        """After one more step of warm-up, at ``target`` of the temperature of the moment.

        After the last one, step sizes are fixed.

        Raises
        ------
        ValueError
            If the density is not finite on the way: at T = 0, features that are linearly dependent.
        """
        temperature, iteration = moment.temperature()
        state, generator = moment.state, moment.generator()
        if iteration == 1:
            state = self.sampler.refresh(target, state)
            _check_finite(state, temperature)
        state, info = self.sampler.step(target, state, generator)
        state = self.sampler.adapt(target, state, info, iteration)
        if moment.n_warm + 1 == sum(n for _, n in moment.schedule):
            state = self.sampler.settle(self.target, state)
        later = evolve(moment, state=state, generator_state=generator.get_state(), n_warm=moment.n_warm + 1)
        return later, info

    def moved(self, state: State, generator: torch.Generator) -> tuple[State, list[Info]]:
        """After the Markov steps of one draw."""
        infos = []
        for _ in range(self.thin):
            state, info = self.sampler.step(self.target, state, generator)
            infos.append(info)
        return state, infos

    def _prior_draws(self, n_chains: int, generator: torch.Generator) -> Tensor:
        like = torch.empty(
            n_chains, self.target.dimension, dtype=self.target.dtype, device=self.target.device
        )
        return standard_normal(like, generator)


def statistics(state: State, infos: Sequence[Info]) -> dict[str, Tensor]:
    """The fields of ``Statistics`` for the Markov steps of one draw, each (C, ...)."""
    none = torch.empty(len(state.log_density), 0)
    parts = [torch.stack([part.acceptance for part in i.parts], -1) if i.parts else none for i in infos]
    return {
        "log_density": state.log_density,
        "step_size": infos[-1].step_size,
        "energy": _mean([info.energy for info in infos]),
        "acceptance": _mean([info.acceptance for info in infos]),
        "n_steps": _mean([info.n_steps for info in infos]),
        "n_divergences": torch.stack([info.diverged for info in infos]).sum(0),
        "part_acceptance": _mean(parts),
    }


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([value.double() for value in values]).mean(0)


def cooling(target: NetworkTarget, x: Tensor, n_steps: int) -> list[tuple[float, int]]:
    """Temperatures from where the data hardly matter down to that of the target, and steps at each.

    Geometric, so that each level changes the tilt of a neuron by the same factor; what is colder than
    the last level, T = 0 included, follows on it.
    """
    cold, hot = float(target.temperature), target.hot_temperature(x)
    n_each = int(_COOLING_SHARE * n_steps) // _N_LEVELS
    if cold >= hot or n_each == 0:
        return [(cold, n_steps)]
    last = max(cold, _COLDEST * hot)
    levels = np.geomspace(hot, last, _N_LEVELS, endpoint=last > cold)
    return [*((float(level), n_each) for level in levels), (cold, n_steps - _N_LEVELS * n_each)]


def _check_finite(state: State, temperature: float) -> None:
    finite = state.log_density.isfinite() & state.gradient.isfinite().all(1)
    if not bool(finite.all()):
        where = f"in {int((~finite).sum())} of {len(finite)} chains"
        if temperature == 0.0:
            raise ValueError(
                f"inputs: expected training inputs of linearly independent features at temperature 0, got a "
                f"kernel that is singular to rounding {where}"
            )
        raise ValueError(
            f"temperature: expected a posterior with a finite density where the chains are, got none at "
            f"T = {temperature:g} {where}"
        )
