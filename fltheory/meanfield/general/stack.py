"""A hidden layer and all above it by weighted particles, on any kernel of the layer below."""

from functools import cached_property
from typing import Any

import numpy as np
from attrs import evolve, frozen

from fltheory.errors import ConvergenceError
from fltheory.meanfield.general.conjugate import ConjugateKernel, leading_directions
from fltheory.meanfield.general.drawn import message
from fltheory.meanfield.general.guess import FirstGuess
from fltheory.meanfield.general.layer import CoreSolution, LayersAbove
from fltheory.meanfield.general.moving import ParticlesAbove, SampledLayers
from fltheory.meanfield.general.posterior import GeneralDeepPosterior
from fltheory.meanfield.general.sampled_layer import HiddenParticles, SampledLayer, SampledState
from fltheory.meanfield.general.search import KernelSearch, LayerPair
from fltheory.meanfield.settings import Settings
from fltheory.model import Model
from fltheory.numerics.positive import kernel_factor, symmetric_root
from fltheory.numerics.validation import Array
from fltheory.numerics.weights import relative_ess

_N_ROUNDS = 4  # that make a sample on the way
_N_STEPS, _N_FINAL_STEPS = 12, 60  # of the search on one sample
_N_CONFIRMED, _CLOSE = 2, 0.02  # samples in a row that reach this relative residual, where the way ends
_AT_GUESS = 0.01  # relative, of the overlap there
_TOLERANCE = 1e-3  # relative, of the equations of a hidden layer
_INNER_TOLERANCE = 1e-5  # and where a layer below differentiates by finite differences


@frozen(eq=False)
class Stack(SampledLayers):
    """A hidden layer and all above it at one kernel of the layer below.

    Attributes
    ----------
    pair
        The layer, and what is above it.
    weight_variance
        Of the weights between it and the layer below.
    curvature
        What Newton's method for the layer's kernel knows already.
    seed
        Of the answers for new inputs.
    """

    pair: LayerPair
    weight_variance: float
    curvature: Array | None
    seed: int

    @property
    def state(self) -> SampledState:
        """The hidden layer."""
        state = self.pair.hidden.state
        assert isinstance(state, SampledState)
        return state

    @property
    def above(self) -> SampledLayers:
        """What is above it."""
        assert isinstance(self.pair.readout, SampledLayers)
        return self.pair.readout

    @property
    def field(self) -> Array:
        return self.above.field

    @property
    def action(self) -> float:
        return self.pair.action

    @property
    def residual(self) -> float:
        return self.above.residual

    @property
    def evenness(self) -> float:
        return min(relative_ess(self.state.weights), self.above.evenness)

    @property
    def kernel_below(self) -> Array:
        return np.asarray(self.state.factor @ self.state.factor.T) / self.weight_variance

    @cached_property
    def message(self) -> Array:
        return self.weight_variance * message(self.state.law, self.state.neurons, self.state.weights)

    @cached_property
    def posterior(self) -> GeneralDeepPosterior:
        return GeneralDeepPosterior(self.pair, self.seed)

    def again(self, kernel: Array) -> "Stack | None":
        """By reweighting all layers; None where the particles do not reach."""
        state = self.state
        factor = symmetric_root(self.weight_variance * kernel)
        layer = SampledLayer(factor, state.nonlinearity, state.neurons)
        n_directions = state.conjugate.directions.shape[1]
        search = KernelSearch(layer, n_directions, lambda _: None, curvature=self.curvature)
        try:
            pair = search.resume(state.conjugate, state.kernel, self.above)
        except ConvergenceError:
            return None
        pair, converged = search.run(pair, tolerance=_INNER_TOLERANCE, max_iterations=_N_FINAL_STEPS)
        return evolve(self, pair=pair, curvature=search.curvature) if converged else None


