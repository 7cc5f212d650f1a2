"""Neurons drawn of one exact law, which by their weights answer for others nearby."""

import math
from functools import cached_property

import numpy as np
from attrs import frozen
from scipy.special import logsumexp, softmax

from fltheory.meanfield.law import LatentLaw
from fltheory.numerics.validation import Array


@frozen(eq=False)
class DrawnNeurons:
    """A frozen sample: all that is computed on it is a smooth function of the law.

    Attributes
    ----------
    law
        That they were drawn of.
    latent
        g, (n, q).
    drawn_at
        The exponent phi^T Kt phi / 2 of each there, less the log of n times its weight, (n,).
    log_partition
        log Z of that law.
    """

    law: LatentLaw
    latent: Array
    drawn_at: Array
    log_partition: float

    @cached_property
    def activations(self) -> Array:
        """phi in the law that they were drawn of, (n, P)."""
        return self.law.activations(self.latent)

    def weights(self, exponents: Array) -> tuple[Array, float]:
        """For the law of these exponents (n,): weights that sum to 1, (n,), and log Z."""
        change = exponents - self.drawn_at
        growth = float(logsumexp(change)) - math.log(len(change))
        return np.asarray(softmax(change)), self.log_partition + growth

    def redrawn(self, law: LatentLaw, latent: Array) -> "DrawnNeurons":
        """Neurons (n, q) drawn of another law."""
        exponents = law.exponent(law.activations(latent))
        growth = self.law.growth_to(exponents, latent)
        return DrawnNeurons(law, latent, exponents, self.log_partition + growth)


def together(law: LatentLaw, *samples: DrawnNeurons) -> DrawnNeurons:
    """Samples of laws near this one as one sample of it; each counts as its weights say."""
    latents, drawn_at, log_partitions = [], [], []
    for sample in samples:
        exponents = law.exponent(law.activations(sample.latent))
        weights, log_partition = sample.weights(exponents)
        kept = weights > 0
        latents.append(sample.latent[kept])
        drawn_at.append(exponents[kept] - np.log(weights[kept] * kept.sum()))
        log_partitions.append(log_partition)
    mean = float(np.mean(log_partitions))
    return DrawnNeurons(law, np.concatenate(latents), np.concatenate(drawn_at), mean)


def message(law: LatentLaw, neurons: DrawnNeurons, weights: Array) -> Array:
    """2 d log Z / dK of a layer on K = F F^T with the root F, by its weighted neurons (n,): (P, P).

    docs/theory.md (7f). Off the diagonal the average of second derivatives; on it what makes
    <grad z^T> = message K, where phi'' is not needed; 0 where z does not vary.
    """
    z = neurons.latent @ law.factor.T
    slope = np.asarray(law.nonlinearity.derivative(z))
    pull = law.pull(np.asarray(law.nonlinearity(z))) * slope
    shares, kernel = weights[:, None], law.factor @ law.factor.T
    total = pull.T @ (shares * pull) + law.conjugate * (slope.T @ (shares * slope))
    np.fill_diagonal(total, 0.0)
    own = (shares * pull * z).sum(0) - (total * kernel).sum(1)
    scale = np.diagonal(kernel)
    np.fill_diagonal(total, np.where(scale > 0, own / np.where(scale > 0, scale, 1.0), 0.0))
    return np.asarray(total)
