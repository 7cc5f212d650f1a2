"""The no-U-turn sampler: trajectories that end where they would turn back."""

from typing import Self

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from fltheory.numerics.validation import check_integer, checked
from fltheory.sampler.adaptation import ScaledSampler, StepSize
from fltheory.sampler.base import Info, State, Target, standard_normal
from fltheory.sampler.hmc import energy, is_divergent, leapfrog


@frozen
class NUTS(ScaledSampler):
    """Hamiltonian trajectories of a length chosen anew at each step. A step is reversible.

    A trajectory doubles, forward or backward in time at random, until its ends, or those of one of
    its halves, quarters, ..., approach each other (Hoffman & Gelman 2014). The next position is drawn
    from all of it in proportion to exp(-H), with a preference for the half added last (Betancourt 2017).

    All chains of a batch double together, so that their halves are checked at the same leaves and no
    recursion is needed. Chains that have finished wait for the longest one, and their gradient is
    evaluated where they wait: a batch of another size would round differently, and chains would no
    longer be independent. The share of gradients put to use is the mean over chains of
    ``Info.n_steps`` over its maximum.

    Parameters
    ----------
    max_depth
        The number of doublings is at most this.
    step_size
        Initial step size; each chain learns its own in warm-up.
    target_acceptance
        Mean acceptance probability, over the points of a trajectory, that warm-up aims at.
    learn_scales
        Whether steps are in proportion to the scale of each coordinate, learned in warm-up from all
        chains of the batch.
    """

    max_depth: int = field(default=8, converter=checked(check_integer, maximum=15))

    def step(self, target: Target, state: State, generator: torch.Generator) -> tuple[State, Info]:
        noise = _Noise.draw(self.max_depth, state.log_density, generator)
        start = _Point(state, standard_normal(state.position, generator))
        steps = self.steps(state.memory)  # (C, dimension) or (C, 1)
        tree = _Tree.of(start)
        for depth in range(self.max_depth):
            if not bool(tree.half.whole.any()):
                break
            ahead = noise.ahead[depth]
            half = tree.half.restarted(tree.backward.where(ahead, tree.forward))
            signed = torch.where(ahead[:, None], steps, -steps)
            half = _doubled(target, half, depth, signed, start.energy, noise.leaf)
            tree = tree.joined(half, ahead, steps, noise.half[depth])
        n_steps = tree.half.n_steps
        moved = ((tree.draw.position - state.position).abs() > 0.0).any(1)  # not so where NaN
        size = StepSize.recalled(state.memory).current
        info = Info(tree.half.acceptance / n_steps, moved, tree.half.diverged, start.energy, n_steps, size)
        return tree.draw, info


@frozen(eq=False)
class _Noise:
    """All random numbers of a step but the momentum.

    They are drawn at once, as many as the longest trajectory takes: what one chain is given must not
    depend on how far the others went.

    Attributes
    ----------
    ahead
        Whether each doubling is forward in time, shape (depth, C).
    half, leaf
        Uniform numbers that choose between the halves of a tree, (depth, C), and among the leaves of
        its new half, (2^depth, C): those of a half of n leaves are n to 2 n - 1.
    """

    ahead: Tensor
    half: Tensor
    leaf: Tensor

    @classmethod
    def draw(cls, max_depth: int, like: Tensor, generator: torch.Generator) -> Self:
        """For chains like ``like``, shape (C,)."""
        rows = (max_depth, max_depth, 2**max_depth)
        draws = (
            torch.rand(n, len(like), generator=generator, dtype=like.dtype, device=like.device) for n in rows
        )
        ahead, half, leaf = draws
        return cls(ahead < 0.5, half, leaf)


@frozen(eq=False)
class _Point:
    """A point of phase space for each chain."""

    state: State
    momentum: Tensor

    @property
    def energy(self) -> Tensor:
        return energy(self.state, self.momentum)

    def where(self, chosen: Tensor, other: "_Point") -> "_Point":
        """``other`` in the chains ``chosen`` (C,), this one elsewhere."""
        momentum = torch.where(chosen[:, None], other.momentum, self.momentum)
        return _Point(self.state.moved(chosen, other.state), momentum)


