"""The dual problem by weighted samples: any kernel, any phi, no list of codes.

Particles of the exact law at one t are reweighted for others nearby, where S is minimised on them
(``SampleDual``); then they move on. Branches are born while N T falls (docs/theory.md, section
5.3). At the end the particles of several rounds together make one weighted sample, on which S is
minimised once more. The error is of order M^(-1/2).
"""

from collections.abc import Sequence

import numpy as np
from attrs import evolve, frozen

from fltheory.meanfield.domain import DomainMinimum, minimise_anywhere, minimise_in_domain
from fltheory.meanfield.law import NeuronLaw
from fltheory.meanfield.outliers import CondensedNeurons, Ray, RaySearch
from fltheory.meanfield.population import Population
from fltheory.meanfield.sample_dual import Report, SampleDual, drawn_together, exponent
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array

_HOT, _COOLING = 8.0, 0.7  # first N T, and the ratio of one to the next
_COLDEST = 1e-3  # from where the last step is to N T = 0
_TILTED = 1.0  # log Z from which the law differs from the prior's, and there are more particles
_N_TRACKING, _N_COLLECTED = 5, 8  # rounds at the end: to settle, and to make the sample of
_MOST_ENTRIES = 2**24  # of phi of this sample
_MOST_STEPS, _FIRST_RADIUS = 30, 2.0  # of one minimisation, and of its first step, at most
_TRUSTED_ESS, _LEAST_ESS = 0.5, 0.02  # effective share of reweighted particles; of two runs together
_ON_THE_WAY = 1e-3  # residual at which particles move on


@frozen(eq=False)
class ParticleSample:
    """The weighted particles at the solution.

    Attributes
    ----------
    latent, weights
        g (n, q) and the weights (n,), which sum to 1.
    field
        t, (P, m), which solves (5) on them.
    log_partition
        log Z(t).
    residual
        Largest absolute entry of the gap of (5), or (11), on them.
    condensed, largest_strength
        The outliers and the largest lambda of (14e), where phi has a slope at infinity.
    """

    latent: Array
    weights: Array
    field: Array
    log_partition: float
    residual: float
    condensed: CondensedNeurons | None = None
    largest_strength: float | None = None


class Particles:
    """M neurons of the law at one t, which follow t as it changes.

    Attributes
    ----------
    population
        The neurons.
    field
        t, (P, m).
    log_partition
        log Z(t), summed up along the way from t = 0.
    n_rounds
        How often S was minimised and the particles moved.
    sample
        What the last call of ``cool`` found.
    """

    def __init__(
        self,
        factor: Array,
        targets: Array,
        readout_variance: float,
        nonlinearity: Nonlinearity,
        *,
        n_particles: int,
        seed: int | np.random.SeedSequence,
    ) -> None:
        self.factor, self.targets = factor, targets
        self.readout_variance, self.nonlinearity = readout_variance, nonlinearity
        rng = np.random.default_rng(seed)
        self.population = Population(rng.standard_normal((n_particles, factor.shape[1])), rng)
        self.field = np.zeros_like(targets)
        self.log_partition = 0.0
        self.n_rounds = 0
        self.sample: ParticleSample | None = None
        self._rays: Sequence[Ray] = ()
        self._ray_search: RaySearch | None = None
        if not nonlinearity.is_bounded:
            self._ray_search = RaySearch(factor, nonlinearity.asymptotic_slopes, readout_variance)

    @property
    def law(self) -> NeuronLaw:
        """What the particles are drawn from."""
        return NeuronLaw(self.factor, self.field, self.readout_variance, self.nonlinearity)

    def cool(self, noise: float, *, tolerance: float, report: Report, max_iterations: int = 40) -> bool:
        """Follow t down a path of N T to ``noise`` and make the sample there; whether all was solved.

        ``max_iterations`` limits the rounds at one N T.
        """
        settled = all(self._settle(stage, report, max_iterations) for stage in _path(noise))
        if settled:
            self.population.hurry()
            for _ in range(_N_TRACKING):
                self._round(noise, report)
        self.sample = self._collect(noise, tolerance, report, _N_COLLECTED if settled else 1)
        self.field, self.log_partition = self.sample.field, self.sample.log_partition
        return settled and self.sample.residual < tolerance

    def _settle(self, noise: float, report: Report, max_iterations: int) -> bool:
        """Solve at one N T: reweight as far as the particles reach, and move them, until they do."""
        if self.population.has_clusters:
            self.population.fit_clusters(self.law)
        elif self.log_partition > _TILTED:
            self.population.multiply(self.law)
        return any(self._round(noise, report) for _ in range(max_iterations))

    def _round(self, noise: float, report: Report) -> bool:
        """Minimise S on the particles, and move them to the new t; whether the minimum was reached."""
        activations = self.law.activations(self.population.latent)
        drawn_at = exponent(activations, self.field, self.readout_variance)
        found = self.minimise(activations, drawn_at, noise, _ON_THE_WAY)
        dual = SampleDual(activations, drawn_at, self.targets, noise, self.readout_variance)
        report(found.residual)
        self.n_rounds += 1
        before = self.law
        self.population.resample(dual(found.x).weights)
        self.field, self._rays = found.x, found.rays
        self.population.move(self.law)
        latent = self.population.latent
        self.log_partition += before.growth_to(self.law.exponent(self.law.activations(latent)), latent)
        return found.converged

    def minimise(
        self, activations: Array, drawn_at: Array, noise: float, tolerance: float, *, final: bool = False
    ) -> DomainMinimum:
        """S on a sample (see ``SampleDual``), within the domain where no neuron condenses.

        What is ``final`` may reweight the particles more, and makes sure of the rays.
        """
        least = _LEAST_ESS if final else _TRUSTED_ESS
        dual = SampleDual(activations, drawn_at, self.targets, noise, self.readout_variance, least)
        if self._ray_search is None:
            return minimise_anywhere(dual, self.field, tolerance=tolerance, max_iterations=_MOST_STEPS)
        return minimise_in_domain(
            dual,
            self._ray_search,
            self.field,
            self._rays,
            tolerance=tolerance,
            max_iterations=_MOST_STEPS,
            radius=_FIRST_RADIUS,
            thorough=final,
        )

    def _collect(self, noise: float, tolerance: float, report: Report, n_rounds: int) -> ParticleSample:
        """S minimised on the particles of several rounds, at the t between which it wanders."""
        most = _MOST_ENTRIES // (len(self.factor) * len(self.population.latent))
        log_partition, fields, latents = self.log_partition, [self.field], [self.population.latent]
        for _ in range(min(n_rounds, most) - 1):
            self._round(noise, report)
            fields.append(self.field)
            latents.append(self.population.latent)
        latent = np.concatenate(latents)
        activations = self.law.activations(latent)
        drawn_at = drawn_together(activations, fields, self.readout_variance)
        sample = self.solved(latent, drawn_at, noise, tolerance)
        report(sample.residual)
        return evolve(sample, log_partition=log_partition + sample.log_partition)

    def solved(
        self, latent: Array, drawn_at: Array, noise: float, tolerance: float, *, final: bool = False
    ) -> ParticleSample:
        """The minimum of S on particles (n, q), with log Z relative to the laws that they are drawn from."""
        activations = self.law.activations(latent)
        found = self.minimise(activations, drawn_at, noise, tolerance, final=final)
        dual = SampleDual(activations, drawn_at, self.targets, noise, self.readout_variance, 0.0)
        there = dual(found.x)
        weights, condensed, largest = there.weights, None, None
        if self._ray_search is not None:
            condensed = CondensedNeurons.along(found.rays, found.amplitudes, self._ray_search.slopes)
            largest = found.rays[0].strength
        if self.law.is_odd:  # the mirrored particles are as likely, and share the solution
            latent, weights = np.concatenate([latent, -latent]), np.concatenate([weights, weights]) / 2
        return ParticleSample(latent, weights, found.x, there.growth, found.residual, condensed, largest)


