"""Whether exact neurons bear out a solution of EP, whose residual certifies its own branches only.

Neurons drawn from EP's branches are moved by exact Markov steps, inside branches and between them.
Others, cooled from the prior at the solution's t, look for branches that EP lacks; those that they
find take part in the jumps, so that their share is measured. What (5) and S ask for on these
neurons is how far EP is off (docs/theory.md, section 5.3).
"""

import math

import numpy as np
from attrs import evolve, frozen

from fltheory.meanfield.branches import activity_codes, input_groups, neuron_states
from fltheory.meanfield.clusters import GaussianClusters, cluster_centres, fit_clusters, nearest
from fltheory.meanfield.dual import DualPoint, DualProblem
from fltheory.meanfield.law import HamiltonianMoves, NeuronLaw
from fltheory.meanfield.sample_dual import SampleDual, SampleEvaluation, exponent
from fltheory.meanfield.sampled_branch import CodeRegion
from fltheory.numerics.newton import minimise
from fltheory.numerics.validation import Array, Booleans

_N_NEURONS, _N_EXPLORERS = 1000, 1000
_N_STAGES, _N_SETTLING = 12, 3  # trajectories of the explorers while they cool, and after that
_N_DISCARDED, _N_KEPT = 5, 8  # rounds of the neurons
_RENEWAL = 0.2  # of their places in a branch, when they jump
_OUTSIDE = 8.0  # standard deviations of chi^2 from which a neuron is outside a branch
_FEWEST = 4  # explorers that make a new cluster
_MOST_NEW, _NEW_SHARE = 12, 0.3  # new clusters, and how often jumps go there
_SURPRISE = 2.0  # times as many neurons of a code as EP's own Gaussians have, that are too many
_NEGLIGIBLE = 1e-6  # probability of a branch
_N_FAMILIES = 4  # of neurons, which tell the error
_TOLERANCE = 1e-3  # of their t, far below its error
_SETTLED, _RARE = 2.5, 2e-3  # standard errors of t, and share outside, up to which nothing more is asked


@frozen(eq=False)
class Confirmation:
    """What exact neurons say of a solution.

    Attributes
    ----------
    gap
        Root mean square of Y - N T t - <phi a^T> over them: what EP's residual cannot see.
    field_difference, field_error
        By how much t moves to close it, relative to t, and the standard error of that.
    kernel_difference, kernel_error
        By how much <phi phi^T> of the neurons there differs from that at the solution, relative, and the
        standard error of that.
    missing_probability
        The share of neurons there outside all of EP's branches, or of a code that is rare in them.
    overlooked
        The neurons of each such code, (n, q), and where they are.
    """

    gap: float
    field_difference: float
    field_error: float
    kernel_difference: float
    kernel_error: float
    missing_probability: float
    overlooked: tuple[tuple[CodeRegion, Array], ...]

    def holds(self, tolerance: float = 0.02) -> bool:
        """Whether the solution is right to a relative accuracy, within two standard errors."""
        close = self.field_difference < tolerance + 2.0 * self.field_error
        same = self.kernel_difference < tolerance + 2.0 * self.kernel_error
        return close and same and 2.0 * self.missing_probability < tolerance


def confirm(point: DualPoint, kernel: Array, *, n_neurons: int = _N_NEURONS, seed: int = 0) -> Confirmation:
    """Hold a solution of EP against exact neurons.

    Where they ask for another t, or are found outside of EP's branches, they follow t there once.

    Parameters
    ----------
    point
        The solution.
    kernel
        Its <phi phi^T>, (P, P).
    n_neurons
        Markov chains; each counts in several rounds.
    """
    problem, rng = point.problem, np.random.default_rng(seed)
    law = NeuronLaw(problem.kernel_factor, point.field, problem.readout_variance, problem.nonlinearity)
    known = _known_branches(point)
    latent = _equilibrated(law, known.draw(n_neurons, rng), _with_new(known, law, rng), rng)
    here, found = _solved(law, latent, problem)
    missing, overlooked = _missing(point, known, latent, law)
    first = Confirmation(
        gap=float(np.sqrt(np.mean(here.gradient**2))),
        field_difference=_relative(found.field - point.field, point.field),
        field_error=found.error / float(np.linalg.norm(point.field)),
        kernel_difference=_relative(found.at.kernel - kernel, kernel),
        kernel_error=found.kernel_error / float(np.linalg.norm(kernel)),
        missing_probability=float(found.at.weights @ missing),
        overlooked=overlooked,
    )
    if first.field_difference < _SETTLED * first.field_error and first.missing_probability < _RARE:
        return first
    start = latent[rng.choice(len(latent), size=n_neurons, p=found.at.weights)]
    law = evolve(law, field=found.field)
    latent = _equilibrated(law, start, _with_new(known, law, rng), rng)
    _, found = _solved(law, latent, problem)
    missing, overlooked = _missing(point, known, latent, law)
    return evolve(
        first,
        field_difference=_relative(found.field - point.field, point.field),
        field_error=found.error / float(np.linalg.norm(point.field)),
        kernel_difference=_relative(found.at.kernel - kernel, kernel),
        kernel_error=found.kernel_error / float(np.linalg.norm(kernel)),
        missing_probability=float(found.at.weights @ missing),
        overlooked=overlooked,
    )


