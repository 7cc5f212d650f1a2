"""Small posteriors for the tests of the theory."""

import numpy as np
from hypothesis import settings, strategies as st

import fltheory as flt


def classification(seed: int, n_samples: int = 24, n_classes: int = 2, noise: float = 0.3) -> flt.ArrayTask:
    """Noisy copies of a random direction a class, one-hot targets."""
    rng = np.random.default_rng(seed)
    labels = np.sort(np.arange(n_samples) % n_classes)
    inputs = rng.standard_normal((n_classes, 40))[labels] + noise * rng.standard_normal((n_samples, 40))
    inputs /= np.sqrt((inputs**2).mean(1, keepdims=True))
    return flt.ArrayTask.from_labels(inputs, labels)


def posterior(
    task: flt.Task,
    scaled_temperature: float = 0.1,
    nonlinearity: flt.Nonlinearity | None = None,
    width: int = 100,
) -> flt.DeepNetworkPosterior:
    """A posterior at a given N T, with sigma_a^2 = 1 / P."""
    phi = flt.Sigmoid() if nonlinearity is None else nonlinearity
    return flt.DeepNetworkPosterior(task, phi, width=width, temperature=scaled_temperature / width)


few = settings(max_examples=max(4, settings().max_examples // 5))  # each solves several posteriors
seeds = st.integers(0, 10_000)


@st.composite
def posteriors(draw: st.DrawFn) -> flt.DeepNetworkPosterior:
    """Posteriors that each engine meets: a kernel with structure, orthogonal inputs, linear networks.

    All are well below the N T at which codes form: near it EP's branches overlap and it may fail.
    """
    scaled_temperature = draw(st.sampled_from((0.03, 0.06, 0.1)))
    n_classes = draw(st.integers(2, 3))
    kind = draw(st.sampled_from(("ep", "quadrature", "linear")))
    if kind == "quadrature":
        task: flt.Task = flt.OrthogonalClassification(24, (0.5, 0.5) if n_classes == 2 else (0.5, 0.25, 0.25))
        return posterior(task, scaled_temperature, draw(st.sampled_from((flt.Sigmoid(), flt.Erf()))))
    task = classification(draw(seeds), n_classes=n_classes)
    return posterior(task, scaled_temperature, flt.Linear() if kind == "linear" else flt.Sigmoid())