def _path(noise: float) -> list[float]:
    path = [max(_HOT, noise)]
    while path[-1] * _COOLING > max(noise, _COLDEST):
        path.append(path[-1] * _COOLING)
    return [*path, noise] if path[-1] > noise else path


@frozen(eq=False)
class Replicates:
    """Two independent runs, and the solution on the particles of both.

    Attributes
    ----------
    sample
        The solution.
    field_difference, kernel_difference
        Norm of the difference of the two runs, relative to the solution: of t and of <phi phi^T>.
    output_difference
        Root mean square of the same for the outputs on the training inputs.
    n_rounds
        Of both.
    converged
        Whether both settled and the residual is below the tolerance.
    """

    sample: ParticleSample
    field_difference: float
    kernel_difference: float
    output_difference: float
    n_rounds: int
    converged: bool


def solve_twice(
    runs: tuple[Particles, Particles], noise: float, *, tolerance: float, report: Report, max_iterations: int
) -> Replicates:
    """Cool two sets of particles that know nothing of each other, and solve on both together.

    Their difference is twice the standard error of what they share.
    """
    roughly = max(tolerance, _ON_THE_WAY)  # each alone is known to its sampling error only
    settled = [
        run.cool(noise, tolerance=roughly, report=report, max_iterations=max_iterations) for run in runs
    ]
    first, second = (run.sample for run in runs)
    assert first is not None
    assert second is not None
    latent, drawn_at = (np.concatenate(part) for part in zip(*map(_as_drawn, runs), strict=True))
    runs[0].field = 0.5 * (first.field + second.field)
    sample = runs[0].solved(latent, drawn_at, noise, tolerance, final=True)
    log_partition = sample.log_partition + 0.5 * (first.log_partition + second.log_partition)
    kernels = [_kernel(runs[0].law.activations(s.latent), s.weights) for s in (first, second)]
    difference = first.field - second.field
    return Replicates(
        evolve(sample, log_partition=log_partition),
        float(np.linalg.norm(difference) / np.linalg.norm(sample.field)),
        float(np.linalg.norm(kernels[0] - kernels[1]) / np.linalg.norm(kernels[0])),
        float(noise * np.sqrt(np.mean(difference**2))),
        runs[0].n_rounds + runs[1].n_rounds,
        all(settled) and sample.residual < tolerance,
    )


def _as_drawn(run: Particles) -> tuple[Array, Array]:
    """The particles of a run and ``drawn_at`` for their weights at its t."""
    sample = run.sample
    assert sample is not None
    kept = sample.weights > 0
    latent, weights = sample.latent[kept], sample.weights[kept]
    drawn_at = exponent(run.law.activations(latent), sample.field, run.readout_variance)
    return latent, drawn_at - np.log(weights * len(weights))


def _kernel(activations: Array, weights: Array) -> Array:
    return np.asarray(activations.T @ (weights[:, None] * activations))