def _known_branches(point: DualPoint) -> GaussianClusters:
    rank = point.problem.kernel_factor.shape[1]
    kept = np.flatnonzero(point.probabilities > _NEGLIGIBLE)
    weights = point.probabilities[kept] / point.probabilities[kept].sum()
    found = point.branches  # Cholesky factors: the leading block is that of g
    return GaussianClusters(weights, found.latent_mean[kept, :rank], found.latent_root[kept, :rank, :rank])


def _with_new(known: GaussianClusters, law: NeuronLaw, rng: np.random.Generator) -> GaussianClusters:
    """EP's branches and clusters of explorers outside of them."""
    latent = _explorers(law, rng)
    latent = latent[_outside(known, latent)]
    if len(latent) < _FEWEST:
        return known
    activations = law.activations(latent)
    centres = cluster_centres(activations, min(_MOST_NEW, len(latent) // _FEWEST), rng)
    member = nearest(activations, centres)
    new = fit_clusters(law, latent, member)
    return GaussianClusters(
        np.concatenate([(1 - _NEW_SHARE) * known.weights, _NEW_SHARE * new.weights]),
        np.concatenate([known.means, new.means]),
        np.concatenate([known.roots, new.roots]),
    )


def _explorers(law: NeuronLaw, rng: np.random.Generator) -> Array:
    """Neurons that are cooled from the prior to this t, (n, q): wherever there are branches."""
    moves = HamiltonianMoves(rng)
    latent = rng.standard_normal((_N_EXPLORERS, law.factor.shape[1]))
    for stage in range(1, _N_STAGES + 1):
        latent = moves(evolve(law, field=math.sqrt(stage / _N_STAGES) * law.field), latent)
    return moves(law, latent, _N_SETTLING)


def _equilibrated(
    law: NeuronLaw, latent: Array, mixture: GaussianClusters, rng: np.random.Generator
) -> Array:
    """Neurons of the exact law, from several rounds, those of one chain side by side, (n n_rounds, q)."""
    moves, kept = HamiltonianMoves(rng), []
    for _ in range(_N_DISCARDED + _N_KEPT):
        latent = moves(law, latent)
        for renewal in (0.0, _RENEWAL):
            latent, _ = mixture.jump(law, latent, rng, renewal=renewal)
        kept.append(latent)
    return np.stack(kept[_N_DISCARDED:], axis=1).reshape(-1, latent.shape[1])


@frozen(eq=False)
class _Solved:
    """t on exact neurons, standard errors of it and of the kernel as norms, and what the neurons weigh."""

    field: Array
    error: float
    kernel_error: float
    at: SampleEvaluation


def _solved(law: NeuronLaw, latent: Array, problem: DualProblem) -> tuple[SampleEvaluation, _Solved]:
    """S at the law's own t, and where it is least, on these neurons."""
    activations = law.activations(latent)
    drawn_at = exponent(activations, law.field, problem.readout_variance)
    dual = SampleDual(activations, drawn_at, problem.targets, problem.noise, problem.readout_variance)
    field = minimise(dual, law.field, tolerance=_TOLERANCE, max_iterations=10).x
    there, steps, kernels = dual(field), [], []
    for part in np.array_split(np.arange(len(latent)), _N_FAMILIES):
        family = evolve(dual, activations=activations[part], drawn_at=drawn_at[part])
        steps.append(there.solve(-family(field).gradient, tolerance=_TOLERANCE))
        kernels.append(family(field).kernel)
    error, kernel_error = (
        float(np.linalg.norm(np.std(parts, axis=0, ddof=1)) / math.sqrt(_N_FAMILIES))
        for parts in (steps, kernels)
    )
    return dual(law.field), _Solved(field, error, kernel_error, there)


def _outside(branches: GaussianClusters, latent: Array) -> Booleans:
    """Which neurons (n, q) are in no branch, (n,)."""
    rank = latent.shape[1]
    distance = branches.squared_distances(latent).min(1)
    return np.asarray(distance > rank + _OUTSIDE * math.sqrt(2.0 * rank))


def _missing(
    point: DualPoint, known: GaussianClusters, latent: Array, law: NeuronLaw
) -> tuple[Booleans, tuple[tuple[CodeRegion, Array], ...]]:
    """Which neurons (n, q) EP does not account for, (n,): outside its branches, or of too common a code.

    And those of each code that is too common, with where they are.
    """
    scale = math.sqrt(float((law.factor**2).sum(1).max()))
    middle = float(np.mean(law.nonlinearity(neuron_states(law.nonlinearity, scale))))
    groups = input_groups(point.problem.targets)
    own = activity_codes(law.activations(latent), groups, middle)
    drawn = law.activations(known.draw(len(latent), np.random.default_rng(0)))
    both = np.concatenate([own, activity_codes(drawn, groups, middle)])
    codes, member = np.unique(both, axis=0, return_inverse=True)
    mine, theirs = np.split(member.reshape(-1), 2)
    counts, expected = (np.bincount(part, minlength=len(codes)) for part in (mine, theirs))
    surprising = counts > _SURPRISE * expected + _FEWEST
    regions = [
        (CodeRegion(groups, middle, code), latent[mine == number])
        for number, code in enumerate(codes)
        if surprising[number]
    ]
    return np.asarray(surprising[mine] | _outside(known, latent)), tuple(regions)


def _relative(difference: Array, whole: Array) -> float:
    return float(np.linalg.norm(difference) / np.linalg.norm(whole))
