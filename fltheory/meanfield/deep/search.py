"""The solution of the equations at a given N T, from several first guesses: docs/theory.md section 5."""

import itertools
import math
from collections.abc import Callable

import numpy as np
from attrs import evolve, frozen

from fltheory.meanfield.deep.equations import DeepEquations, DeepState, cooled
from fltheory.meanfield.deep.layer import LayerPoints
from fltheory.meanfield.deep.posterior import DeepPosterior
from fltheory.meanfield.deep.start import draw, first_codes, guess
from fltheory.meanfield.fractions import ImposedFractions, MissingCodeError
from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.numerics.roots import Root, find_root
from fltheory.numerics.validation import Array

_STRENGTHS = (1.5, 1.0, 0.7)  # of first guesses; the first is also the fastest
_ON_THE_WAY = 1e-2  # residual that is good enough there
_FITTING = 0.3  # relative effective sample size from which points stay
_BURST, _ROUNDS = 4, 12  # steps on the same points, and how often these are drawn anew
_OTHER = 1000  # what the seed of another set of points is more
_STUCK = 0.01  # relative change of the residual in a round, from fresh points, that is none
_UNFITTING = 3  # rounds that end at a solution of points that do not fit it
_FAR, _ROUNDS_MERGED = 20.0, 3  # residual of the guess that all neurons are alike; its rounds
_ALIKE = 0.05  # relative differences of a kernel between classes, up to which they are
_MERGED = 0.01  # N T below which no neurons are alike, in units of where they begin to feel the targets
# Other N T to begin with, where no guess leads to a solution: in units of the N T asked for, or, where that
# is smaller, of this share of where neurons begin to feel the targets.
_ELSEWHERE, _COOL = (1 / 3, 3.0, 9.0, 27.0, 81.0, 243.0), 1e-3
_STEP, _LEAST_STEP = 0.4, 0.9  # factor in N T of a step
_N_TRIED = 3  # sets of fresh points, where those of the first do not serve
_SHORTER, _LEAST_SHIFT = 0.4, 0.02  # of steps towards imposed shares
_COLDEST = 0.02  # share of the way's first N T from where the last step is to 0


@frozen
class Points:
    """How many points a layer has, and from which seed."""

    count: int
    seed: int

    def another(self, k: int) -> "Points":
        """As many others; these for k = 0."""
        return evolve(self, seed=self.seed + _OTHER * k)