@frozen(eq=False)
class _Half:
    """The new half of a tree as it grows, leaf by leaf.

    Attributes
    ----------
    end
        The last leaf.
    draw, log_weight
        One leaf drawn in proportion to exp(-H), and the log of the sum of exp(H_start - H).
    whole
        Where it can grow further: neither turned back nor divergent.
    acceptance, n_steps, diverged
        Since the start: the sum of acceptance probabilities, leaves, and whether one diverged.
    """

    end: _Point
    draw: State
    log_weight: Tensor
    whole: Tensor
    acceptance: Tensor
    n_steps: Tensor
    diverged: Tensor

    def restarted(self, end: _Point) -> "_Half":
        """No leaf yet, to grow on from ``end``."""
        return evolve(self, end=end, draw=end.state, log_weight=torch.full_like(self.log_weight, -torch.inf))

    def extended(self, target: Target, steps: Tensor, energy: Tensor, uniform: Tensor) -> "_Half":
        """With one more leaf where it is whole; chains that wait take a step of length 0."""
        steps = steps * self.whole[:, None]
        new = _Point(*leapfrog(target, self.end.state, self.end.momentum, steps, 1))
        gain = energy - new.energy
        diverged = self.whole & is_divergent(-gain)
        whole = self.whole & ~diverged
        log_weight = torch.where(whole, torch.logaddexp(self.log_weight, gain), self.log_weight)
        return _Half(
            self.end.where(whole, new),
            self.draw.moved(whole & (uniform < (gain - log_weight).exp()), new.state),
            log_weight,
            whole,
            self.acceptance + torch.where(whole, gain.exp().clamp(max=1.0), 0.0),
            self.n_steps + self.whole,
            self.diverged | diverged,
        )


@frozen(eq=False)
class _Tree:
    """A trajectory: its ends in time, a draw from it with its log weight, and its half added last."""

    backward: _Point
    forward: _Point
    draw: State
    log_weight: Tensor
    half: _Half

    @classmethod
    def of(cls, start: _Point) -> Self:
        """The start alone."""
        zero = torch.zeros_like(start.energy)
        no = torch.zeros_like(zero, dtype=torch.bool)
        half = _Half(start, start.state, zero, ~no, zero, no.to(torch.int64), no)
        return cls(start, start, start.state, zero, half)

    def joined(self, half: _Half, ahead: Tensor, steps: Tensor, uniform: Tensor) -> "_Tree":
        """With a new half, forward in time where ``ahead``; only a whole half counts."""
        backward = self.backward.where(half.whole & ~ahead, half.end)
        forward = self.forward.where(half.whole & ahead, half.end)
        chosen = half.whole & (uniform < (half.log_weight - self.log_weight).exp())
        log_weight = torch.logaddexp(self.log_weight, half.log_weight)
        half = evolve(half, whole=half.whole & ~_turned(backward, forward, steps))
        return _Tree(backward, forward, self.draw.moved(chosen, half.draw), log_weight, half)


def _doubled(
    target: Target, half: _Half, depth: int, steps: Tensor, energy: Tensor, uniform: Tensor
) -> _Half:
    """A new half of 2^depth leaves, checked with all its binary parts.

    At an odd leaf parts of 2, 4, ... leaves end, one more for each trailing 1 of its number in binary.
    Their first leaves are even and differ in how many 1 they have, so that so many points are kept.
    """
    first: dict[int, _Point] = {}
    for leaf in range(2**depth):
        if not bool(half.whole.any()):
            break
        half = half.extended(target, steps, energy, uniform[2**depth + leaf])
        ones, size = leaf.bit_count(), 1
        if leaf % 2 == 0:
            first[ones] = half.end
        while leaf & size:
            ones, size = ones - 1, 2 * size
            half = evolve(half, whole=half.whole & ~_turned(first[ones], half.end, steps))
    return half


def _turned(first: _Point, last: _Point, steps: Tensor) -> Tensor:
    """Whether the ends approach each other in x / scale, (C,); ``steps`` has the sign of time."""
    way = (last.state.position - first.state.position) / steps
    away = ((way * first.momentum).sum(1) > 0.0) & ((way * last.momentum).sum(1) > 0.0)
    return ~away
