"""Planted mistakes, in the density of networks and in samplers, that tests have to find."""

from unittest import mock

import torch
from attrs import frozen

from fltheory.network.moves.codes import MixtureProposal
from fltheory.network.moves.sweep import Candidates
from fltheory.network.target import IntegratedTarget
from fltheory.sampler import blocks, hmc
from fltheory.sampler.base import Sampler, State, Target, metropolis, standard_normal
from fltheory.sampler.tempering import Tempering


@frozen(eq=False)
class StifferPrior(IntegratedTarget):
    """The precision of the prior is 5 % too large."""

    def log_density(self, x):
        return super().log_density(x) - 0.025 * (x**2).sum(1)

    def value_and_gradient(self, x):
        value, gradient = super().value_and_gradient(x)
        return value - 0.025 * (x**2).sum(1), gradient - 0.05 * x


@frozen(eq=False)
class NoJacobian(IntegratedTarget):
    """The determinant that integrating the readout leaves behind is forgotten."""

    def log_density(self, x):
        phi = self.layers(x).features
        kernel = self.readout_posterior(phi).kernel_scale * phi.mT @ phi
        covariance = kernel + self.temperature * torch.eye(phi.shape[-1]).to(phi)
        return super().log_density(x) + 0.5 * self.model.task.n_outputs * torch.logdet(covariance)

    def value_and_gradient(self, x):
        return Target.value_and_gradient(self, x)


def noisier(model, targets):
    """The variance of the noise is 10 % too large."""
    return IntegratedTarget(model, targets=targets, temperature=1.1 * model.temperature)


@frozen
class Mutant(Sampler):
    """A sampler whose steps find a ``replacement`` for what ``name`` is in ``place``."""

    sampler: Sampler
    place: object
    name: str
    replacement: object

    def init(self, target, x, generator):
        return self.sampler.init(target, x, generator)

    def step(self, target, state, generator):
        with mock.patch.object(self.place, self.name, self.replacement):
            return self.sampler.step(target, state, generator)


def always_accept(sampler):
    def accept(log_ratio, generator):
        acceptance, accepted = metropolis(log_ratio, generator)
        return acceptance, torch.ones_like(accepted)

    return Mutant(sampler, hmc, "metropolis", accept)


def wrong_temperature(sampler):
    return Mutant(sampler, hmc, "metropolis", lambda log_ratio, g: metropolis(0.5 * log_ratio, g))


def stale_gradient(sampler):
    """The gradient is that of the proposal, accepted or not."""
    right = State.moved

    def moved(self, accepted, proposal):
        new = right(self, accepted, proposal)
        return State(new.position, new.log_density, proposal.gradient, new.memory)

    return Mutant(sampler, State, "moved", moved)


def momentum_not_refreshed(sampler):
    def same(like, generator):
        return standard_normal(like, torch.Generator().manual_seed(0))

    return Mutant(sampler, hmc, "standard_normal", same)


def old_weight_left_out(sampler):
    right = blocks.choose

    def choose(log_weights, generator):
        ignored = log_weights.clone()
        ignored[:, -1] = -torch.inf
        return right(ignored, generator)

    return Mutant(sampler, blocks, "choose", choose)


def proposal_density_left_out(sampler, kind=MixtureProposal):
    right = kind.draw

    def draw(self, gram, neurons, x, k, generator):
        found = right(self, gram, neurons, x, k, generator)
        flat, flat_old = torch.zeros_like(found.log_density), torch.zeros_like(found.log_density_old)
        return Candidates(found.positions, flat, flat_old)

    return Mutant(sampler, kind, "draw", draw)


def always_exchange(sampler):
    """Two levels change places whatever their densities."""

    def exchange(self, soft, inner, parities, generator):
        n_chains = len(inner.position) // 2
        swapped = State(inner.position.roll(n_chains, 0), inner.log_density, inner.gradient, inner.memory)
        rates = inner.position.new_ones(1, n_chains)
        return self.sampler.refresh(soft, swapped), rates, rates[0] > 0

    return Mutant(sampler, Tempering, "_exchange", exchange)
