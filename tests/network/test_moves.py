"""Moves of single neurons, held against the posterior written out and against exact draws."""

import math
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from torch import Tensor

from fltheory.model import Model
from fltheory.network.moves import rotations
from fltheory.network.moves.base import Moves
from fltheory.network.moves.codes import CodeMoves, MixtureProposal
from fltheory.network.moves.gram import FeatureGram
from fltheory.network.moves.mixture import GaussianMixture
from fltheory.network.moves.neurons import Neurons
from fltheory.network.moves.readouts import Others
from fltheory.network.moves.rotations import RotationMoves
from fltheory.network.moves.sites import SiteProposal
from fltheory.network.moves.sweep import NeuronSweep, groups
from fltheory.network.moves.tables import LinearTables
from fltheory.network.target import IntegratedTarget
from fltheory.nonlinearity import Nonlinearity, ReLU, Sigmoid
from fltheory.sampler.blocks import BlockIndependence, Blocks
from fltheory.task import ArrayTask

INFINITY = math.inf
N_DRAWS = 10_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def make_target(
    n_samples: int = 4,
    n_inputs: int = 3,
    n_outputs: int = 2,
    width: int = 9,
    temperature: float | Tensor = 0.02,
    is_lazy: bool = False,
    phi: Nonlinearity | None = None,
) -> IntegratedTarget:
    rng = np.random.default_rng(1)
    task = ArrayTask(rng.normal(size=(n_samples, n_inputs)), rng.normal(size=(n_samples, n_outputs)))
    model = Model(task, phi or Sigmoid(), width, 0.1, (1.7,), 0.6, is_lazy)
    return IntegratedTarget(model, temperature)


def make_moves(target: IntegratedTarget, n_components: int = 3) -> CodeMoves:
    """Components of no meaning, in the preactivations that the target's inputs allow."""
    rng = np.random.default_rng(2)
    factor, shape = Neurons(target).factor.numpy(), (n_components, target.model.task.n_inputs)
    roots = rng.normal(size=(*shape, shape[1])) + 2.0 * np.eye(shape[1])
    covariances = factor @ roots @ roots.swapaxes(1, 2) @ factor.T / 4.0
    groups = np.arange(len(factor)) % 2
    return CodeMoves(
        np.arange(1.0, n_components + 1), rng.normal(size=shape) @ factor.T, covariances, groups, 0.5
    )


def moving(target: IntegratedTarget, moves: Moves) -> IntegratedTarget:
    return evolve(target, moves=moves)


TARGETS = pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_lazy": True, "temperature": 0.5},
        {"temperature": 0.0},
        {"temperature": 0.0, "width": 4},  # as many neurons as inputs: the others alone leave G singular
        {"temperature": INFINITY},
        {"n_samples": 3, "n_inputs": 5, "n_outputs": 1},
        {"temperature": torch.tensor([0.01, 0.2, 3.0], dtype=torch.float64)},
    ],
    ids=["plain", "lazy", "zero", "zero-narrow", "infinite", "wide-inputs", "per-chain"],
)


