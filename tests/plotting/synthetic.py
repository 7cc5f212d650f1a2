"""Networks, theories and comparisons made by hand: the same on every machine, with a code in every layer."""

import numpy as np
from attrs import evolve, frozen

import fltheory as flt
from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior
from fltheory.meanfield.outliers import CondensedNeurons
from fltheory.model import Model
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


# Theories ----------------------------------------------------------------------------------------

SHARES = (0.4, 0.3, 0.2, 0.1)


@frozen(eq=False)
class Neurons(NeuronPosterior):
    """Neurons on the codes above (bounded phi), or of the prior but for one strong one a class."""

    model: Model
    shares: tuple[float, ...] = SHARES

    @property
    def field(self):
        return 10.0 * self.model.task.targets

    @property
    def is_coded(self):
        return self.model.nonlinearity.is_bounded

    @property
    def branches(self):
        m = self.model.task.n_outputs
        if not self.is_coded:
            half = np.full((1, self.model.task.n_samples), 0.4)
            return BranchTable(np.ones(1), np.zeros((1, m)), 0.3 * np.eye(m)[None], half)
        inside = np.array([np.diag(0.04 + 0.06 * code) for code in CODES])
        active = self.model.nonlinearity(2.0 * (2.0 * CODES - 1.0))[:, TASK.labels]
        return BranchTable(np.array(self.shares), 1.5 * CODES - 0.5, inside, active)

    @property
    def outliers(self):
        if self.is_coded:
            return None
        classes = np.eye(len(CODES[0]))
        return CondensedNeurons(1.2 * classes - 0.2, 1.1 * classes[:, TASK.labels] - 0.1, (0.0, 1.0))

    def is_discrete(self, layer):
        return self.is_coded

    def kernel_parts(self, layer):
        bulk = 0.05 * layer * np.eye(self.model.task.n_samples)
        return KernelParts(bulk, self.branches.patterns if self.is_coded else self.outliers.activations)

    def draw(self, n, layer, rng):
        table = self.branches
        at = rng.choice(len(table.probabilities), n, p=table.probabilities)
        noise = rng.standard_normal((n, len(CODES[0])))
        a = table.readout[at] + noise * np.sqrt(np.diagonal(table.readout_covariance[at], axis1=1, axis2=2))
        z = rng.standard_normal((n, self.model.task.n_samples))
        if self.is_coded:
            return 0.5 * z + 2.0 * (2.0 * CODES[at][:, TASK.labels] - 1.0), a
        strong = self.outliers
        z[: len(strong.readouts)] = np.sqrt(n) * strong.preactivations
        a[: len(strong.readouts)] = np.sqrt(n) * strong.readouts
        return z, a

    def conjugate_kernel(self, layer):
        raise NotImplementedError

    def training_variance(self):
        raise NotImplementedError

    def predict(self, inputs):
        raise NotImplementedError

    def kernel(self, layer, inputs):
        raise NotImplementedError


def solution(phi, depth=1, shares=SHARES, **changes):
    """A solution made by hand of a nonlinear network: that of no equations."""
    model = posterior(phi, depth).model
    return flt.MeanFieldSolution(model, Neurons(model, shares), -1.0, 0.0, None, 1, "by hand", **changes)


def with_readouts(samples, theory):
    """The same networks with readouts drawn from a theory."""
    shape = samples.draws.readouts.shape
    seeds = np.arange(shape[0] * shape[1])
    drawn = [theory.neurons(shape[2], theory.model.n_hidden_layers, int(seed)).readouts for seed in seeds]
    return evolve(samples, draws=evolve(samples.draws, readouts=np.reshape(drawn, shape)))
