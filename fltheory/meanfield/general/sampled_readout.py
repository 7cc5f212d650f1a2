"""The readout layer on the learned kernel, by weighted particles: where EP has no fixed point."""

from functools import cached_property

import numpy as np
from attrs import evolve, frozen

from fltheory.errors import ConvergenceError
from fltheory.meanfield.fractions import ImposedFractions, Mixing
from fltheory.meanfield.general.drawn import DrawnNeurons, message, together
from fltheory.meanfield.general.layer import LayersAbove
from fltheory.meanfield.general.moving import ParticlesAbove, SampledLayers
from fltheory.meanfield.law import ImposedLaw, NeuronLaw
from fltheory.meanfield.particles import Particles
from fltheory.meanfield.population import Population
from fltheory.meanfield.sample_dual import SampleDual, exponent
from fltheory.meanfield.sampled import SampledPosterior
from fltheory.meanfield.settings import Settings
from fltheory.model import Model
from fltheory.numerics.newton import minimise
from fltheory.numerics.positive import symmetric_root
from fltheory.numerics.validation import Array
from fltheory.numerics.weights import relative_ess

_LEAST_ESS, _TRUSTED_ESS = 0.1, 0.3  # effective share of the particles: within a step, and on the way
_USABLE = 1e-3  # residual above which a readout is not believed
_N_NEWTON = 30
_MOST_STEPS = 200


@frozen(eq=False)
class SampledReadout(SampledLayers):
    """The readout layer at one kernel, as weighted neurons.

    Attributes
    ----------
    law
        At the solution t, with F the symmetric root of sigma^2 <phi phi^T> of the layer below.
    neurons
        Whose weights they are.
    weights
        (n,), summing to 1.
    action, residual
        S, and the largest absolute entry of its gradient.
    problem
        What is solved at each kernel.
    """

    law: NeuronLaw
    neurons: DrawnNeurons
    weights: Array
    action: float
    residual: float
    problem: "SampledProblem"

    @property
    def weight_variance(self) -> float:
        return self.problem.weight_variance

    @property
    def field(self) -> Array:
        return self.law.field

    @property
    def evenness(self) -> float:
        return relative_ess(self.weights)

    @property
    def kernel_below(self) -> Array:
        return np.asarray(self.law.factor @ self.law.factor.T) / self.weight_variance

    @cached_property
    def message(self) -> Array:
        return self.weight_variance * message(self.law, self.neurons, self.weights)

    @cached_property
    def posterior(self) -> SampledPosterior:
        """These neurons."""
        law, latent, weights = self.law, self.neurons.latent, self.weights
        if law.is_odd:  # the mirrored particles are as likely
            latent, weights = np.concatenate([latent, -latent]), np.concatenate([weights, weights]) / 2
        return SampledPosterior(
            latent,
            weights,
            law.field,
            law.factor,
            self.problem.targets,
            self.problem.noise,
            law.readout_variance,
            law.nonlinearity,
            self.problem.seed,
        )

    def again(self, kernel: Array) -> "SampledReadout | None":
        """By reweighting; None where the particles do not reach."""
        law = evolve(self.law, factor=symmetric_root(self.weight_variance * kernel))
        found = self.problem.solve(law, self.neurons)
        return found if found.residual < _USABLE else None


