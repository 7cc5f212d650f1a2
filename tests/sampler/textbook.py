"""Textbook targets with known answers, wrong kernels, and how to run and judge samplers."""

import math
from functools import cached_property

import numpy as np
import torch
from arviz_stats.base import array_stats
from attrs import frozen

from fltheory.sampler.adaptation import StepSize
from fltheory.sampler.base import Sampler, State, Target, standard_normal
from fltheory.sampler.blocks import Blocks, BlockSweep
from fltheory.sampler.hmc import HMC, leapfrog

COVARIANCE = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.3], [0.0, 0.3, 0.5]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
PRECISION = torch.linalg.inv(COVARIANCE)


@frozen(eq=False)
class StudentSweep(BlockSweep):
    """One coordinate after another, proposed from Student's t with 3 degrees of freedom.

    Attributes
    ----------
    with_proposal, with_old
        False leaves out the density of the proposal, or the weight of the old state: both wrong.
    """

    target: Target
    x: torch.Tensor
    order: list[int]
    n_candidates: int
    generator: torch.Generator
    with_proposal: bool
    with_old: bool
    tried: dict

    def log_weights(self, step):
        b = self.order[step]
        noise = torch.randn(4, len(self.x), self.n_candidates, generator=self.generator, dtype=self.x.dtype)
        t = noise[0] / (noise[1:].square().mean(0)).sqrt()
        t = torch.cat([t, (self.x[:, b] - MEAN[b])[:, None]], 1)  # (C, k + 1), the old one last
        self.tried[step] = t + MEAN[b]
        log_pi = [self.target.log_density(self._with(b, value)) for value in self.tried[step].T]
        log_q = -2.0 * torch.log1p(t.square() / 3.0) if self.with_proposal else 0.0
        weights = torch.stack(log_pi, 1) - log_q
        if not self.with_old:
            weights[:, -1] = -math.inf
        return weights

    def replace(self, step, choice):
        self.x[:, self.order[step]] = self.tried[step].gather(1, choice[:, None])[:, 0]

    def position(self):
        return self.x

    def _with(self, b, value):
        x = self.x.clone()
        x[:, b] = value
        return x


@frozen
class StudentBlocks(Blocks):
    target: Target
    with_proposal: bool = True
    with_old: bool = True
    n_blocks = 3

    def sweep(self, x, order, n_candidates, memory, generator):
        kinds = self.with_proposal, self.with_old
        return StudentSweep(self.target, x.clone(), list(order), n_candidates, generator, *kinds, {})


@frozen
class Gaussian(Target):
    """N(MEAN, COVARIANCE), with all that samplers ask for."""

    with_proposal: bool = True
    with_old: bool = True
    dimension = 3
    gaussian_factor = 1.5

    def log_density(self, x):
        centred = x - MEAN.to(x.dtype)
        return -0.5 * ((centred @ PRECISION.to(x.dtype)) * centred).sum(1)

    @cached_property
    def blocks(self):
        return StudentBlocks(self, self.with_proposal, self.with_old)


def exact_draws(n_chains: int, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(n_chains, 3, generator=generator, dtype=torch.float64)
    return MEAN + noise @ torch.linalg.cholesky(COVARIANCE).T


def quartic() -> Target:
    return Target.from_function(4, lambda x: -0.25 * (x**4).sum(1) - 0.5 * x.prod(1) ** 2, 1.0)


def uneven(dimension: int, decades: float) -> tuple[Target, torch.Tensor]:
    """Independent normal coordinates with standard deviations spread over so many decades."""
    scales = torch.logspace(-decades / 2, decades / 2, dimension, dtype=torch.float64)
    return Target.from_function(
        dimension, lambda x: -0.5 * ((x / scales) ** 2).sum(1), scales.max().item()
    ), scales


def start(sampler: Sampler, target: Target, n_chains: int, seed: int = 0) -> tuple[State, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    x = standard_normal(torch.empty(n_chains, target.dimension, dtype=torch.float64), generator)
    return sampler.init(target, x, generator), generator


def run(sampler: Sampler, target: Target, state: State, generator: torch.Generator, n: int):
    positions, infos = [], []
    for _ in range(n):
        state, info = sampler.step(target, state, generator)
        positions.append(state.position)
        infos.append(info)
    return torch.stack(positions, 1), infos, state  # (C, n, dim)


def warm_up(sampler: Sampler, target: Target, state: State, generator: torch.Generator, n: int) -> State:
    for iteration in range(1, n + 1):
        state, info = sampler.step(target, state, generator)
        state = sampler.adapt(target, state, info, iteration)
    return sampler.settle(target, state)


def largest_deviation(draws: torch.Tensor) -> float:
    """Largest |z| of the means and second moments of draws (C, D, 3) of the Gaussian, C independent."""
    i, j = np.triu_indices(3)
    centred = draws - MEAN
    moments = torch.cat([centred, centred[..., i] * centred[..., j] - COVARIANCE[i, j]], -1).mean(1)  # (C, 9)
    return float((moments.mean(0) / moments.std(0)).abs().max()) * math.sqrt(len(draws))


def effective(values: torch.Tensor) -> float:
    """Smallest effective sample size of values (C, D, k)."""
    return min(float(array_stats.ess(v)) for v in values.movedim(2, 0).numpy())


@frozen
class AlwaysAccept(Sampler):
    """A wrong kernel: leapfrog without the Metropolis test."""

    def init(self, target, x, generator):
        return HMC(step_size=0.5).init(target, x, generator)

    def step(self, target, state, generator):
        _, info = HMC().step(target, state, generator)
        momentum = standard_normal(state.position, generator)
        proposal, _ = leapfrog(target, state, momentum, StepSize.recalled(state.memory).current[:, None], 3)
        return proposal, info
