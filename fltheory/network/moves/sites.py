"""Moves for orthogonal inputs, conditioned on the other neurons: a readout first, then input by input."""

from collections.abc import Sequence
from functools import cached_property

import torch
from attrs import frozen
from torch import Tensor

from fltheory.network.moves.gram import FeatureGram
from fltheory.network.moves.mixture import GaussianMixture
from fltheory.network.moves.neurons import Neurons
from fltheory.network.moves.readouts import Others, ReadoutMixture
from fltheory.network.moves.sweep import Candidates, NeuronProposal
from fltheory.network.moves.tables import LinearTables

_REACH, _SPACING = 6.0, 0.25  # of the tables: 49 nodes
_NODES, _NODES_REACH = 21, 4.0  # of averages over a component


@frozen(eq=False)
class SiteProposal(NeuronProposal):
    """For a diagonal K_0, where phi_mu depends on x_mu alone.

    A readout a is drawn from Gaussians around the means that the others would give it with the
    activations of each component of a mixture. Given a, the exponent of ``Others`` couples the
    inputs by -|a|^2 phi^T G_-^{-1} phi / 2 only. Its off-diagonal part is expanded around the
    activations that go with a, and each x_mu is drawn from the density on the line that is left. The
    readout of the neuron as it is comes from its exact law.

    Attributes
    ----------
    mixture
        Of the coordinates of a neuron.
    """

    mixture: GaussianMixture
    neurons: Neurons

    @property
    def group_size(self) -> int:
        return 1

    @cached_property
    def _nodes(self) -> tuple[Tensor, Tensor]:
        """log N(x | 0, 1) up to a constant (G,) and phi, (P, G), at the nodes of the tables."""
        diagonal, n = self.neurons.factor.diagonal(), round(2.0 * _REACH / _SPACING) + 1
        x = torch.linspace(-_REACH, _REACH, n, dtype=diagonal.dtype, device=diagonal.device)
        return -0.5 * x**2, self._phi(diagonal[:, None] * x)

    def _phi(self, z: Tensor) -> Tensor:
        return torch.as_tensor(self.neurons.target.model.nonlinearity(z))

    @cached_property
    def _averages(self) -> tuple[Tensor, Tensor]:
        """<phi> (K, P) of each component, and a root (K, P, q) of Cov phi by linear response."""
        factor = self.neurons.factor
        spread = factor @ self.mixture.roots  # (K, P, q)
        mean, sd = self.mixture.means @ factor.mT, spread.square().sum(-1).sqrt()
        nodes = torch.linspace(-_NODES_REACH, _NODES_REACH, _NODES, dtype=sd.dtype, device=sd.device)
        weights = torch.softmax(-0.5 * nodes**2, 0)
        activations = self._phi(mean[..., None] + sd[..., None] * nodes)
        slopes = (activations * nodes) @ weights / sd  # <phi'>, by parts
        return activations @ weights, slopes[..., None] * spread

    def draw(
        self, gram: FeatureGram, neurons: Sequence[int], x: Tensor, k: int, generator: torch.Generator
    ) -> Candidates:
        (neuron,) = neurons
        others, old = Others.than(neuron, gram), gram.features[:, neuron, None]
        readouts = ReadoutMixture.of(self.mixture.weights, *self._averages, others)
        a = torch.cat([readouts.draw(k, generator), others.draw(old, generator)], 1)  # (C, k + 1, m)
        log_joint = readouts.log_joint(a)
        reference = log_joint.softmax(-1) @ self._averages[0]  # (C, k + 1, P)
        there, here = self._tables(others, a, reference).split(k)
        new, log_new = there.draw(generator)
        log_sites = torch.cat([log_new, here.log_density(x)], 1).sum(-1)
        features = torch.cat([self.neurons.features(new), old], 1)
        log_density = log_joint.logsumexp(-1) + log_sites - others.log_density(a, features)
        return Candidates(new[:, None], log_density[:, None, :k], log_density[:, k:])

    def _tables(self, others: Others, a: Tensor, reference: Tensor) -> LinearTables:
        """The density of x_mu at readouts (C, n, m), the others expanded around activations (C, n, P)."""
        own = others.inverse.diagonal(dim1=1, dim2=2)[:, None]  # (C, 1, P)
        square = a.square().sum(-1, keepdim=True)  # |a|^2
        field = a @ others.pull.mT - square * (reference @ others.inverse - own * reference)
        curvature = -0.5 * square * own
        log_prior, phi = self._nodes
        exponent = torch.addcmul(field[..., None], curvature[..., None], phi)
        return LinearTables.of(-_REACH, _SPACING, torch.addcmul(log_prior, exponent, phi))
