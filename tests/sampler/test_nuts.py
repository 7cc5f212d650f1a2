"""NUTS: its trees, checked leaf by leaf against a recursion, and what it wastes in a batch."""

import pytest
import torch
from textbook import Gaussian, exact_draws, quartic, run, start, uneven, warm_up

from fltheory.sampler.base import Target
from fltheory.sampler.hmc import leapfrog
from fltheory.sampler.nuts import NUTS, _doubled, _Point, _Tree, _turned


def path(target, point, steps, n):
    """n leaves onward from a point."""
    leaves = []
    for _ in range(n):
        point = _Point(*leapfrog(target, point.state, point.momentum, steps, 1))
        leaves.append(point)
    return leaves


def is_whole(leaves, steps):
    """By the recursive definition: no binary part of the leaves has turned back."""
    if len(leaves) == 1:
        return torch.ones_like(leaves[0].energy, dtype=torch.bool)
    middle = len(leaves) // 2
    halves = is_whole(leaves[:middle], steps) & is_whole(leaves[middle:], steps)
    return halves & ~_turned(leaves[0], leaves[-1], steps)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4])
def test_a_half_is_whole_as_the_recursion_says(depth, sign):
    target = quartic()
    state, generator = start(NUTS(), target, 300)
    momentum = torch.randn(300, 4, generator=generator, dtype=torch.float64)
    point = _Point(state, momentum)
    steps = sign * torch.linspace(0.03, 0.6, 300, dtype=torch.float64)[:, None]
    uniform = torch.rand(2 ** (depth + 1), 300, generator=generator, dtype=torch.float64)
    half = _doubled(target, _Tree.of(point).half.restarted(point), depth, steps, point.energy, uniform)
    leaves = path(target, point, steps, 2**depth)
    whole = is_whole(leaves, steps) & ~half.diverged
    assert torch.equal(half.whole, whole)
    if depth > 1:
        assert 0.1 < whole.double().mean() < 0.97
    energies = torch.stack([leaf.energy for leaf in leaves])
    weight = (point.energy - energies).logsumexp(0)
    torch.testing.assert_close(half.log_weight[whole], weight[whole])
    torch.testing.assert_close(half.end.state.position[whole], leaves[-1].state.position[whole])


def test_a_leaf_is_drawn_in_proportion_to_its_weight():
    # 20000 equal chains: frequencies within 4.5 standard errors, eight of them by chance beyond: 5e-5.
    target, n = Target.from_function(1, lambda x: -0.1 * (x[:, 0] - 2.0) ** 2), 20000
    x = torch.zeros(n, 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    point = _Point(NUTS().init(target, x, generator), torch.ones_like(x))
    steps = torch.full_like(x, 0.4)  # a coarse step: energies differ
    uniform = torch.rand(16, n, generator=generator, dtype=torch.float64)
    half = _doubled(target, _Tree.of(point).half.restarted(point), 3, steps, point.energy, uniform)
    leaves = path(target, point, steps, 8)
    assert half.whole.all()
    weight = torch.stack([-leaf.energy[0] for leaf in leaves]).softmax(0)
    places = torch.stack([leaf.state.position[0, 0] for leaf in leaves])
    counts = (half.draw.position == places).double().mean(0)
    assert ((counts - weight).abs() < 4.5 * (weight * (1 - weight) / n).sqrt()).all()


def test_a_trajectory_has_no_more_leaves_than_its_depth_allows():
    target = Gaussian()
    for depth in (1, 3):
        state, generator = start(NUTS(step_size=1e-3), target, 4)
        _, infos, _ = run(NUTS(max_depth=depth), target, state, generator, 3)
        assert all((info.n_steps == 2**depth - 1).all() for info in infos)  # too short to turn


def test_trajectories_grow_as_steps_shrink():
    target = Gaussian()
    generator = torch.Generator().manual_seed(0)
    means = []
    for size in (0.4, 0.1):
        state = NUTS(step_size=size).init(target, exact_draws(50, generator), generator)
        _, infos, _ = run(NUTS(), target, state, generator, 10)
        means.append(torch.stack([info.n_steps for info in infos]).double().mean())
    assert 2.5 < means[1] / means[0] < 6.0


def test_a_trajectory_ends_where_it_diverges():
    target = Target.from_function(1, lambda x: torch.where(x.abs() < 1e-3, 0.0 * x, -torch.inf)[:, 0])
    state = NUTS(step_size=10.0).init(target, torch.zeros(20, 1), torch.Generator())
    new, info = NUTS().step(target, state, torch.Generator().manual_seed(0))
    assert info.diverged.all() and (info.n_steps == 1).all() and (info.acceptance == 0).all()
    assert torch.equal(new.position, state.position) and not info.accepted.any()


@pytest.mark.slow
def test_the_share_of_gradients_that_are_used():
    # Waiting for the longest trajectory: measured 0.70 with 4 chains, 0.98 with scales learned.
    target, _ = uneven(20, 1.0)
    for learn, share in ((False, 0.5), (True, 0.9)):
        sampler = NUTS(learn_scales=learn)
        state, generator = start(sampler, target, 4)
        state = warm_up(sampler, target, state, generator, 100)
        _, infos, _ = run(sampler, target, state, generator, 50)
        n = torch.stack([info.n_steps for info in infos]).double()
        assert (n.mean(1) / n.max(1).values).mean() > share
