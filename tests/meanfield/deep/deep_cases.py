"""Small deep posteriors of bounded phi on orthogonal inputs."""

import numpy as np

import fltheory as flt


def orthogonal(
    n_samples: int = 60,
    ratios: tuple[float, ...] = (0.5, 0.5),
    depth: int = 2,
    scaled_temperature: float = 0.02,
    phi: flt.Nonlinearity | None = None,
    **prior: object,
) -> flt.DeepNetworkPosterior:
    """A posterior at a given N T, with sigma_a^2 = 1 / P unless told otherwise."""
    return flt.DeepNetworkPosterior(
        flt.OrthogonalClassification(n_samples, ratios),
        flt.Sigmoid() if phi is None else phi,
        flt.GaussianPrior(**prior),
        n_hidden_layers=depth,
        width=100,
        temperature=scaled_temperature / 100,
    )


def with_task(
    lengths: np.ndarray, targets: np.ndarray, depth: int, scaled_temperature: float, **prior: object
) -> flt.DeepNetworkPosterior:
    """Orthogonal inputs of given squared lengths (P,), over N0, and targets (P, m)."""
    inputs = np.diag(np.sqrt(len(lengths) * lengths))
    return flt.DeepNetworkPosterior(
        flt.ArrayTask(inputs, targets),
        flt.Tanh(),
        flt.GaussianPrior(**prior),
        n_hidden_layers=depth,
        width=100,
        temperature=scaled_temperature / 100,
    )


def blocks(solution: flt.MeanFieldSolution, layer: int) -> np.ndarray:
    """The kernel between inputs of the classes, the own one included, (C, C)."""
    kernel, labels = solution.kernel(layer), solution.model.task.labels
    first, second = (np.array([np.flatnonzero(labels == c)[i] for c in np.unique(labels)]) for i in (0, 1))
    return kernel[np.ix_(first, second)]
