"""A hidden layer under a conjugate kernel, by weighted particles: where EP at a latent fails."""

from functools import cached_property

import numpy as np
from attrs import evolve, frozen
from scipy.special import logsumexp, softmax

from fltheory.errors import ConvergenceError
from fltheory.meanfield.general.conjugate import ConjugateKernel
from fltheory.meanfield.general.core import CorePoint
from fltheory.meanfield.general.drawn import DrawnNeurons, together
from fltheory.meanfield.general.layer import CoreSolution, HiddenState
from fltheory.meanfield.general.symmetric import coordinates, matrix
from fltheory.meanfield.law import HiddenLaw
from fltheory.meanfield.population import Population
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.newton import minimise
from fltheory.numerics.validation import Array
from fltheory.numerics.weights import relative_ess

_LEAST_ESS, _TRUSTED_ESS = 0.1, 0.5  # effective share of the particles: within a step, and on the way
_SHRINK = 0.7  # of a step on the way of Kt
_MOST_STEPS = 200
_CORE_STEPS = 40


@frozen(eq=False)
class SampledState(HiddenState):
    """The layer under one Kt, as weighted neurons.

    Attributes
    ----------
    layer
        Whose neurons they are.
    weights
        (n,), summing to 1.
    """

    layer: "SampledLayer"
    conjugate: ConjugateKernel
    weights: Array
    log_partition: float

    @property
    def factor(self) -> Array:
        return self.layer.factor

    @property
    def nonlinearity(self) -> Nonlinearity:
        return self.layer.nonlinearity

    @property
    def neurons(self) -> DrawnNeurons:
        """Those of the layer."""
        return self.layer.neurons

    @property
    def law(self) -> HiddenLaw:
        """Of one neuron."""
        return self.layer.law(self.conjugate.total)

    @property
    def mean_activations(self) -> Array:
        return np.asarray(self.weights @ self.layer.activations)

    @cached_property
    def kernel(self) -> Array:
        return _second_moment(self.layer.activations, self.weights)

    @cached_property
    def _centred(self) -> Array:
        """q = V^T phi phi^T V in coordinates, less its mean, (n, k)."""
        q = _overlaps(self.layer.activations, self.conjugate)
        return np.asarray(q - self.weights @ q)

    def response(self) -> Array:  # half the covariance of q
        return np.asarray(0.5 * self._centred.T @ (self.weights[:, None] * self._centred))

    def kernel_directions(self) -> Array:
        shares = 0.5 * self.weights[:, None] * self._centred
        return np.stack([_second_moment(self.layer.activations, share) for share in shares.T])

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Particles, of which one may come twice."""
        return self.neurons.latent[rng.choice(len(self.weights), size=n, p=self.weights)]


def _second_moment(activations: Array, weights: Array) -> Array:
    return np.asarray(activations.T @ (weights[:, None] * activations))


def _overlaps(activations: Array, conjugate: ConjugateKernel) -> Array:
    along = activations @ conjugate.directions
    return coordinates(along[:, :, None] * along[:, None, :])


@frozen(eq=False)
class SampledLayer:
    """The layer under any Kt near the one that its neurons were drawn of.

    Attributes
    ----------
    factor
        F (P, q) with K = F F^T of the layer below, which may be another than that of the neurons.
    neurons
        By whose weights it answers.
    """

    factor: Array
    nonlinearity: Nonlinearity
    neurons: DrawnNeurons

    @cached_property
    def activations(self) -> Array:
        """phi(F g) of the neurons, (n, P)."""
        drawn_of = self.neurons.law
        same = self.factor is drawn_of.factor
        law = self.law(drawn_of.conjugate)
        return self.neurons.activations if same else law.activations(self.neurons.latent)

    def law(self, total: Array) -> HiddenLaw:
        """Of one neuron under a Kt (P, P)."""
        return HiddenLaw(self.factor, total, self.nonlinearity)

    def expect(self, residual: float) -> None:
        """Reweighting is exact on the particles."""

    def state(self, conjugate: ConjugateKernel) -> SampledState:
        """Under this Kt, by reweighting."""
        exponents = self.law(conjugate.total).exponent(self.activations)
        weights, log_partition = self.neurons.weights(exponents)
        return SampledState(self, conjugate, weights, log_partition)

    def at_overlap(
        self, conjugate: ConjugateKernel, overlap: Array, *, tolerance: float, max_iterations: int
    ) -> CoreSolution:
        """See ``HiddenLayer``: a ``ConvergenceError`` where the particles do not reach."""
        found = self.towards(conjugate, overlap, _LEAST_ESS, tolerance, max_iterations)
        if found.error > tolerance:
            raise ConvergenceError("the particles of a hidden layer do not reach that far", last=None)
        return found

    def towards(
        self, conjugate: ConjugateKernel, overlap: Array, least: float, tolerance: float, max_iterations: int
    ) -> CoreSolution:
        """As near to this overlap as the particles reach with an effective share of at least ``least``."""
        target = coordinates(overlap)
        rest = self.law(evolve(conjugate, core=np.zeros_like(conjugate.core)).total)
        known = rest.exponent(self.activations) - self.neurons.drawn_at
        q = _overlaps(self.activations, conjugate)

        def look(x: Array) -> CorePoint:
            # log Z - x.M / 2 for c in coordinates x; infinite where the particles say nothing
            exponents = known + 0.5 * q @ x
            weights = softmax(exponents)
            value = float(logsumexp(exponents)) - 0.5 * float(x @ target)
            if relative_ess(weights) < least:
                value = np.inf
            mean = weights @ q
            centred = q - mean
            curvature = 0.25 * centred.T @ (weights[:, None] * centred)
            return CorePoint(value, 0.5 * (mean - target), curvature)

        scale, start = float(np.abs(target).max()), coordinates(conjugate.core)
        if not np.isfinite(look(start).value):
            return CoreSolution(self.state(conjugate), np.inf)
        found = minimise(look, start, tolerance=0.25 * tolerance * scale, max_iterations=max_iterations)
        moved = evolve(conjugate, core=matrix(found.x, len(overlap)))
        return CoreSolution(self.state(moved), 2.0 * found.residual / scale)


class HiddenParticles:
    """Particles of a hidden layer, which follow its law: first the prior on a kernel F F^T."""

    def __init__(
        self, factor: Array, nonlinearity: Nonlinearity, n_particles: int, rng: np.random.Generator
    ) -> None:
        law = HiddenLaw(factor, np.zeros((len(factor), len(factor))), nonlinearity)
        self.population = Population(rng.standard_normal((n_particles, factor.shape[1])), rng)
        neurons = DrawnNeurons(law, self.population.latent, np.zeros(n_particles), 0.0)
        self.layer = SampledLayer(factor, nonlinearity, neurons)

    def move(self, state: SampledState, n_rounds: int = 1) -> SampledState:
        """The same law on particles drawn afresh, near those at hand: of several rounds, together."""
        self.population.resample(state.weights, state.neurons.latent)
        neurons = state.neurons.redrawn(state.law, self.population.rounds(state.law, n_rounds))
        return self._hold(state, neurons)

    def take(self, state: SampledState, other: SampledState) -> SampledState:
        """The law of a state on its particles and on those of another state near it, together."""
        return self._hold(state, together(state.law, state.neurons, other.neurons))

    def _hold(self, state: SampledState, neurons: DrawnNeurons) -> SampledState:
        self.layer = SampledLayer(state.factor, state.nonlinearity, neurons)
        return self.layer.state(state.conjugate)

    def follow(self, conjugate: ConjugateKernel, overlap: Array, tolerance: float) -> CoreSolution:
        """Particles of this overlap and of what Kt is beside its core, in as many steps as they need.

        On the way the overlap is given, not the core, on which shares of peaks depend so sharply that all
        neurons would go over to one of them.
        """
        begin = ConjugateKernel.of(self.layer.neurons.law.conjugate, conjugate.directions)
        first = self.layer.state(begin).overlap
        near, part, length = begin, 0.0, 1.0
        for _ in range(_MOST_STEPS):
            there = min(1.0, part + length)
            total = begin.total + there * (conjugate.total - begin.total)
            step = evolve(ConjugateKernel.of(total, conjugate.directions), core=near.core)
            goal = first + there * (overlap - first)
            found = self.layer.towards(step, goal, _TRUSTED_ESS, tolerance, _CORE_STEPS)
            if found.error > tolerance:
                length *= _SHRINK
                continue
            assert isinstance(found.state, SampledState)
            near, part = found.state.conjugate, there
            self.move(found.state)
            if part == 1.0:
                return self.layer.towards(near, overlap, _TRUSTED_ESS, tolerance, _CORE_STEPS)
            length /= _SHRINK
        raise ConvergenceError("the particles of a hidden layer do not follow", last=None)
