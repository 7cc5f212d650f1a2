"""The law of a neuron's preactivations as a mixture of Gaussians: for those who propose neurons."""

import numpy as np
from attrs import frozen

from fltheory.meanfield.branches import activity_codes, input_groups
from fltheory.meanfield.dual import DualProblem, evaluate
from fltheory.meanfield.solution import MeanFieldSolution, activity_threshold
from fltheory.numerics.validation import Array, Integers

_RAREST = 1e-8  # probability of a branch of EP that is left out
_LEAST = 3e-3  # weight of a component
_CUT = 1e-10  # relative, of the eigenvalues of K_0
_N_DRAWS = 1024
_FEWEST = 4  # neurons for which a component is fitted
_OUTSIDE = 60.0  # of the squared distance, beyond its mean q, from where EP does not explain a neuron


@frozen(eq=False)
class PreactivationMixture:
    """Gaussians for the preactivations of a neuron on the P training inputs.

    Attributes
    ----------
    weights, means, covariances
        Shapes (K,), (K, P) and (K, P, P), the latter of the rank of K_0.
    groups
        The group of each input, from 0, over which a neuron's code is told, (P,).
    threshold
        Mean activation on a group above which a neuron counts as active.
    """

    weights: Array
    means: Array
    covariances: Array
    groups: Integers
    threshold: float


def preactivation_mixture(solution: MeanFieldSolution) -> PreactivationMixture:
    """One Gaussian a branch that EP finds at t, and one for each code of neurons that EP misses.

    For one hidden layer and a bounded phi; the solution may be any engine's.
    """
    model = solution.model
    values, vectors = np.linalg.eigh(model.input_kernel)
    kept = values > _CUT * values[-1]
    factor = vectors[:, kept] * np.sqrt(values[kept])  # F (P, q)
    weights, means, covariances = _from_ep(solution, factor)
    groups, threshold = input_groups(model.task.targets), activity_threshold(model)

    z = solution.neurons(_N_DRAWS, 1).preactivations
    latent = z @ np.linalg.pinv(factor).T
    missed = latent[_distances(latent, means, covariances) > latent.shape[1] + _OUTSIDE]
    codes = activity_codes(np.asarray(model.nonlinearity(missed @ factor.T)), groups, threshold)
    for code in np.unique(codes, axis=0):
        inside = missed[(codes == code).all(1)]
        if len(inside) >= _FEWEST:
            weights = np.append(weights, len(inside) / _N_DRAWS)
            means = np.concatenate([means, inside.mean(0)[None]])
            covariances = np.concatenate([covariances, _shrunk(inside)[None]])
    weights = np.maximum(weights / weights.sum(), _LEAST)
    return PreactivationMixture(
        weights / weights.sum(), means @ factor.T, factor @ covariances @ factor.T, groups, threshold
    )


def _from_ep(solution: MeanFieldSolution, factor: Array) -> tuple[Array, Array, Array]:
    """Probabilities, means and covariances of the latent g, z = F g, in EP's branches, if any."""
    model, field, rank = solution.model, solution.dual_field, factor.shape[1]
    noise, variance = model.scaled_temperature, model.readout_variance
    problem = DualProblem(factor, model.task.targets, noise, variance, model.nonlinearity)
    point = evaluate(problem, field, problem.starting_sites(field), residual=1e-3)
    if point is None:
        return np.empty(0), np.empty((0, rank)), np.empty((0, rank, rank))
    kept = np.flatnonzero(point.probabilities > _RAREST)
    found = point.branches.select(kept)
    covariances = found.latent_covariance[:, :rank, :rank]
    return point.probabilities[kept], found.latent_mean[:, :rank], covariances


def _distances(latent: Array, means: Array, covariances: Array) -> Array:
    """Squared distance (n,) of latents (n, q) from the nearest of K Gaussians, in units of its covariance."""
    distance = np.full(len(latent), np.inf)
    for mean, covariance in zip(means, covariances, strict=True):
        white = np.linalg.solve(np.linalg.cholesky(covariance), (latent - mean).T)
        distance = np.minimum(distance, (white**2).sum(0))
    return distance


def _shrunk(latent: Array) -> Array:
    """Covariance of latents (n, q), shrunk towards the prior's as far as they are few."""
    n, q = latent.shape
    centred = latent - latent.mean(0)
    return np.asarray((centred.T @ centred + q * np.eye(q)) / (n + q))
