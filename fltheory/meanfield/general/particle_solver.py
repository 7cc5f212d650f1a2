"""Two hidden layers on any input kernel by weighted particles: docs/theory.md section 5.8.

The search for K_1 runs on frozen particles of both layers, on which everything is a smooth function of Kt,
K_1 and t; then the particles move on. A solution is one that the next particles confirm.
"""

import numpy as np
from attrs import evolve

from fltheory.errors import ConvergenceError
from fltheory.meanfield.general.conjugate import ConjugateKernel, leading_directions
from fltheory.meanfield.general.drawn import together
from fltheory.meanfield.general.guess import FirstGuess
from fltheory.meanfield.general.layer import CoreSolution
from fltheory.meanfield.general.posterior import GeneralDeepPosterior
from fltheory.meanfield.general.sampled_layer import SampledLayer, SampledState
from fltheory.meanfield.general.sampled_readout import ReadoutParticles, SampledReadout
from fltheory.meanfield.general.search import KernelSearch, LayerPair
from fltheory.meanfield.settings import Settings
from fltheory.meanfield.solution import Agreement, MeanFieldSolution
from fltheory.model import Model
from fltheory.numerics.positive import kernel_factor
from fltheory.numerics.validation import Array

_N_HIDDEN, _N_READOUT = 4000, 1000  # particles of each layer that move (the second's are doubled on the way)
_N_ROUNDS, _N_COLLECTED = 4, 16  # rounds that make a sample: on the way, and at the end
_N_STEPS, _N_FINAL_STEPS = 12, 60  # of the search on one sample
_N_CONFIRMED, _CLOSE = 2, 0.02  # samples in a row that reach this relative residual, where the way ends
_SHARE = 0.5  # of codes in the first guess of K_1
_AT_GUESS = 0.01  # relative, of the overlap there
_TOLERANCE = 1e-3  # relative, of the equations of the first layer
_UNRESOLVED = 0.05  # relative standard error of t from which particles do not know it


def solve_pair_of_particles(model: Model, settings: Settings) -> MeanFieldSolution:
    """By weighted particles of both layers: slower than a lattice and EP, of limited accuracy, and complete.

    A first run finds the solution; two others, which go there on the shortest way, tell its error.

    Raises
    ------
    ConvergenceError
        If particles do not settle, or do not know the solution.
    """
    scout, *runs = (_Run(model, settings, seed) for seed in np.random.SeedSequence(settings.seed).spawn(3))
    kernel, total = _start(settings)
    guess = FirstGuess(model).kernel(_SHARE) if kernel is None else kernel
    state = scout.settled(scout.begun(guess, total)).hidden.state
    one, other = (run.collected(run.begun(state.kernel, state.conjugate.total)) for run in runs)
    solution = runs[0].solution(runs[0].together(one, other))
    pairs = [GeneralDeepPosterior(pair, settings.seed) for pair in (one, other)]
    kernels = [(pairs[0].kernel_parts(k).total, pairs[1].kernel_parts(k).total) for k in (1, 2)]
    agreement = Agreement.between("two runs of particles", (pairs[0].field, pairs[1].field), kernels)
    steps = len(scout.path) + sum(len(run.path) for run in runs)
    path = (*scout.path, *runs[0].path)
    solution = evolve(solution, n_iterations=steps, action_path=path, agreement=agreement)
    if 0.5 * agreement.dual_field > _UNRESOLVED:
        raise ConvergenceError(
            f"the theory of two layers is not resolved: {agreement}; try a higher temperature", last=solution
        )
    return solution


def _start(settings: Settings) -> tuple[Array | None, Array | None]:
    """K_1 and Kt_1 of a given solution of two layers on any kernel."""
    if settings.start is None or not isinstance(settings.start.neuron, GeneralDeepPosterior):
        return None, None
    state = settings.start.neuron.pair.hidden.state
    return state.kernel, state.conjugate.total


