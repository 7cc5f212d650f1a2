"""Two hidden layers of a bounded nonlinearity on any input kernel: where to start, and what to report."""

import numpy as np
from attrs import evolve

from fltheory.errors import ConvergenceError
from fltheory.meanfield.dual import DualProblem
from fltheory.meanfield.general.ep_readout import EPReadout, ReadoutProblem
from fltheory.meanfield.general.guess import FirstGuess
from fltheory.meanfield.general.lattice import Lattice, LatticeState
from fltheory.meanfield.general.posterior import GeneralDeepPosterior
from fltheory.meanfield.general.search import KernelSearch, LayerPair
from fltheory.meanfield.settings import Settings
from fltheory.meanfield.solution import Agreement, MeanFieldSolution
from fltheory.model import Model
from fltheory.numerics.positive import kernel_factor
from fltheory.numerics.validation import Array

_POWER = 0.75  # of EP in the readout layer; 1 has fixed points that come and go with the kernel
_SPACING, _FINER = 2.0, 1.6  # of the lattice on the way, and at the solution
_TOLERANCE = 1e-3  # relative, of the equations of the first layer
_SHARES = (0.5, 0.75, 0.25, 0.0)  # of codes in a first guess of K_1, beside the prior's kernel
_READOUT_STEPS, _FEW_STEPS = 40, 15  # of EP on a first guess, and where particles are the alternative
_WORST = 0.05  # relative difference from exact neurons from which a solution is not resolved


def solve_lattice(model: Model, settings: Settings) -> MeanFieldSolution:
    """By a lattice in the latent of the first layer, and EP in the second.

    It tries longer where particles are no alternative.

    Raises
    ------
    ConvergenceError
        If no solution is found to the tolerance.
    """
    attempt = _Attempt(model, settings)
    coarse, converged = attempt.run()
    pair, converged = attempt.refined(coarse) if converged else (coarse, False)
    solution = attempt.solution(pair)
    if not converged:
        raise ConvergenceError(
            f"the theory of the first hidden layer stopped with relative residual {pair.residual:.1e} "
            f"(tolerance {_TOLERANCE:.0e}); try another temperature, or start= at its solution",
            last=solution,
        )
    return _checked(solution, _between_lattices(pair, coarse))


class _Attempt:
    """The layers of one model, and where to start."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model, self.settings = model, settings
        is_last_resort = settings.method == "ep"
        self.shares = _SHARES if is_last_resort else _SHARES[:1]
        self.readout_steps = _READOUT_STEPS if is_last_resort else _FEW_STEPS
        self.factor = kernel_factor(model.input_kernel)
        self.guess = FirstGuess(model)
        free = DualProblem(
            self.factor,
            model.task.targets,
            model.scaled_temperature,
            model.readout_variance,
            model.nonlinearity,
            settings.seed,
            _POWER,
        )
        tolerance = min(settings.tolerance, 1e-5)
        self.free = ReadoutProblem(free, model.weight_variances[1], tolerance)
        self.problem = evolve(self.free, template=evolve(free, fractions=settings.code_fractions))
        self.search = KernelSearch(self._lattice(_SPACING), model.task.n_outputs, settings.report)

    def _lattice(self, spacing: float) -> Lattice:
        return Lattice(self.factor, self.model.nonlinearity, self.guess.patterns, spacing)

    def run(self) -> tuple[LayerPair, bool]:
        """From the given start or a guess; whether it converged."""
        return self._search(self._from_start() or self._cold())

    def _search(self, pair: LayerPair) -> tuple[LayerPair, bool]:
        return self.search.run(pair, tolerance=_TOLERANCE, max_iterations=self.settings.max_iterations)

    def refined(self, pair: LayerPair) -> tuple[LayerPair, bool]:
        """The solution on a finer lattice, from that on the coarser one."""
        self.search = evolve(self.search, layer=self._lattice(_FINER))
        state = pair.hidden.state
        try:
            finer = self.search.resume(state.conjugate, state.kernel, pair.readout)
        except ConvergenceError:
            return pair, False
        return self._search(finer)

    def _from_start(self) -> LayerPair | None:
        """On from a solution of this kind for as many inputs and outputs; None without one, or in vain."""
        start = self.settings.start
        if start is None or start.method != "lattice":
            return None
        assert isinstance(start.neuron, GeneralDeepPosterior)
        state, readout = start.neuron.pair.hidden.state, start.neuron.pair.readout
        assert isinstance(readout, EPReadout)
        try:
            first = self.problem.first(state.kernel, readout.point, self.readout_steps)
            return self.search.resume(state.conjugate, state.kernel, first)
        except ConvergenceError:
            return None

    def _cold(self) -> LayerPair:
        """From the first guess of K_1 on which the readout layer is resolved: EP fails on some."""
        for share in self.shares:
            guess = self.guess.kernel(share)
            try:
                return self.search.begin(guess, self._first_readout(guess))
            except ConvergenceError as error:
                last = error
        raise last

    def _first_readout(self, guess: Array) -> EPReadout:
        found, fractions = self.free.first(guess, None, self.readout_steps), self.settings.code_fractions
        if fractions is None:
            return found
        activations = found.point.branches.activations
        fractions.require(fractions.mixing(activations), activations)
        return self.problem.first(guess, found.point, self.readout_steps)

    def solution(self, pair: LayerPair) -> MeanFieldSolution:
        """What there is at a pair of layers."""
        neuron = GeneralDeepPosterior(pair, self.settings.seed)
        residual, path = pair.readout.residual, tuple(self.search.path)
        return MeanFieldSolution(
            self.model, neuron, -pair.action, residual, None, len(path), "lattice", action_path=path
        )


def _between_lattices(pair: LayerPair, coarse: LayerPair) -> Agreement:
    """How far the solution on the coarser lattice is: more than the error of the finer one."""
    kernels = pair.hidden.state.kernel, coarse.hidden.state.kernel
    fields = pair.readout.field, coarse.readout.field
    return Agreement.between("a coarser lattice", fields, [kernels])


def _checked(solution: MeanFieldSolution, lattices: Agreement) -> MeanFieldSolution:
    """With the largest of the differences from another lattice and from exact neurons of both layers.

    Those of the readout layer know of no imposed shares, and are not asked then.
    """
    neuron = solution.neuron
    assert isinstance(neuron, GeneralDeepPosterior)
    state, readout = neuron.pair.hidden.state, neuron.pair.readout
    assert isinstance(state, LatticeState)
    assert isinstance(readout, EPReadout)
    kernel, field, missing = lattices.kernel, lattices.dual_field, 0.0
    gap = np.linalg.norm(state.exact_kernel - state.kernel) / np.linalg.norm(state.kernel)
    kernel = max(kernel, float(gap))
    if readout.point.problem.fractions is None:
        checked = readout.posterior.confirmation
        field, kernel = max(field, checked.field_difference), max(kernel, checked.kernel_difference)
        missing = checked.missing_probability
    solution = evolve(
        solution, agreement=Agreement("another lattice and exact neurons", field, kernel, missing)
    )
    if max(field, kernel, missing) > _WORST:
        raise ConvergenceError(
            "the theory of two layers is not resolved: expectation propagation fails on exact neurons "
            f"({solution.agreement}, {missing:.1%} of them overlooked); try another temperature",
            last=solution,
        )
    return solution