class StackParticles(ParticlesAbove[Stack]):
    """Hidden layer ``index`` = 1, ..., L - 1 and all above it, by particles that follow.

    Parameters
    ----------
    index
        Of the layer.
    above
        The layers above it.
    n_particles
        Of this layer, that move.
    seed
        Of these particles.

    Attributes
    ----------
    latest
        What the search has come to.
    """

    def __init__(
        self,
        model: Model,
        index: int,
        above: ParticlesAbove[Any],
        n_particles: int,
        settings: Settings,
        seed: np.random.SeedSequence,
    ) -> None:
        self.model, self.index, self.above = model, index, above
        self.n_particles, self.settings = n_particles, settings
        self.weight_variance = 1.0 if index == 1 else model.weight_variances[index - 1]  # K_0 has its own
        self.rng, self.seed = np.random.default_rng(seed), int(seed.generate_state(1)[0])
        self.latest: Stack | None = None

    @property
    def path(self) -> list[float]:
        """J at each step."""
        return self.search.path

    def first(self, kernel: Array, like: LayersAbove | None = None) -> Stack:
        if like is None:
            return self.settled(self.begin(kernel))
        assert isinstance(like, Stack)
        return self.solved(self.begin(kernel, like.pair))

    def begin(self, kernel: Array, like: LayerPair | None = None) -> Stack:
        """On a kernel (P, P) of the layer below, not solved yet: from a guess, or as another has it."""
        below, n_directions = self.weight_variance * kernel, self.model.task.n_outputs
        factor = kernel_factor(below) if self.index == 1 else symmetric_root(below)
        self.particles = HiddenParticles(factor, self.model.nonlinearity, self.n_particles, self.rng)
        self.search = KernelSearch(self.particles.layer, n_directions, self.settings.report)
        if like is None:
            own = FirstGuess(self.model).kernel(self.index / self.model.n_hidden_layers, below)
            above = self.above.first(own)
            total = above.message
        else:
            own, total = like.hidden.state.kernel, like.hidden.state.conjugate.total
            above = self.above.first(own, like.readout)
        conjugate = ConjugateKernel.of(total, leading_directions(total, n_directions))
        v = conjugate.directions
        return self._with(self.particles.follow(conjugate, v.T @ own @ v, _AT_GUESS), above)

    def settled(self, near: Stack) -> Stack:
        """Search and move the particles in turn, until several samples in a row have a solution nearby.

        They differ by more than what is left to find on each.

        Raises
        ------
        ConvergenceError
            If that does not happen.
        """
        confirmed = 0
        for _ in range(self.settings.max_iterations):
            near, _ = self._searched(near, _N_STEPS)
            confirmed = confirmed + 1 if near.pair.residual < _CLOSE else 0
            if confirmed == _N_CONFIRMED:
                return near
            near = self._renewed(near, _N_ROUNDS)
        raise ConvergenceError(
            f"particles of hidden layer {self.index} do not settle: relative residual "
            f"{near.pair.residual:.1e}"
        )

    def solved(self, near: Stack) -> Stack:
        """The solution on the particles at hand.

        Raises
        ------
        ConvergenceError
            If there is none.
        """
        near, converged = self._searched(near, _N_FINAL_STEPS)
        if not converged:
            raise ConvergenceError(
                f"particles of hidden layer {self.index} have no solution: relative residual "
                f"{near.pair.residual:.1e}"
            )
        return near

    def move(self, near: Stack, n_rounds: int = 1) -> Stack:
        return self.solved(self._renewed(near, n_rounds))

    def together(self, one: Stack, other: Stack) -> Stack:
        hidden = CoreSolution(self.particles.take(one.state, other.state), 0.0)
        return self.solved(self._with(hidden, self.above.together(one.above, other.above)))

    def _searched(self, near: Stack, max_iterations: int) -> tuple[Stack, bool]:
        self.search = evolve(self.search, layer=self.particles.layer, curvature=None)
        pair, converged = self.search.run(near.pair, tolerance=_TOLERANCE, max_iterations=max_iterations)
        self.latest = evolve(near, pair=pair, curvature=self.search.curvature)
        return self.latest, converged

    def _renewed(self, near: Stack, n_rounds: int) -> Stack:
        """The same Kt on particles that moved."""
        hidden = CoreSolution(self.particles.move(near.state, n_rounds), 0.0)
        return self._with(hidden, self.above.move(near.above, n_rounds))

    def _with(self, hidden: CoreSolution, above: SampledLayers) -> Stack:
        """With what is above, which follows to the kernel of the layer."""
        pair = self.search.pair(hidden, self.above.follow(above, hidden.state.kernel))
        assert pair is not None  # it is there already
        self.latest = Stack(pair, self.weight_variance, self.search.curvature, self.seed)
        return self.latest
