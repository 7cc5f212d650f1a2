"""Running chains of networks: warm-up, the draws, and going on where they ended."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from attrs import astuple, frozen
from torch import Tensor

from fltheory.errors import InterruptedWarning
from fltheory.network.target import NetworkTarget
from fltheory.numerics.progress import progress_bar
from fltheory.numerics.validation import Array, sealed
from fltheory.sampler.base import Info, Sampler, State, standard_normal

_COOLING_SHARE = 0.6  # of the warm-up, spent on the way down to the temperature of the target
_N_LEVELS = 12  # temperatures on the way
_COLDEST = 1e-3  # of the hot temperature: on colder ones small eigenvalues of the kernels collapse


@frozen(eq=False)
class Statistics:
    """What the sampler reported, for each chain and draw: all of shape (C, D).

    Attributes
    ----------
    log_density, step_size
        At the position drawn.
    energy, acceptance, n_steps
        Means over the Markov steps since the last draw; ``n_steps`` are gradients a Markov step.
    n_divergences
        Number of divergent steps since the last draw.
    """

    log_density: Array
    step_size: Array
    energy: Array
    acceptance: Array
    n_steps: Array
    n_divergences: Array


@frozen(eq=False)
class Draws:
    """Networks drawn from the posterior.

    Attributes
    ----------
    weights
        W^1 ... W^L, each (C, D, N, N_in).
    readouts
        a, shape (C, D, N, m).
    statistics
        Of the sampler.
    """

    weights: tuple[Array, ...]
    readouts: Array
    statistics: Statistics

    @classmethod
    def of(cls, arrays: Sequence[Array], n_hidden_layers: int) -> "Draws":
        """From the flat sequence of all arrays, made read-only."""
        weights, readouts = arrays[:n_hidden_layers], arrays[n_hidden_layers]
        statistics = map(sealed, arrays[n_hidden_layers + 1 :])
        return cls(tuple(map(sealed, weights)), sealed(readouts), Statistics(*statistics))

    def joined(self, later: "Draws") -> "Draws":
        """These draws and later ones of the same chains."""
        pairs = zip(self._flat, later._flat, strict=True)
        return Draws.of([np.concatenate(pair, axis=1) for pair in pairs], len(self.weights))

    @property
    def _flat(self) -> tuple[Array, ...]:
        return (*self.weights, self.readouts, *astuple(self.statistics, recurse=False))


@frozen(eq=False)
class Checkpoint:
    """All that decides how chains go on: where they are and the state of their generator."""

    state: State
    generator_state: Tensor

    @classmethod
    def of(cls, state: State, generator: torch.Generator) -> "Checkpoint":
        """A snapshot."""
        return cls(state, generator.get_state())

    def generator(self) -> torch.Generator:
        """A generator that goes on from here."""
        generator = torch.Generator(self.state.position.device)
        generator.set_state(self.generator_state)
        return generator


@frozen
class Chains:
    """A batch of chains with one generator, and how to run them.

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

    def warm_up(
        self, start: int | Tensor, n_warmup: int, seed: int, progress: bool | None = None
    ) -> Checkpoint:
        """Chains ready to draw from the target, with step sizes learned and fixed.

        Parameters
        ----------
        start
            Positions (C, dimension), or a number C of draws from the prior. Those are cooled down to
            the temperature of the target, for 60 % of the ``n_warmup`` Markov steps.

        Raises
        ------
        ValueError
            If the density is not finite on the way: at T = 0, features that are linearly dependent.
        """
        generator = torch.Generator(self.target.device).manual_seed(seed)
        cold = [(float(self.target.temperature), n_warmup)]
        if isinstance(start, int):
            start = self._prior_draws(start, generator)
            cold = cooling(self.target, start, n_warmup)
        state = self.sampler.init(self.target, start, generator)
        with progress_bar(n_warmup, "warm-up", progress) as bar:
            for temperature, n_steps in cold:
                target = self.target.at(temperature)
                state = self.sampler.refresh(target, state)
                _check_finite(state, temperature)
                for iteration in range(1, n_steps + 1):
                    state, info = self.sampler.step(target, state, generator)
                    state = self.sampler.adapt(target, state, info, iteration)
                    bar.update()
        return Checkpoint.of(self.sampler.settle(self.target, state), generator)

    def draw(
        self, checkpoint: Checkpoint, n_draws: int, progress: bool | None = None
    ) -> tuple[Draws, Checkpoint]:
        """``n_draws`` draws a chain, and where the chains are after the last of them.

        A ``KeyboardInterrupt`` ends the run with the draws finished by then and an
        ``InterruptedWarning``; without any draw it passes through.
        """
        state, generator = checkpoint.state, checkpoint.generator()
        arrays: list[Array] = []
        finished = (0, checkpoint)
        try:
            with progress_bar(n_draws, "draws", progress) as bar:
                for d in range(n_draws):
                    state, row = self._one_draw(state, generator)
                    arrays = arrays or [np.empty((len(r), n_draws, *r.shape[1:])) for r in row]
                    for array, values in zip(arrays, row, strict=True):
                        array[:, d] = values.cpu().numpy()
                    finished = d + 1, Checkpoint.of(state, generator)
                    bar.update()
        except KeyboardInterrupt:
            if finished[0] == 0:
                raise
            message = f"sampling was interrupted: {finished[0]} of {n_draws} draws a chain are kept"
            warnings.warn(message, InterruptedWarning, stacklevel=2)
        n_done, end = finished
        return Draws.of([a[:, :n_done] for a in arrays], self.target.model.n_hidden_layers), end

    def _prior_draws(self, n_chains: int, generator: torch.Generator) -> Tensor:
        like = torch.empty(
            n_chains, self.target.dimension, dtype=self.target.dtype, device=self.target.device
        )
        return standard_normal(like, generator)

    def _one_draw(self, state: State, generator: torch.Generator) -> tuple[State, list[Tensor]]:
        """The next state, and what ``Draws`` keeps of it."""
        infos = []
        for _ in range(self.thin):
            state, info = self.sampler.step(self.target, state, generator)
            infos.append(info)
        weights = self.target.weights(state.position)[:-1]
        readouts = self.target.draw_readouts(state.position, generator)
        return state, [*weights, readouts, state.log_density, infos[-1].step_size, *_summary(infos)]


def _summary(infos: Sequence[Info]) -> list[Tensor]:
    """Mean energy, acceptance and number of steps, and the number of divergences, each (C,)."""
    fields: list[Callable[[Info], Tensor]] = [lambda i: i.energy, lambda i: i.acceptance, lambda i: i.n_steps]
    means = [torch.stack([f(info).double() for info in infos]).mean(0) for f in fields]
    return [*means, torch.stack([info.diverged for info in infos]).sum(0)]


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
        raise ValueError(
            f"temperature: expected a posterior with a finite density where the chains are, got none at "
            f"T = {temperature:g} in {int((~finite).sum())} of {len(finite)} chains (at T = 0 the features "
            f"of the training inputs must be linearly independent)"
        )
