"""Moves of neurons from one code to another, drawn from a mixture of Gaussians."""

from collections.abc import Sequence
from functools import cached_property

import torch
from attrs import frozen
from torch import Tensor

from fltheory.network.moves.adaptation import Adaptation
from fltheory.network.moves.base import Moves
from fltheory.network.moves.gram import FeatureGram
from fltheory.network.moves.mixture import GaussianMixture
from fltheory.network.moves.neurons import Neurons
from fltheory.network.moves.sites import SiteProposal
from fltheory.network.moves.sweep import Candidates, NeuronProposal, NeuronSweep
from fltheory.network.target import IntegratedTarget
from fltheory.numerics.validation import Array, Integers
from fltheory.sampler.blocks import Blocks, Memory

_GROUP = 32  # neurons whose candidates are drawn at a time
_LEARN_EVERY = 8  # steps of warm-up
_SEEN = 2e-5  # relative size of F in a direction from which the theory may know it
_TOGETHER, _MOST_TOGETHER = 25.0, 8  # neurons conditioned at a time: this over the coupling (measured)
_SPARED = 8  # of N - P, which the others need for a regular G, one part in this many may be conditioned
CONDITIONED = 3.0  # coupling from which conditioned proposals are worth their price (measured)


@frozen(eq=False)
class CodeMoves(Moves):
    """Independence proposals from a mixture of Gaussians, one a code, that the theory knows.

    In warm-up, components are added for neurons that are stuck outside of it, of codes that the theory
    does not know (metastable ones, where neurons from the prior end up). For orthogonal inputs the
    proposals are conditioned on the other neurons where these matter, in a cold network.

    Attributes
    ----------
    weights, means, covariances
        Of the preactivations of a neuron, on the P training inputs: (K,), (K, P) and (K, P, P).
    groups
        The group of inputs of each, from 0, (P,): a neuron's code says on which groups it is active.
    threshold
        Mean activation above which it is.
    """

    weights: Array
    means: Array
    covariances: Array
    groups: Integers
    threshold: float

    def of(self, target: IntegratedTarget) -> Blocks:
        return CodeBlocks(self, Neurons(target))


@frozen(eq=False)
class CodeBlocks(Blocks):
    """``CodeMoves`` for the networks of one target; the mixture is kept in the memory of the chains."""

    moves: CodeMoves
    neurons: Neurons

    @property
    def n_blocks(self) -> int:
        return self.neurons.width

    def sweep(
        self, x: Tensor, order: Sequence[int], n_candidates: int, memory: Memory, generator: torch.Generator
    ) -> NeuronSweep:
        mixture = GaussianMixture.recalled(memory)
        proposal: NeuronProposal = MixtureProposal(mixture)
        if bool(memory["is_conditioned"]):
            proposal = SiteProposal(mixture, self.neurons, int(memory["n_together"]))
        return NeuronSweep(self.neurons, proposal, x, order, n_candidates, generator)

    @cached_property
    def _adaptation(self) -> Adaptation:
        tensor, moves = self.neurons.target.tensor, self.moves
        factor = self.neurons.factor
        back = torch.linalg.pinv(factor, rtol=_SEEN)  # (q, P): x = F^+ z, as far as the inputs see x
        unseen = torch.eye(len(back), dtype=back.dtype, device=back.device) - back @ factor
        covariances = back @ tensor(moves.covariances) @ back.mT + unseen
        theory = GaussianMixture.of(tensor(moves.weights), tensor(moves.means) @ back.mT, covariances)
        one_hot = torch.eye(int(moves.groups.max()) + 1, dtype=back.dtype, device=back.device)[moves.groups]
        return Adaptation(theory, self.neurons, one_hot / one_hot.sum(0), moves.threshold)

    def memory(self) -> Memory:
        device = self.neurons.factor.device
        is_conditioned = torch.zeros((), dtype=torch.bool, device=device)
        n_together = torch.ones((), dtype=torch.int64, device=device)
        return {**self._adaptation.start(), "is_conditioned": is_conditioned, "n_together": n_together}

    def learn(self, memory: Memory, x: Tensor) -> Memory:
        n_calls = memory["n_calls"] + 1
        if int(n_calls) % _LEARN_EVERY:
            return {**memory, "n_calls": n_calls}
        learned = self._adaptation.learned(memory, self.neurons.coordinates(x))
        return {**learned, "n_calls": n_calls, **self._conditions(x)}

    def _conditions(self, x: Tensor) -> Memory:
        """Whether to condition: where the others matter, and where it is known how, for a diagonal K_0.

        The more they matter, the fewer neurons can forget one another.
        """
        features = self.neurons.features(self.neurons.coordinates(x))
        gram = FeatureGram(self.neurons.target.readout_posterior(features))
        coupling = gram.couplings().mean(1).amax()
        spare = (self.neurons.width - len(self.neurons.factor)) // _SPARED
        n_together = (_TOGETHER / coupling).nan_to_num(nan=1.0).clamp(max=min(spare, _MOST_TOGETHER))
        return {
            "is_conditioned": (coupling > CONDITIONED) & self.neurons.are_orthogonal,
            "n_together": n_together.clamp(min=1).long(),
        }


@frozen(eq=False)
class MixtureProposal(NeuronProposal):
    """A mixture, whatever the other neurons do."""

    mixture: GaussianMixture

    @property
    def group_size(self) -> int:
        return _GROUP

    def draw(
        self, gram: FeatureGram, neurons: Sequence[int], x: Tensor, k: int, generator: torch.Generator
    ) -> Candidates:
        n_chains, n, q = x.shape
        new = self.mixture.draw(n_chains * n * k, generator)
        log_density = self.mixture.log_density(torch.cat([new, x.reshape(-1, q)]))
        there, here = log_density[: len(new)], log_density[len(new) :]
        return Candidates(
            new.reshape(n_chains, n, k, q), there.reshape(n_chains, n, k), here.reshape(n_chains, n)
        )
