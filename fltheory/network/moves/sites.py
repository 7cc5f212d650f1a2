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

    Several neurons may be drawn together, given all that are not among them: with as many fewer of the
    others, the proposals fit less well, but most of their cost is shared.

    A readout a is drawn from Gaussians around the means that the others would give it with the
    activations of each component of a mixture. Given a, the exponent of ``Others`` couples the
    inputs by -|a|^2 phi^T G_-^{-1} phi / 2 only. Its off-diagonal part is expanded around the
    activations that go with a, and each x_mu is drawn from the density on the line that is left. The
    readout of the neuron as it is comes from its exact law.

    Attributes
    ----------
    mixture
        Of the coordinates of a neuron.
    n_together
        How many neurons are drawn together.
    """

    mixture: GaussianMixture
    neurons: Neurons
    n_together: int = 1

    @property
    def group_size(self) -> int:
        return self.n_together

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
        """<phi> (K, P) of each component, and roots (P, K q) of Cov phi by linear response."""
        factor = self.neurons.factor
        spread = factor @ self.mixture.roots  # (K, P, q)
        mean, sd = self.mixture.means @ factor.mT, spread.square().sum(-1).sqrt()
        nodes = torch.linspace(-_NODES_REACH, _NODES_REACH, _NODES, dtype=sd.dtype, device=sd.device)
        weights = torch.softmax(-0.5 * nodes**2, 0)
        activations = self._phi(mean[..., None] + sd[..., None] * nodes)
        slopes = (activations * nodes) @ weights / sd  # <phi'>, by parts
        return activations @ weights, (slopes[..., None] * spread).transpose(0, 1).flatten(1)

    def draw(
        self, gram: FeatureGram, neurons: Sequence[int], x: Tensor, k: int, generator: torch.Generator
    ) -> Candidates:
        n_chains, n, _ = x.shape
        others, old = Others.than(neurons, gram), gram.features[:, neurons]
        readouts = ReadoutMixture.of(self.mixture.weights, *self._averages, others)
        a = torch.cat([readouts.draw(n * k, generator), others.draw(old, generator)], 1)
        log_joint = readouts.log_joint(a)
        reference = log_joint.softmax(-1) @ self._averages[0]  # (C, n k + n, P)
        there, here = self._tables(others, a, reference).split(n * k)
        new, log_new = there.draw(generator)  # (n k, C, P)
        log_sites = torch.cat([log_new, here.log_density(x.transpose(0, 1))]).sum(-1).mT
        new = new.transpose(0, 1)
        features = torch.cat([self.neurons.features(new), old], 1)
        log_density = log_joint.logsumexp(-1) + log_sites - others.log_density(a, features)
        log_new, log_old = log_density[:, : n * k], log_density[:, n * k :]
        return Candidates(new.reshape(n_chains, n, k, -1), log_new.reshape(n_chains, n, k), log_old)

    def _tables(self, others: Others, a: Tensor, reference: Tensor) -> LinearTables:
        """The density of x_mu at readouts (C, n, m), the others expanded around activations (C, n, P).

        Neurons come first in the tables, (n, C, P, G).
        """
        own = others.inverse.diagonal(dim1=1, dim2=2)[:, None]  # (C, 1, P)
        square = torch.linalg.vecdot(a, a)[..., None]  # |a|^2
        curvature = -0.5 * square * own
        field = torch.cat([-square * reference, a], -1) @ others.solved.mT  # all of G_-^{-1}
        field = torch.addcmul(field, curvature, reference, value=-2.0)
        field, curvature = (values.transpose(0, 1)[..., None] for values in (field, curvature))
        log_prior, phi = self._nodes
        values, cumulative = self._memory(field.shape[:-1], len(log_prior))
        torch.addcmul(field, curvature, phi, out=values).mul_(phi).add_(log_prior)
        return LinearTables.of(-_REACH, _SPACING, values, values, cumulative)

    def _memory(self, shape: torch.Size, n_nodes: int) -> tuple[Tensor, Tensor]:
        """For tables (..., G), the same at each call: new memory would take longer to find than to fill."""
        if shape not in self._spaces:
            like = self.neurons.factor
            self._spaces[shape] = like.new_empty(*shape, n_nodes), like.new_empty(*shape, n_nodes - 1)
        return self._spaces[shape]

    @cached_property
    def _spaces(self) -> dict[torch.Size, tuple[Tensor, Tensor]]:
        return {}