class DeepSearch:
    """Newton's method on all layers at once, on points that are drawn anew while they fit badly."""

    def __init__(
        self,
        equations: DeepEquations,
        points: Points,
        max_rounds: int,
        report: Callable[[float], None],
    ) -> None:
        self.equations, self.points, self.report = equations, points, report
        self.max_rounds = max_rounds
        self.path: list[float] = []
        self._begun = 0  # rounds before this attempt

    def run(self, start: MeanFieldSolution | None) -> Root[DeepState] | None:
        """The solution near another one, or that of highest J found from guesses, or an attempt."""
        noise, fractions = self.equations.readout.noise, self.equations.readout.fractions
        near = self._near(start)
        if fractions is not None:
            return near
        if near is not None and near.converged:
            return near
        found = self._cold(noise)
        for factor in _ELSEWHERE:
            if found is not None and found.converged:
                break
            self._begun = len(self.path)
            other = self._cold(max(noise, _COOL * self._hot) * factor)
            if other is not None and other.converged:
                found = self._followed(other, noise)
                if noise < _MERGED * self._hot and _are_alike(found.here):
                    found = evolve(found, converged=False)  # followed to where another has a larger J
        if found is None or not found.converged:
            return found
        merged = self._merged(noise) if noise > _MERGED * self._hot else None
        is_better = merged is not None and merged.converged and merged.here.action > found.here.action
        return merged if is_better else found

    def _merged(self, noise: float) -> Root[DeepState] | None:
        """The solution whose kernels hardly tell classes apart, where it is not far from a first guess."""
        equations = cooled(self.equations, noise)
        every = np.ones((1, len(equations.groups.counts)))
        state = guess(equations, _STRENGTHS[1], every, self.points.count, self.points.seed)
        if state is None or np.abs(state.residual).max() > _FAR:
            return None
        return self._settled(state, None, _ROUNDS_MERGED)

    def _near(self, start: MeanFieldSolution | None) -> Root[DeepState] | None:
        """The solution from one for other parameters, if its classes are the same."""
        if start is None or not isinstance(start.neuron, DeepPosterior):
            return None
        state = start.neuron.state
        fractions = self.equations.readout.fractions
        return self._from(self.equations, state) if fractions is None else self._imposed(fractions, state)

    def _imposed(self, fractions: ImposedFractions, state: DeepState) -> Root[DeepState] | None:
        """The solution at imposed shares of codes, these being led there from what they are."""
        self._drawn(evolve(state, equations=self.equations), self.points)  # refuses codes that are none
        found = state.solved.shares_of(fractions)
        root, reached, step = None, 0.0, 1.0
        while reached < 1.0 and step > _LEAST_SHIFT and not self._is_over:
            trial = min(1.0, reached + step)
            shifted = evolve(fractions, shares=(1.0 - trial) * found + trial * fractions.shares)
            readout = evolve(self.equations.readout, fractions=shifted)
            there = self._from(evolve(self.equations, readout=readout), state)
            if there is None or not there.converged:
                step *= _SHORTER
            else:
                root, state, reached = there, there.here, trial
        return root if root is None or reached == 1.0 else evolve(root, converged=False)

    def _from(self, here: DeepEquations, state: DeepState) -> Root[DeepState] | None:
        """The solution of these equations near the state of others; None if classes are not the same."""
        known = state.equations
        if len(known.weight_variances) != len(here.weight_variances) or (
            known.groups.targets.shape != here.groups.targets.shape
        ):
            return None
        numbers = here.pack(*known.unpack(state.numbers))
        first = self.redrawn(evolve(state, equations=here, numbers=numbers), self.points)
        return None if first is None else self._settled(first, None)

    @property
    def _is_over(self) -> bool:
        return len(self.path) >= self._begun + self.max_rounds

    @property
    def _hot(self) -> float:
        """The N T where neurons begin to feel the targets: sigma_a <phi^2>^(1/2) P times their size."""
        readout, groups = self.equations.readout, self.equations.groups
        activity = float(np.diagonal(readout.nonlinearity.gaussian_kernel(np.diag(groups.variances))).max())
        size = math.sqrt(float(groups.counts @ (groups.targets**2).sum(1)) * groups.counts.sum())
        return math.sqrt(readout.readout_variance * activity) * size

    def _cold(self, noise: float) -> Root[DeepState] | None:
        """The solution from the first guess that leads to one."""
        equations, codes, root = cooled(self.equations, noise), first_codes(self.equations), None
        for is_weakened, strength in itertools.product((False, True), _STRENGTHS):
            guessed = guess(
                equations, strength, codes, self.points.count, self.points.seed, is_weakened=is_weakened
            )
            root = root if guessed is None else self._settled(guessed, None)
            if self._is_over or (root is not None and root.converged):
                break
        return root

    def _followed(self, root: Root[DeepState], noise: float) -> Root[DeepState]:
        """The solution at N T followed from that at another; not converged if it ends on the way."""
        factor, coldest = _STEP, _COLDEST * root.here.equations.readout.noise
        while (here := root.here.equations.readout.noise) != noise and not self._is_over:
            there = max(noise, factor * here) if here > noise else min(noise, here / factor)
            there = noise if there < coldest else there
            start = cooled(root.here.equations, there)(root.x, root.here)
            found = None if start is None else self._settled(start, root.jacobian)
            if found is not None and found.converged:
                root = found
            elif (factor := math.sqrt(factor)) > _LEAST_STEP:
                break
        return evolve(root, converged=root.converged and root.here.equations.readout.noise == noise)

    def _settled(self, state: DeepState, jacobian: Array | None, rounds: int = _ROUNDS) -> Root[DeepState]:
        """A root near a state, on points that fit it; not converged if there is none."""
        before, n_unfitting = np.inf, 0
        for _ in range(rounds):
            root = find_root(
                _evaluate,
                state.numbers,
                state,
                tolerance=_ON_THE_WAY,
                jacobian=jacobian,
                max_steps=_BURST,
            )
            self.path.append(root.here.action)
            self.report(root.size)
            if root.converged and root.here.relative_ess > _FITTING:
                return root
            n_unfitting += root.converged
            is_stuck = abs(root.size - before) < _STUCK * before or n_unfitting == _UNFITTING
            if self._is_over or is_stuck:
                break
            before = root.size
            tried = (self.redrawn(root.here, self.points.another(n_unfitting + k)) for k in range(_N_TRIED))
            fresh, jacobian = next((state for state in tried if state is not None), None), root.jacobian
            if fresh is None:
                break
            state = fresh
        return evolve(root, converged=False)

    def polished(self, root: Root[DeepState], points: Points, tolerance: float) -> Root[DeepState]:
        """A root nearby, to the tolerance, on other points."""
        fresh = self.redrawn(root.here, points)
        if fresh is None:
            return evolve(root, converged=False)
        root = find_root(_evaluate, fresh.numbers, fresh, tolerance=tolerance, jacobian=root.jacobian)
        self.path.append(root.here.action)
        self.report(root.size)
        return root

    def redrawn(self, state: DeepState, points: Points) -> DeepState | None:
        """The same unknowns and t on points drawn for them; None if an imposed code is lost."""
        try:
            drawn = self._drawn(state, points)
        except MissingCodeError:
            return None
        return evolve(state.equations, points=drawn)(state.numbers, state)

    def _drawn(self, state: DeepState, points: Points) -> tuple[LayerPoints, ...]:
        return tuple(
            draw(at.layer, state.equations, index, points.count, points.seed, at.points.modes)
            for index, at in enumerate(state.layers)
        )


def _are_alike(state: DeepState) -> bool:
    """Whether the kernel below the readout layer hardly tells several classes apart."""
    blocks = state.equations.unpack(state.numbers)[0][-1].blocks
    return len(blocks) > 1 and bool(np.ptp(blocks) < _ALIKE * np.abs(blocks).max())


def _evaluate(numbers: Array, near: DeepState) -> DeepState | None:
    return near.equations(numbers, near)