class _Run:
    """Particles of both layers, and the search on them."""

    def __init__(self, model: Model, settings: Settings, seed: np.random.SeedSequence) -> None:
        own, below = seed.spawn(2)
        self.model, self.settings = model, settings
        factor = kernel_factor(model.input_kernel)
        self.layer = SampledLayer(factor, model.nonlinearity, _N_HIDDEN, np.random.default_rng(below))
        self.readouts = ReadoutParticles(model, _N_READOUT, settings.tolerance, own)
        self.search = KernelSearch(self.layer, model.task.n_outputs, settings.report)

    @property
    def path(self) -> list[float]:
        """J at each step."""
        return self.search.path

    def begun(self, kernel: Array, total: Array | None) -> LayerPair:
        """Both layers from a K_1, and from this Kt_1 or the one that the readout layer asks for there."""
        readout = self.readouts.move(self.readouts.first(kernel, self.settings.report), _N_ROUNDS)
        total = readout.message if total is None else total
        conjugate = ConjugateKernel.of(total, leading_directions(total, self.model.task.n_outputs))
        v = conjugate.directions
        hidden = self.layer.follow(conjugate, v.T @ kernel @ v, _AT_GUESS)
        return self._paired(hidden, readout)

    def settled(self, pair: LayerPair) -> LayerPair:
        """Search and move the particles in turn, until several samples in a row have a solution nearby.

        They differ by more than what is left to find on each.
        """
        confirmed = 0
        for _ in range(self.settings.max_iterations):
            pair, _ = self.search.run(pair, tolerance=_TOLERANCE, max_iterations=_N_STEPS)
            confirmed = confirmed + 1 if pair.residual < _CLOSE else 0
            if confirmed == _N_CONFIRMED:
                return pair
            pair = self._renewed(pair, _N_ROUNDS)
        raise ConvergenceError(
            f"particles of two layers do not settle: relative residual {pair.residual:.1e}",
            last=self.solution(pair),
        )

    def collected(self, pair: LayerPair) -> LayerPair:
        """The solution on a larger sample."""
        return self._solved(self._renewed(pair, _N_COLLECTED))

    def together(self, pair: LayerPair, other: LayerPair) -> LayerPair:
        """The solution on the samples of two runs, from that of the first."""
        (state, readout), (other_state, other_readout) = _sampled(pair), _sampled(other)
        self.layer.take(state.conjugate, other_state.neurons)
        neurons = together(readout.law, readout.neurons, other_readout.neurons)
        hidden = CoreSolution(self.layer.state(state.conjugate), 0.0)
        return self._solved(self._paired(hidden, self.readouts.problem.solve(readout.law, neurons)))

    def solution(self, pair: LayerPair) -> MeanFieldSolution:
        """What there is at a pair of layers."""
        neuron = GeneralDeepPosterior(pair, self.settings.seed)
        residual = pair.readout.residual
        return MeanFieldSolution(
            self.model, neuron, -pair.action, residual, None, len(self.path), "particles"
        )

    def _renewed(self, pair: LayerPair, n_rounds: int) -> LayerPair:
        """The same Kt on particles that moved."""
        state, readout = _sampled(pair)
        self.layer.move(state.conjugate, n_rounds)
        hidden = CoreSolution(self.layer.state(state.conjugate), 0.0)
        return self._paired(hidden, self.readouts.move(readout, n_rounds))

    def _solved(self, pair: LayerPair) -> LayerPair:
        pair, converged = self.search.run(pair, tolerance=_TOLERANCE, max_iterations=_N_FINAL_STEPS)
        if not converged:
            raise ConvergenceError(
                f"the theory of two layers has no solution on its particles: relative residual "
                f"{pair.residual:.1e}",
                last=self.solution(pair),
            )
        return pair

    def _paired(self, hidden: CoreSolution, readout: SampledReadout) -> LayerPair:
        """With particles of the readout layer that follow to the kernel of the first."""
        pair = self.search.pair(hidden, self.readouts.follow(readout, hidden.state.kernel))
        assert pair is not None  # it is there already
        return pair


def _sampled(pair: LayerPair) -> tuple[SampledState, SampledReadout]:
    state, readout = pair.hidden.state, pair.readout
    assert isinstance(state, SampledState)
    assert isinstance(readout, SampledReadout)
    return state, readout
