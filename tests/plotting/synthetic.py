"""Networks and comparisons made by hand: the same on every machine, with a code in every layer."""

import numpy as np
from attrs import evolve

import fltheory as flt
from fltheory.network.draws import Draws, Statistics
from fltheory.network.reduction import Reduction
from fltheory.study import Comparison, Row

CODES = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 0, 0]])
TASK = flt.OrthogonalClassification(n_samples=12, class_ratios=(0.5, 0.25, 0.25))


def posterior(phi, depth=2, width=24, **changes):
    base = flt.DeepNetworkPosterior(TASK, phi, n_hidden_layers=depth, width=width, temperature=1e-3)
    return evolve(base, **changes)


def networks(phi, depth=2, seed=0, n_chains=2, n_draws=6, step=0.0, gain=2.0, **changes):
    """Neurons on codes, with noise; each draw ``step`` away from the one before."""
    made = posterior(phi, depth, **changes)
    rng, n = np.random.default_rng(seed), made.width
    shape = (n_chains, n_draws)

    def noise(*size):
        start = rng.standard_normal((n_chains, 1, *size))
        return start + step * rng.standard_normal((*shape, *size)).cumsum(1)

    members = rng.permutation(n) % len(CODES)
    signs = 2.0 * CODES[members] - 1.0  # (n, classes)
    first = gain * signs[:, TASK.labels] + noise(n, TASK.n_samples)
    centred = np.sqrt(n) * gain * (np.eye(n) - 1.0 / n)
    deeper = [centred + 0.3 * noise(n, n) for _ in range(depth - 1)]
    readouts = 1.5 * CODES[members] - 0.5 + 0.2 * rng.standard_normal((*shape, n, TASK.n_outputs))
    numbers = rng.standard_normal((6, *shape))
    draws = Draws((first, *deeper), readouts, Statistics(*numbers, np.empty((*shape, 0))))
    model = made.model
    return flt.PosteriorSamples(model, Reduction.none(model), draws, tuple(range(n_chains)))


def comparison(shift=0.0):
    rows = [
        Row("K_1, classes 0, 0", 0.44, 0.45 + shift, 0.01, 0.01),
        Row("K_1, diagonal", 0.47, 0.465, -0.005, 0.01),
        Row("share of code 1-1-0", 0.33, 0.30 + shift, -0.03, 0.02, True),
        Row("training output, class 0", 0.87, 0.88, 0.01, 0.02),
        Row("dual field, class 0", 4.5, 4.3 + 10 * shift, -0.2, 0.3),
        Row("K_1, relative distance", gap=0.01),
    ]
    return Comparison("Sigmoid(), L = 1, N = 24, N T = 0.024, 2 chains of 6 draws", tuple(rows))
