"""Exact neurons of a layer: latents by importance sampling, then the inputs one by one."""

import numpy as np
from scipy.special import softmax

from fltheory.meanfield.deep.layer import Layer, LayerState
from fltheory.numerics.grids import draw_on_grid
from fltheory.numerics.validation import Array, Integers

_CANDIDATES = 8  # drawn from the proposal for each neuron that is kept
_HALF_WIDTH, _CELLS = 9.0, 600  # of the distribution function of z, in standard deviations


def draw_latents(state: LayerState, n: int, rng: np.random.Generator) -> Array:
    """x of n neurons, (n, r + q), from the proposal resampled by importance weights."""
    points = state.points
    proposal, images = points.proposal, points.images
    chosen = rng.choice(len(proposal.weights), size=n * _CANDIDATES, p=proposal.weights)
    noise = rng.standard_normal((len(chosen), proposal.means.shape[1]))
    latents = proposal.means[chosen] + np.einsum("sij,sj->si", proposal.roots[chosen], noise)
    latents = np.einsum("sij,sj->si", images[rng.integers(len(images), size=len(latents))], latents)
    weights = softmax(state.layer.log_density(latents) - points.log_density_at(latents))
    weights = proposal.imposed(
        latents, weights, state.layer.activations(latents), state.branch_weights.sum(0)
    )
    kept = np.searchsorted(np.cumsum(weights), (rng.random() + np.arange(n)) / n)
    return np.asarray(latents[rng.permutation(np.minimum(kept, len(latents) - 1))])


def draw_preactivations(layer: Layer, latents: Array, member: Integers, rng: np.random.Generator) -> Array:
    """z of the inputs (n, P), given their classes and the latents of the neurons (n, r + q)."""
    fields, means = layer.fields(latents), layer.sites(latents).means
    x = np.linspace(-_HALF_WIDTH, _HALF_WIDTH, _CELLS + 1)
    z = np.empty((len(latents), len(member)))
    for group, (variance, curvature) in enumerate(zip(layer.variances, layer.curvatures, strict=True)):
        sd = np.sqrt(variance)
        phi = np.asarray(layer.nonlinearity(means[:, group, None] + sd * x))
        exponent = (fields[:, group, None] + 0.5 * curvature * phi) * phi - 0.5 * x**2
        members = np.flatnonzero(member == group)
        z[:, members] = means[:, group, None] + sd * draw_on_grid(exponent, x, len(members), rng)
    return z
