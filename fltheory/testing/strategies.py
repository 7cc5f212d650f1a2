"""Strategies that draw small problems for Hypothesis.

Structure (which kind of task, how many classes, which nonlinearity) is drawn first and shrinks to the
simplest; numbers come from a seed, which shrinks to 0. The only module that imports Hypothesis.
"""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from fltheory.nonlinearity import Erf, LeakyReLU, Linear, Nonlinearity, ReLU, Sigmoid, Tanh
from fltheory.numerics.validation import Array
from fltheory.posterior import DeepNetworkPosterior
from fltheory.prior import GaussianPrior
from fltheory.task import ArrayTask, OrthogonalClassification, Task

seeds = st.integers(0, 10_000)
"""Seeds of random numbers."""

linear: SearchStrategy[Nonlinearity] = st.just(Linear())
"""Analog codes."""
bounded: SearchStrategy[Nonlinearity] = st.sampled_from((Sigmoid(), Tanh(), Erf()))
"""Redundant codes."""
sloped: SearchStrategy[Nonlinearity] = st.one_of(
    st.just(ReLU()), st.builds(LeakyReLU, st.sampled_from((0.01, 0.3, -0.5)))
)
"""Sparse codes: a slope at infinity, and not linear."""


def nonlinearities() -> SearchStrategy[Nonlinearity]:
    """The stock nonlinearities of all three kinds."""
    return linear | bounded | sloped


@st.composite
def kernels(draw: DrawFn, n: int) -> Array:
    """Positive semidefinite matrices (n, n).

    The unit matrix, other diagonals, full rank, low rank, and equal inputs, at scales 0.1 to 10.
    """
    kind = draw(st.sampled_from(("identity", "diagonal", "full rank", "low rank", "equal inputs")))
    scale = draw(st.sampled_from((1.0, 0.1, 10.0)))
    rng = np.random.default_rng(draw(seeds))
    if kind in ("identity", "diagonal"):
        return scale * np.diag(np.ones(n) if kind == "identity" else rng.uniform(0.2, 2.0, n))
    rank = 2 * n if kind == "full rank" else max(1, n // 2)
    factor = rng.standard_normal((n, rank))
    factor = factor[np.arange(n) // 2] if kind == "equal inputs" else factor
    return np.asarray(scale / rank * (factor @ factor.T))


def gaussian_mixture(
    seed: int, n_samples: int = 24, n_classes: int = 2, noise: float = 0.3, n_inputs: int = 40
) -> ArrayTask:
    """Noisy copies of one random direction a class, of mean square 1, with one-hot targets."""
    rng = np.random.default_rng(seed)
    labels = np.sort(np.arange(n_samples) % n_classes)
    inputs = rng.standard_normal((n_classes, n_inputs))[labels]
    inputs = inputs + noise * rng.standard_normal((n_samples, n_inputs))
    return ArrayTask.from_labels(inputs / np.sqrt((inputs**2).mean(1, keepdims=True)), labels)


@st.composite
def mixtures(draw: DrawFn, max_samples: int = 20, max_classes: int = 3) -> ArrayTask:
    """Classes as noisy copies of one direction each: kernels with blocks, that are not diagonal."""
    n_classes = draw(st.integers(2, max_classes))
    n_samples = draw(st.integers(max(3, n_classes), max_samples))
    noise = draw(st.sampled_from((0.3, 1.0)))
    return gaussian_mixture(draw(seeds), n_samples, n_classes, noise)


@st.composite
def orthogonal_tasks(draw: DrawFn, max_samples: int = 20) -> OrthogonalClassification:
    """Orthogonal inputs in two or three classes, equal or not."""
    ratios = draw(st.sampled_from(((0.5, 0.5), (0.5, 0.25, 0.25), (0.75, 0.25))))
    return OrthogonalClassification(draw(st.integers(4, max_samples)), ratios)


@st.composite
def random_tasks(draw: DrawFn, max_samples: int = 20, max_outputs: int = 3) -> ArrayTask:
    """Random inputs and real targets, without labels.

    The inputs may be fewer than their dimension (K_0 of full rank) or more (K_0 is singular, and
    the targets, which are linear in the inputs, can be fitted all the same); some may be equal.
    """
    n_samples, n_outputs = draw(st.integers(3, max_samples)), draw(st.integers(1, max_outputs))
    n_inputs = draw(st.sampled_from((2 * n_samples, max(1, n_samples // 2))))
    equal = draw(st.booleans())
    rng = np.random.default_rng(draw(seeds))
    inputs = rng.standard_normal((n_samples, n_inputs))
    if equal:
        inputs[-1] = inputs[0]
    return ArrayTask(inputs, inputs @ rng.standard_normal((n_inputs, n_outputs)) / np.sqrt(n_inputs))


def tasks(max_samples: int = 20) -> SearchStrategy[Task]:
    """Small tasks of each kind: 3 to ``max_samples`` inputs, 1 to 3 outputs."""
    return orthogonal_tasks(max_samples) | mixtures(max_samples) | random_tasks(max_samples)


@st.composite
def priors(draw: DrawFn, n_hidden_layers: int = 1) -> GaussianPrior:
    """Gaussian priors: one variance or one a layer, and each way to scale with P."""
    variance = st.sampled_from((1.0, 0.5, 2.0))
    layers = draw(variance | st.tuples(*[variance] * n_hidden_layers))
    return GaussianPrior(layers, draw(variance), draw(st.sampled_from(("auto", "none", 0.5))))


@st.composite
def posteriors(
    draw: DrawFn,
    task: SearchStrategy[Task] | None = None,
    nonlinearity: SearchStrategy[Nonlinearity] | None = None,
    max_layers: int = 3,
    scaled_temperatures: Sequence[float] = (0.1, 1.0, 0.01, np.inf),
    width: int = 100,
) -> DeepNetworkPosterior:
    """Posteriors of each kind, lazy ones too, at the given values of N T.

    Nothing says that ``solve`` covers them: narrow the arguments to what it does, or take
    ``solvable_posteriors``.
    """
    n_layers = draw(st.integers(1, max_layers))
    return DeepNetworkPosterior(
        draw(tasks() if task is None else task),
        draw(nonlinearities() if nonlinearity is None else nonlinearity),
        draw(priors(n_layers)),
        n_hidden_layers=n_layers,
        width=width,
        temperature=draw(st.sampled_from(scaled_temperatures)) / width,
        readout_scaling=draw(st.sampled_from(("non-lazy", "lazy"))),
    )


@st.composite
def solvable_posteriors(draw: DrawFn, width: int = 100) -> DeepNetworkPosterior:
    """Posteriors that ``solve`` answers, by each of its engines but the particles.

    One layer, sigma_a^2 = 1 / P and two or three classes. N T is well below the values at which codes
    form, near which EP's branches overlap and it may fail.
    """
    n_classes = draw(st.integers(2, 3))
    temperature = draw(st.sampled_from((0.1, 0.06, 0.03))) / width
    kind = draw(st.sampled_from(("linear", "quadrature", "ep")))
    if kind == "quadrature":
        ratios = (0.5, 0.5) if n_classes == 2 else (0.5, 0.25, 0.25)
        task: Task = OrthogonalClassification(24, ratios)
        phi = draw(st.sampled_from((Sigmoid(), Erf())))
    else:
        task = gaussian_mixture(draw(seeds), n_classes=n_classes)
        phi = Linear() if kind == "linear" else Sigmoid()
    return DeepNetworkPosterior(task, phi, width=width, temperature=temperature)
