"""One hidden layer on any input kernel, by weighted particles."""

import numpy as np

from fltheory.errors import ConvergenceError
from fltheory.meanfield.condensed import CondensedPosterior
from fltheory.meanfield.neuron import NeuronPosterior
from fltheory.meanfield.particles import Particles, Replicates, solve_twice
from fltheory.meanfield.sampled import SampledPosterior
from fltheory.meanfield.settings import Settings
from fltheory.meanfield.solution import Agreement, MeanFieldSolution
from fltheory.model import Model
from fltheory.numerics.positive import kernel_factor
from fltheory.numerics.validation import Array

_UNRESOLVED = 0.05  # relative standard error of t from which particles do not know it
_N_PARTICLES = 1000  # of each of two runs, at first


def solve_particles(model: Model, settings: Settings) -> MeanFieldSolution:
    """By weighted particles: slower, of limited accuracy, and complete."""
    factor, targets, noise = kernel_factor(model.input_kernel), model.task.targets, model.scaled_temperature

    def particles(seed: np.random.SeedSequence) -> Particles:
        return Particles(
            factor, targets, model.readout_variance, model.nonlinearity, n_particles=_N_PARTICLES, seed=seed
        )

    first, second = np.random.SeedSequence(settings.seed).spawn(2)
    found = solve_twice(
        (particles(first), particles(second)),
        noise,
        tolerance=settings.tolerance,
        report=settings.report,
        max_iterations=settings.max_iterations,
    )
    solution = _sampled(model, settings, factor, found)
    if not found.converged:
        raise ConvergenceError(
            f"the theory is not resolved at N T = {noise:g}: particles did not settle on the way there, or "
            f"on what both runs found (residual {solution.residual:.2e}, tolerance "
            f"{settings.tolerance:.1e}); try a higher temperature or another seed",
            last=solution,
        )
    if 0.5 * found.field_difference > _UNRESOLVED:
        raise ConvergenceError(
            f"the dual field t is not resolved at N T = {noise:g}: two runs of particles differ by "
            f"{found.field_difference:.1%}. Resolved are the outputs on the training inputs, to "
            f"+-{found.output_difference:.2g} rms, and the kernel, to +-{found.kernel_difference:.1%}; try a "
            "higher temperature",
            last=solution,
        )
    return solution


def _sampled(model: Model, settings: Settings, factor: Array, found: Replicates) -> MeanFieldSolution:
    """The solution on the particles of two runs."""
    targets, noise, sample = model.task.targets, model.scaled_temperature, found.sample
    field, condensed = sample.field, sample.condensed
    neuron: NeuronPosterior = SampledPosterior(
        sample.latent,
        sample.weights,
        field,
        factor,
        targets if condensed is None else targets - condensed.outputs,
        noise,
        model.readout_variance,
        model.nonlinearity,
        settings.seed,
    )
    if condensed is not None:
        neuron = CondensedPosterior(model, neuron, condensed, factor, settings.seed)
    action = 0.5 * noise * float((field**2).sum()) - float((field * targets).sum()) + sample.log_partition
    return MeanFieldSolution(
        model,
        neuron,
        -action,
        sample.residual,
        sample.largest_strength,
        found.n_rounds,
        "particles",
        agreement=Agreement("two runs of particles", found.field_difference, found.kernel_difference),
    )