class TestGram:
    @TARGETS
    def test_ratios_are_those_of_the_evidence(self, options: dict) -> None:
        target = make_target(**options)
        width, q = target.model.width, target.model.task.n_inputs
        neurons, x = Neurons(target), normal(3, width, q)
        new = normal(3, 2, 4, q, seed=1)  # (C, n, k, q): neurons 2 and 0, one after the other
        gram = FeatureGram(target.readout_posterior(neurons.features(x)))
        exchanges = gram.exchanges([2, 0], neurons.features(new))
        for index, neuron in enumerate([2, 0]):
            expected, old = [], evidence(target, x)
            for k in range(4):
                moved = x.clone()
                moved[:, neuron] = new[:, index, k]
                expected.append(evidence(target, moved) - old)
            close(exchanges.log_ratios(index), torch.stack(expected, 1))
            choice = torch.tensor([1, 4, 3])  # 4: it stays
            exchanges.choose(index, choice)
            x[[0, 2], neuron] = new[[0, 2], index, choice[[0, 2]]]
        exchanges.finish()
        exact = FeatureGram(target.readout_posterior(neurons.features(x)))
        torch.testing.assert_close(gram.features, exact.features, rtol=0, atol=0)
        torch.testing.assert_close(gram.inverse, exact.inverse, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(gram.solution, exact.solution, rtol=1e-8, atol=1e-12)

    @TARGETS
    def test_two_neurons_at_once(self, options: dict) -> None:
        target = make_target(**options)
        neurons = Neurons(target)
        x, new = normal(3, neurons.width, target.model.task.n_inputs), normal(3, 2, 2, 3, seed=1)
        new = normal(3, 5, 2, x.shape[-1], seed=1)
        pair = torch.tensor([[0, 3], [1, 2], [3, 1]])
        gram = FeatureGram(target.readout_posterior(neurons.features(x)))
        found = gram.log_ratios(gram.of(pair), neurons.features(new))
        for k in range(5):
            moved = x.clone()
            moved[torch.arange(3)[:, None], pair] = new[:, k]
            close(found[:, k], evidence(target, moved) - evidence(target, x))

    def test_inverse_follows_accepted_exchanges(self) -> None:
        """At T = 0, with few more neurons than inputs, and through several times that it is new."""
        target = make_target(n_samples=10, width=13, temperature=0.0, n_inputs=10)
        neurons, x = Neurons(target), normal(2, 13, 10)
        gram = FeatureGram(target.readout_posterior(neurons.features(x)))
        worst, n_exchanged = 0.0, 0
        for step in range(300):
            new = neurons.features(normal(2, 1, 1, 10, seed=step))
            exchanges = gram.exchanges([step % 13], new)
            likely = exchanges.log_ratios(0)[:, 0] > normal(2, seed=step).abs().neg()
            exchanges.choose(0, 1 - likely.long())
            exchanges.finish()
            n_exchanged += int(likely.any())
            error = gram.inverse @ (gram.features.mT @ gram.features) - torch.eye(10).double()
            worst = max(worst, float(error.abs().amax() / torch.linalg.cond(gram.inverse).amax()))
        assert n_exchanged > 32
        assert worst < 1e-13

    @pytest.mark.parametrize("n", [1, 3])
    def test_error_of_the_inverse_does_not_grow(self, n: int) -> None:
        target = make_target(n_samples=10, width=12, temperature=0.0, n_inputs=10)
        neurons, x = Neurons(target), normal(2, 12, 10)
        gram = FeatureGram(target.readout_posterior(neurons.features(x)))
        worst = 0.0
        for step in range(200):
            new = neurons.features(normal(2, n, 10, seed=step))
            gram.exchange((torch.arange(n) + torch.tensor([[0], [step]])) % 12, new)
            error = gram.inverse @ (gram.features.mT @ gram.features) - torch.eye(10).double()
            condition = torch.linalg.cond(gram.inverse).amax()
            worst = max(worst, float(error.abs().amax() / condition))
        assert worst < 1e-12


def evidence(target: IntegratedTarget, x: Tensor) -> Tensor:
    return target.log_density(x.flatten(1)) + 0.5 * (x**2).sum((1, 2))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


class TestMixture:
    mixture = GaussianMixture.of(
        torch.tensor([1.0, 3.0]).double(),
        torch.tensor([[1.0, -0.5], [-2.0, 0.3]]).double(),
        torch.tensor([[[1.0, 0.6], [0.6, 0.8]], [[0.5, 0.0], [0.0, 2.0]]]).double(),
    )

    def test_density_integrates_to_one(self) -> None:
        line = torch.linspace(-12.0, 12.0, 401, dtype=torch.float64)
        density = self.mixture.log_density(torch.cartesian_prod(line, line)).exp()
        assert float(density.sum() * (line[1] - line[0]) ** 2) == pytest.approx(1.0, abs=1e-9)

    def test_draws_have_this_density(self) -> None:
        """Of any square-integrable r, <r q'/q> over draws of q is the integral of r q'.

        20000 draws, |z| < 5: false alarms below 1e-5 in all; a shift by 0.05 gives |z| near 10.
        """
        x = self.mixture.draw(20000, generator())
        other = evolve(self.mixture, means=self.mixture.means + 0.1)
        ratios = (other.log_density(x) - self.mixture.log_density(x)).exp()
        assert abs(z_score(ratios, 1.0)) < 5.0
        wrong = (other.log_density(x + 0.05) - self.mixture.log_density(x + 0.05)).exp()
        assert abs(z_score(wrong, 1.0)) > 5.0

    def test_memory_brings_it_back(self) -> None:
        again = GaussianMixture.recalled(self.mixture.memory)
        x = normal(5, 2)
        torch.testing.assert_close(again.log_density(x), self.mixture.log_density(x), rtol=0, atol=0)


def z_score(values: Tensor, mean: float) -> float:
    return float((values.mean() - mean) / (values.std() / math.sqrt(len(values))))


class TestCodeMoves:
    @TARGETS
    def test_log_weights_are_posterior_over_proposal(self, options: dict) -> None:
        target = make_target(
            n_inputs=options.get("n_inputs", 3), **{k: v for k, v in options.items() if k != "n_inputs"}
        )
        blocks = make_moves(target).of(target)
        mixture = GaussianMixture.recalled(blocks.memory())
        width, q = target.model.width, target.model.task.n_inputs
        x = normal(3, width, q)
        order = [*range(width), *range(width)][::-1]
        sweep = blocks.sweep(x.flatten(1), order, 2, blocks.memory(), generator(3))
        assert isinstance(sweep, NeuronSweep)
        for step, neuron in enumerate(order):
            weights, expected = sweep.log_weights(step), []
            candidates = sweep._candidates[:, sweep._index]
            for new in (*candidates.unbind(1), x[:, neuron]):
                moved = x.clone()
                moved[:, neuron] = new
                expected.append(target.log_density(moved.flatten(1)) - mixture.log_density(new))
            found, wanted = weights - weights[:, -1:], torch.stack(expected, 1)
            close(found, wanted - wanted[:, -1:])
            choice = torch.tensor([step % 3, (step + 1) % 3, 2])
            sweep.replace(step, choice)
            x[:, neuron] = torch.cat([candidates, x[:, None, neuron]], 1)[torch.arange(3), choice]
            torch.testing.assert_close(sweep.position(), x.flatten(1), rtol=0, atol=0)

    def test_groups_hold_different_neurons(self) -> None:
        assert groups([1, 2, 3, 1], 2) == [[1, 2], [3, 1]]
        assert groups([1, 2, 1], 3) == [[1, 2], [1]]

    def test_a_way_there_and_back_is_cut_alike(self) -> None:
        assert groups([1, 2, 3, 3, 2, 1], 2) == [[1, 2], [3], [3], [2, 1]]

    def test_exact_draws_stay_exact(self) -> None:
        """One step each of 10000 chains that start in exact draws, against other exact draws.

        |z| < 4.5 for 4 quantities: false alarms 3e-5. The twin proposes the same, but believes it to be
        white noise: |z| above 20.
        """
        target = make_target(n_samples=2, n_inputs=2, n_outputs=1, width=2, temperature=0.3)
        assert largest_z(target, make_moves(target), BlockIndependence(2)) < 4.5
        assert largest_z(target, Blind(make_moves(target)), BlockIndependence(2)) > 20.0

    def test_exact_draws_stay_exact_given_the_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As above, for orthogonal inputs; the twin forgets the law of the readout."""
        target = orthogonal_target()
        moves = Conditioned(make_moves(target))
        assert largest_z(target, moves, BlockIndependence(2)) < 4.5
        monkeypatch.setattr(Others, "log_density", lambda self, a, phi: torch.zeros(a.shape[:2]).double())
        assert largest_z(target, moves, BlockIndependence(2)) > 6.0

    def test_neurons_drawn_together_leave_exact_draws_exact(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As above, two of the three neurons at a time."""
        target = orthogonal_target()
        moves = Conditioned(make_moves(target), n_together=2)
        assert largest_z(target, moves, BlockIndependence(2)) < 4.5
        monkeypatch.setattr(Others, "log_density", lambda self, a, phi: torch.zeros(a.shape[:2]).double())
        assert largest_z(target, moves, BlockIndependence(2)) > 6.0

    def test_neurons_drawn_together_know_nothing_of_one_another(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Their proposals are the same wherever they are; the twin's know the second neuron."""
        target = orthogonal_target()
        assert not knows_of_the_group(target, [2, 0])
        than = Others.than
        monkeypatch.setattr(Others, "than", lambda neurons, gram: than(neurons[:1], gram))
        assert knows_of_the_group(target, [2, 0])

    @pytest.mark.parametrize("temperature", [0.0, 1e-3, torch.tensor([1e-3, 0.1, 3.0]).double()])
    def test_evidence_is_the_readout_integrated_out(self, temperature: float | Tensor) -> None:
        """(18): the density of a neuron and its readout is that of the neuron times the readout's."""
        target = evolve(orthogonal_target(), temperature=temperature)
        neurons, x = Neurons(target), normal(3, target.model.width, 2)
        gram = FeatureGram(target.readout_posterior(neurons.features(x)))
        others, new = Others.than(1, gram), normal(3, 4, 2, seed=1)
        phi, a = neurons.features(new), normal(3, 4, 1, seed=2)
        kappa = ((phi @ others.inverse) * phi).sum(-1)
        joint = (a * (phi @ others.pull)).sum(-1) - 0.5 * a.square().sum(-1) * (1.0 + kappa)
        found = joint - others.log_density(a, phi) - 0.5 * math.log(2.0 * math.pi)
        old = gram.exchanges([1], phi[:, None]).log_ratios(0)
        close(found - found[:, :1], old - old[:, :1])

    def test_conditions_where_neurons_depend_on_one_another(self) -> None:
        """Only for orthogonal inputs, and only in the cold."""
        x = normal(3, 3 * 2)
        for target, expected in (
            (evolve(orthogonal_target(), temperature=1e-4), True),
            (evolve(orthogonal_target(), temperature=10.0), False),
            (make_target(n_inputs=2, n_samples=2, width=3, temperature=1e-4), False),
        ):
            blocks = make_moves(target).of(target)
            memory = after_calls(blocks, blocks.memory(), x)
            assert bool(memory["is_conditioned"]) == expected
            sweep = blocks.sweep(x, [0], 1, memory, generator())
            assert isinstance(sweep, NeuronSweep)
            assert sweep._proposal.group_size == (1 if expected else 32)

    def test_the_stiffer_the_fewer_neurons_are_drawn_together(self) -> None:
        """And never many where there are few: (width, what targets are multiplied by)."""
        for width, factor, expected in ((80, 1.0, 8), (80, 100.0, 1), (20, 1.0, 2), (3, 1.0, 1)):
            target = orthogonal_target()
            model = evolve(target.model, width=width)
            target = evolve(target, model=model, temperature=1e-3, targets=factor * target.targets)
            blocks = make_moves(target).of(target)
            memory = after_calls(blocks, blocks.memory(), normal(3, width * 2))
            assert int(memory["n_together"]) == expected

    def test_learns_codes_of_stuck_neurons_and_forgets_none(self) -> None:
        target = make_target(n_samples=6, n_inputs=6, width=40)
        moves = make_moves(target)
        blocks, neurons = moves.of(target), Neurons(target)
        memory, active = blocks.memory(), torch.as_tensor(moves.groups == 0).double()
        away = (50.0 * active - 25.0) @ torch.linalg.pinv(neurons.factor).mT  # active on the first group only
        inside = GaussianMixture.recalled(memory).draw(3 * 40, generator()).reshape(3, 40, -1)
        stuck = inside.clone()
        stuck[:, :10] = away + 0.1 * normal(3, 10, 6)
        memory = after_calls(blocks, memory, stuck)
        mixture = GaussianMixture.recalled(memory)
        assert len(mixture.weights) == 4
        assert float(mixture.weights.sum()) == pytest.approx(1.0)
        torch.testing.assert_close(mixture.means[-1], stuck[:, :10].mean((0, 1)))
        assert memory["codes"].tolist() == [[True, False]]
        again = after_calls(blocks, memory, inside)
        torch.testing.assert_close(again["means"], memory["means"])
        further = after_calls(blocks, memory, torch.where(stuck == inside, inside, 1.2 * stuck))
        assert len(further["weights"]) == 4  # the same code, fitted anew
        assert not torch.equal(further["means"], memory["means"])

    def test_a_single_stuck_neuron_is_enough(self) -> None:
        """Its weight would never let it go: none of its code is proposed."""
        target = make_target(n_samples=6, n_inputs=6, width=40)
        moves = make_moves(target)
        blocks, neurons = moves.of(target), Neurons(target)
        memory, active = blocks.memory(), torch.as_tensor(moves.groups == 0).double()
        x = GaussianMixture.recalled(memory).draw(3 * 40, generator()).reshape(3, 40, -1)
        x[1, 7] = (50.0 * active - 25.0) @ torch.linalg.pinv(neurons.factor).mT
        before = GaussianMixture.recalled(memory).log_density(x[1, 7:8])
        mixture = GaussianMixture.recalled(after_calls(blocks, memory, x))
        assert len(mixture.weights) == 4
        torch.testing.assert_close(mixture.means[-1], x[1, 7])
        assert float(mixture.log_density(x[1, 7:8]) - before) > 100.0

    def test_nothing_is_learned_after_warm_up(self) -> None:
        target = make_target()
        sampler, aim = BlockIndependence(), moving(target, make_moves(target))
        state = sampler.init(aim, 5.0 * normal(3, target.dimension), generator())
        for iteration in range(1, 17):
            state, info = sampler.step(aim, state, generator(iteration))
            state = sampler.adapt(aim, state, info, iteration)
        assert int(state.memory["blocks_n_calls"]) == 16
        settled = sampler.settle(aim, state)
        after, _ = sampler.step(aim, settled, generator())
        for name, value in settled.memory.items():
            torch.testing.assert_close(after.memory[name], value, rtol=0, atol=0)

    def test_other_depths_are_refused(self) -> None:
        target = make_target()
        deep = evolve(target, model=evolve(target.model, weight_variances=(1.0, 1.0)))
        with pytest.raises(ValueError, match="target: expected a network with one hidden layer, got 2"):
            RotationMoves().of(deep)


def after_calls(blocks: Blocks, memory: dict, x: Tensor) -> dict:
    for _ in range(8):
        memory = blocks.learn(memory, x.flatten(1))
    return memory


def knows_of_the_group(target: IntegratedTarget, group: list[int]) -> bool:
    """Whether candidates for some neurons, or their densities, depend on where these neurons are."""
    blocks, neurons = make_moves(target).of(target), Neurons(target)
    proposal = SiteProposal(GaussianMixture.recalled(blocks.memory()), neurons, len(group))
    x, found = normal(3, neurons.width, 2), []
    for seed in (1, 2):
        x[:, group] = normal(3, len(group), 2, seed=seed)
        gram = FeatureGram(target.readout_posterior(neurons.features(x)))
        candidates = proposal.draw(gram, group, x[:, group], 2, generator())
        found.append(torch.cat([candidates.positions.flatten(), candidates.log_density.flatten()]))
    return not torch.allclose(*found, rtol=1e-8, atol=1e-10)


def orthogonal_target() -> IntegratedTarget:
    task = ArrayTask(math.sqrt(2.0) * np.diag([1.0, 0.8]), np.array([[0.9], [0.3]]))
    return IntegratedTarget(Model(task, Sigmoid(), 3, 0.1, (1.0,), 2.0, False))


@frozen(eq=False)
class Conditioned(Moves):
    """Code moves that always know the other neurons."""

    moves: CodeMoves
    n_together: int = 1

    def of(self, target: IntegratedTarget) -> Blocks:
        return _OtherBlocks(self.moves.of(target), partial(SiteProposal, n_together=self.n_together))


@frozen(eq=False)
class _OtherBlocks(Blocks):
    """With another proposal, made from the mixture and the neurons."""

    blocks: Blocks
    propose: Callable

    @property
    def n_blocks(self) -> int:
        return self.blocks.n_blocks

    def memory(self) -> dict:
        return self.blocks.memory()

    def sweep(self, x, order, n_candidates, memory, generator):
        proposal = self.propose(GaussianMixture.recalled(memory), self.blocks.neurons)
        return NeuronSweep(self.blocks.neurons, proposal, x, order, n_candidates, generator)


@frozen(eq=False)
class Blind(Moves):
    """Draws from a mixture, and forgets its density."""

    moves: CodeMoves

    def of(self, target: IntegratedTarget) -> Blocks:
        return _OtherBlocks(self.moves.of(target), lambda mixture, neurons: _BlindProposal(mixture))


@frozen(eq=False)
class _BlindProposal(MixtureProposal):
    def draw(self, gram, neurons, x, k, generator):
        found = super().draw(gram, neurons, x, k, generator)
        blind = -0.5 * (found.positions**2).sum(-1)
        return evolve(found, log_density=blind, log_density_old=-0.5 * (x**2).sum(-1))


@cache
def exact_draws(target: IntegratedTarget, n: int, seed: int) -> Tensor:
    """Positions (n, dimension) by rejection from the prior; the bound on the evidence is that of C = T."""
    task, kept = target.model.task, []
    bound = -0.5 * task.n_samples * task.n_outputs * math.log(target.temperature)
    source = generator(seed)
    while sum(map(len, kept)) < n:
        x = torch.randn((100_000, target.dimension), generator=source, dtype=torch.float64)
        log_share = target.log_density(x) + 0.5 * (x**2).sum(1) - bound
        assert float(log_share.max()) < 0.0
        uniform = torch.rand(len(x), generator=source, dtype=torch.float64)
        kept.append(x[uniform.log() < log_share])
    return torch.cat(kept)[:n]


def largest_z(target: IntegratedTarget, moves: Moves, sampler: BlockIndependence) -> float:
    """Between exact draws after a step and other exact draws, of a few quantities that a step changes."""
    aim, start, others = (
        moving(target, moves),
        exact_draws(target, N_DRAWS, 1),
        exact_draws(target, N_DRAWS, 2),
    )
    state = sampler.init(aim, start, generator())
    state, info = sampler.step(aim, state, generator())
    assert float(info.accepted.double().mean()) > 0.2
    found, expected = quantities(aim, state.position), quantities(aim, others)
    error = ((found.var(0) + expected.var(0)) / len(found)).sqrt()
    return float(((found.mean(0) - expected.mean(0)) / error).abs().max())


def quantities(target: IntegratedTarget, x: Tensor) -> Tensor:
    phi, size = target.layers(x).features, (Neurons(target).coordinates(x) ** 2).sum(2)
    return torch.stack([target.log_density(x), phi[:, 0].sum(1), (phi**2).sum((1, 2)), (size**2).sum(1)], 1)


class TestTables:
    logarithms = torch.stack(
        [-3.0 * torch.linspace(-2.0, 2.0, 9).double() ** 2, 9.0 * torch.arange(9), torch.zeros(9)]
    )

    def tables(self, n: int) -> LinearTables:
        """n times three tables, from -2 to 2."""
        return LinearTables.of(-2.0, 0.5, self.logarithms.expand(n, 3, 9))

    def test_densities_integrate_to_one(self) -> None:
        points = torch.linspace(-2.0, 2.0, 4001, dtype=torch.float64)
        density = self.tables(4001).log_density(points[:, None].expand(-1, 3)).exp()
        integrals = torch.trapezoid(density, points, dim=0)
        torch.testing.assert_close(integrals, torch.ones(3).double(), rtol=1e-6, atol=0)
        outside = self.tables(2).log_density(torch.tensor([[2.1, -2.1, 9.0], [-9.0, 3.0, -3.0]]).double())
        assert torch.isinf(outside).all()

    def test_draws_have_this_density(self) -> None:
        """Shares of 20000 draws below each node, within 5 standard errors (false alarms: 1e-5 in all).

        The twin moves the draws by a tenth of the spacing.
        """
        tables = self.tables(20_000)
        points, log_density = tables.draw(generator())
        torch.testing.assert_close(tables.log_density(points), log_density, rtol=1e-8, atol=1e-8)
        expected = (tables.cumulative / tables.cumulative[..., -1:])[0, 0, :-1]  # up to the inner nodes
        nodes = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)
        error = (expected * (1.0 - expected) / len(points)).sqrt()

        def far(drawn: Tensor) -> Tensor:
            return ((drawn[:, None] < nodes).double().mean(0) - expected).abs() > 5.0 * error + 1e-12

        assert not far(points[:, 0]).any()
        assert far(points[:, 0] + 0.05).any()


class TestRotations:
    def test_log_weights_by_hand(self) -> None:
        target = make_target(n_samples=5, n_inputs=4, width=9, phi=ReLU())
        x = normal(3, 9, 4)
        x[:2, :5] *= 6.0
        x[2, 0] *= 9.0  # a single strong neuron: no pair
        sweep = RotationMoves().of(target).sweep(x.flatten(1), [0], 3, {}, generator())
        weights = sweep.log_weights(0)
        for chain in range(2):
            pair = sweep._pair[chain].tolist()
            for k in range(4):
                moved = x[chain].clone()
                moved[pair] = sweep._both[chain, k]
                expected = target.log_density(moved.reshape(1, -1)) - target.log_density(
                    x[chain].reshape(1, -1)
                )
                assert float(weights[chain, k]) == pytest.approx(float(expected) + log_choice(moved, *pair))
        assert weights[2].tolist() == [-INFINITY] * 3 + [0.0]
        sweep.replace(0, torch.tensor([1, 3, 3]))
        torch.testing.assert_close(sweep._gram.features, target.layers(sweep.position()).features)

    def test_exact_draws_stay_exact(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As for codes, with every second neuron strong; the twin leaves out how pairs are chosen."""
        monkeypatch.setattr(rotations, "_STRONG", -0.6)
        options = {"n_samples": 2, "n_inputs": 2, "n_outputs": 1, "width": 4, "temperature": 0.3}
        target = make_target(**options, phi=ReLU())
        assert largest_z(target, RotationMoves(), BlockIndependence(1, 8)) < 4.5
        monkeypatch.setattr(rotations, "_log_choice", lambda pairs, x, others: torch.zeros(pairs.shape[:2]))
        assert largest_z(target, RotationMoves(), BlockIndependence(1, 8)) > 6.0


def log_choice(x: Tensor, i: int, j: int) -> float:
    """log of the probability to draw this pair, times the number of strong neurons, (N, q)."""
    q = x.shape[1]
    threshold = q + 5.0 * math.sqrt(2.0 * q)
    strong = [n for n in range(len(x)) if float((x[n] ** 2).sum()) > threshold]
    if i not in strong or j not in strong:
        return -INFINITY

    def affinity(a: int, b: int) -> float:
        return float(x[a] @ x[b]) ** 2 + threshold**2

    first, second = (sum(affinity(a, b) for b in strong if b != a) for a in (i, j))
    return math.log(affinity(i, j) / first + affinity(i, j) / second)