@frozen(eq=False)
class SampledProblem:
    """The readout layer on one sample after another.

    Attributes
    ----------
    targets, noise, weight_variance
        Y (P, m), N T, and sigma^2 of the weights between the layer below and this one.
    tolerance
        On the residual.
    seed
        Of the answers for new inputs.
    fractions
        Of codes, if any are imposed.
    """

    targets: Array
    noise: float
    weight_variance: float
    tolerance: float
    seed: int
    fractions: ImposedFractions | None = None

    def solve(self, law: NeuronLaw, neurons: DrawnNeurons) -> SampledReadout:
        """The minimum of S on the neurons for this factor, from the law's t as far as they reach."""
        dual = SampleDual(
            law.activations(neurons.latent),
            neurons.drawn_at,
            self.targets,
            self.noise,
            law.readout_variance,
            least_ess=_LEAST_ESS,
            mixing=self._mixing(neurons),
        )
        here = dual(law.field)
        if not np.isfinite(here.value):
            return SampledReadout(law, neurons, here.weights, np.inf, np.inf, self)
        found = minimise(dual, law.field, tolerance=self.tolerance, max_iterations=_N_NEWTON)
        action, weights = found.value + neurons.log_partition, dual(found.x).weights
        moved = self._imposed(evolve(law, field=found.x), dual)
        return SampledReadout(moved, neurons, weights, action, found.residual, self)

    def _mixing(self, neurons: DrawnNeurons) -> Mixing | None:
        if self.fractions is None:
            return None
        mixing = self.fractions.mixing(neurons.activations)
        self.fractions.require(mixing, neurons.activations)
        return mixing

    def _imposed(self, law: NeuronLaw, dual: SampleDual) -> NeuronLaw:
        """Such that neurons drawn of it have the imposed shares of codes."""
        if self.fractions is None:
            return law
        log_weights = exponent(dual.activations, law.field, law.readout_variance) - dual.drawn_at
        offsets = np.log(dual.groups.shares) - dual.groups.log_sizes(log_weights)
        return ImposedLaw(
            law.factor, law.field, law.readout_variance, law.nonlinearity, self.fractions, offsets
        )


class ReadoutParticles(ParticlesAbove[SampledReadout]):
    """The readout layer at any kernel, by particles that follow.

    Parameters
    ----------
    settings
        With the tolerance on the residual.
    seed
        Of the particles.
    """

    def __init__(
        self, model: Model, n_particles: int, settings: Settings, seed: np.random.SeedSequence
    ) -> None:
        self.model, self.n_particles, self.seed, self.report = model, n_particles, seed, settings.report
        self.problem = SampledProblem(
            model.task.targets,
            model.scaled_temperature,
            model.weight_variances[-1],
            settings.tolerance,
            int(seed.generate_state(1)[0]),
            settings.code_fractions,
        )
        self.population: Population | None = None

    def first(self, kernel: Array, like: LayersAbove | None = None) -> SampledReadout:
        """By particles that are cooled down to this N T."""
        run = Particles(
            symmetric_root(self.problem.weight_variance * kernel),
            self.problem.targets,
            self.model.readout_variance,
            self.model.nonlinearity,
            n_particles=self.n_particles,
            seed=self.seed,
        )
        if not run.cool(self.problem.noise, tolerance=_USABLE, report=self.report) or run.sample is None:
            raise ConvergenceError("particles do not settle in the readout layer", last=None)
        sample, self.population = run.sample, run.population
        law = evolve(run.law, field=sample.field)
        drawn_at = law.exponent(law.activations(sample.latent)) - np.log(sample.weights * len(sample.weights))
        found = self.problem.solve(law, DrawnNeurons(law, sample.latent, drawn_at, sample.log_partition))
        return found if self.problem.fractions is None else self.move(found)

    def move(self, near: SampledReadout, n_rounds: int = 1) -> SampledReadout:
        assert self.population is not None
        for _ in range(_MOST_STEPS):
            law = near.law
            self.population.resample(near.weights, near.neurons.latent)
            near = self.problem.solve(law, near.neurons.redrawn(law, self.population.rounds(law, n_rounds)))
            if near.residual < _USABLE and relative_ess(near.weights) > _TRUSTED_ESS:
                return near
        raise ConvergenceError("the particles of the readout layer do not settle", last=None)

    def together(self, one: SampledReadout, other: SampledReadout) -> SampledReadout:
        return self.problem.solve(one.law, together(one.law, one.neurons, other.neurons))
