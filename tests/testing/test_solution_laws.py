"""The laws of a solution hold for those of every engine, and each planted fault is named."""

import re

import numpy as np
import pytest
from attrs import evolve

import fltheory as flt
from fltheory.meanfield.neuron import BranchTable, KernelParts, NeuronPosterior
from fltheory.testing import SOLUTION_LAWS, LawViolation, check_solution


def solve(task, scaled_temperature, phi, **more):
    return flt.DeepNetworkPosterior(
        task, phi, width=100, temperature=scaled_temperature / 100, **more
    ).solve()


def orthogonal():
    return flt.OrthogonalClassification(16, (0.5, 0.25, 0.25))


def mixture(seed=0, n_samples=16):
    rng = np.random.default_rng(seed)
    labels = np.arange(n_samples) % 2
    inputs = rng.standard_normal((2, 30))[labels] + 0.3 * rng.standard_normal((n_samples, 30))
    return flt.ArrayTask.from_labels(inputs, labels)


layers = flt.GaussianPrior(weight_variance=(1.3, 0.7))
GOOD = {
    "linear": lambda: solve(mixture(), 0.1, flt.Linear()),
    "linear, two layers": lambda: solve(mixture(1), 0.1, flt.Linear(), prior=layers, n_hidden_layers=2),
    "linear, no noise": lambda: solve(orthogonal(), 0.0, flt.Linear(), n_hidden_layers=3),
    "orthogonal": lambda: solve(orthogonal(), 0.05, flt.Sigmoid()),
    "orthogonal, no noise": lambda: solve(orthogonal(), 0.0, flt.Erf()),
    "mixture": lambda: solve(mixture(), 0.05, flt.Tanh()),
    "digits": lambda: solve(flt.Digits((0, 1), 24, 10), 0.1, flt.Sigmoid()),
    "condensed": lambda: solve(flt.OrthogonalClassification(40, (0.5, 0.5)), 0.03, flt.ReLU()),
    "prior": lambda: solve(mixture(), np.inf, flt.ReLU()),
}


class Another(NeuronPosterior):
    """A neuron's posterior that answers as the one it is given, unless a subclass says otherwise."""

    def __init__(self, right):
        self.right = right

    field = property(lambda self: self.right.field)
    branches = property(lambda self: self.right.branches)
    outliers = property(lambda self: self.right.outliers)
    readout_covariance = property(lambda self: self.right.readout_covariance)

    def kernel_parts(self, layer):
        return self.right.kernel_parts(layer)

    def conjugate_kernel(self, layer):
        return self.right.conjugate_kernel(layer)

    def draw(self, n, layer, rng):
        return self.right.draw(n, layer, rng)

    def training_variance(self):
        return self.right.training_variance()

    def predict(self, inputs):
        return self.right.predict(inputs)

    def kernel(self, layer, inputs):
        return self.right.kernel(layer, inputs)


class Remembered(Another):
    """The same neurons drawn once for all tests."""

    def __init__(self, right):
        super().__init__(right)
        self.known = {}

    def draw(self, n, layer, rng):
        key = n, layer, str(rng.bit_generator.state)
        if key not in self.known:
            self.known[key] = self.right.draw(n, layer, rng)
        return self.known[key]


@pytest.fixture(scope="module")
def solutions():
    found = {name: solve() for name, solve in GOOD.items()}
    return {name: evolve(one, neuron=Remembered(one.neuron)) for name, one in found.items()}


@pytest.mark.parametrize("name", GOOD)
def test_good_ones_pass(solutions, name):
    check_solution(solutions[name])


# Planted faults ----------------------------------------------------------------------------------


class StrongerField(Another):
    field = property(lambda self: 1.01 * self.right.field)


class LargerKernel(Another):
    def kernel_parts(self, layer):
        parts = self.right.kernel_parts(layer)
        return KernelParts(1.01 * parts.bulk, 1.01**0.5 * parts.patterns)


class NegativeKernel(Another):
    def kernel_parts(self, layer):
        parts = self.right.kernel_parts(layer)
        return KernelParts(parts.bulk - 2 * np.diag(np.diagonal(parts.total)), parts.patterns)


class LopsidedKernel(Another):
    def kernel_parts(self, layer):
        parts = self.right.kernel_parts(layer)
        return KernelParts(parts.bulk + 1e-4 * np.triu(parts.bulk, 1), parts.patterns)


class MissingBranch(Another):
    @property
    def branches(self):
        b = self.right.branches
        kept = np.delete(np.arange(len(b.probabilities)), 1)
        shares = b.probabilities[kept] / b.probabilities[kept].sum()
        return BranchTable(shares, b.readout[kept], b.readout_covariance[kept], b.activations[kept])


class LosingShares(Another):
    @property
    def branches(self):
        b = self.right.branches
        return evolve(b, probabilities=0.999 * b.probabilities)


class Peaks(Another):
    """Branches without the width of their readouts."""

    @property
    def branches(self):
        b = self.right.branches
        return evolve(b, readout_covariance=0 * b.readout_covariance)


class FlippedConjugate(Another):
    def conjugate_kernel(self, layer):
        return -self.right.conjugate_kernel(layer)


class PriorNeurons(Another):
    """Neurons of the prior, whatever was learned."""

    def draw(self, n, layer, rng):
        z, readouts = self.right.draw(n, layer, rng)
        return rng.standard_normal(z.shape), None if readouts is None else 0.2 * rng.standard_normal(
            readouts.shape
        )


class ShuffledReadouts(Another):
    def draw(self, n, layer, rng):
        z, readouts = self.right.draw(n, layer, rng)
        return z, None if readouts is None else rng.permutation(readouts)


class NoReadouts(Another):
    def draw(self, n, layer, rng):
        return self.right.draw(n, layer, rng)[0], None


class BiasedPrediction(Another):
    def predict(self, inputs):
        mean, variance = self.right.predict(inputs)
        return mean + 0.01, variance


class NegativeVariance(Another):
    def training_variance(self):
        return -self.right.training_variance()


class OtherNewKernel(Another):
    def kernel(self, layer, inputs):
        return 1.1 * self.right.kernel(layer, inputs)


class NotCondensed(Another):
    outliers = None


class LargerOutliers(Another):
    @property
    def outliers(self):
        return evolve(self.right.outliers, readouts=1.05 * self.right.outliers.readouts)


# fault: the law that it breaks
FAULTS = {
    StrongerField: "self-consistency",
    LargerKernel: "self-consistency",
    NegativeKernel: "kernels",
    LopsidedKernel: "kernels",
    MissingBranch: "matrix virial",
    LosingShares: "branches",
    Peaks: "matrix virial",
    FlippedConjugate: "conjugate kernel",
    PriorNeurons: "drawn kernels",
    ShuffledReadouts: "drawn readouts",
    NoReadouts: "neurons",
    BiasedPrediction: "new inputs",
    NegativeVariance: "training outputs",
    OtherNewKernel: "new inputs",
    NotCondensed: "matrix virial",
    LargerOutliers: "outliers",
}
CONDENSED = (NotCondensed, LargerOutliers)
PLANTS = [
    *((fault, "linear, two layers") for fault in FAULTS if fault not in (MissingBranch, *CONDENSED)),
    *((fault, "mixture") for fault in FAULTS if fault not in CONDENSED),
    *((fault, "condensed") for fault in CONDENSED),
    *((fault, "orthogonal") for fault in (MissingBranch, Peaks)),
]


def failures(solution, **options):
    with pytest.raises(LawViolation) as caught:
        check_solution(solution, **options)
    return caught.value.failures


@pytest.mark.parametrize(("fault", "name"), PLANTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_planted_fault_is_named(solutions, fault, name):
    solution = solutions[name]
    assert FAULTS[fault] in failures(evolve(solution, neuron=fault(solution.neuron)))


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        *((name, -1.0) for name in ("linear", "linear, two layers", "mixture")),
        *(("mixture", factor) for factor in (0.5, 1.5)),
    ],
)
def test_a_free_energy_out_of_bounds_is_named(solutions, name, factor):
    solution = solutions[name]
    assert set(failures(evolve(solution, free_energy=factor * solution.free_energy))) == {"action"}


@pytest.mark.parametrize(("name", "certificate"), [("linear", 1.1), ("linear", None), ("orthogonal", 0.5)])
def test_a_wrong_certificate_is_named(solutions, name, certificate):
    assert set(failures(evolve(solutions[name], certificate=certificate))) == {"certificate"}


class Condensed(flt.MeanFieldSolution):
    """A solution that reports a condensed neuron it does not have."""

    @property
    def outliers(self):
        z = np.ones(len(self.dual_field))
        return (flt.Outlier(np.ones(self.dual_field.shape[1]), z, z),)


def test_a_condensed_neuron_that_is_none_is_named(solutions):
    true = solutions["linear"]
    names = ("model", "neuron", "free_energy", "residual", "certificate", "n_iterations", "method")
    found = failures(Condensed(**{name: getattr(true, name) for name in names}))
    assert {"outliers", "certificate", "matrix virial"} <= set(found)


# What is said ------------------------------------------------------------------------------------


def test_failures_are_told_in_words_and_with_sizes(solutions):
    solution = solutions["linear"]
    with pytest.raises(LawViolation) as caught:
        check_solution(evolve(solution, neuron=StrongerField(solution.neuron)))
    text = str(caught.value)
    assert text.startswith("the solution MeanFieldSolution(Linear(), L=1")
    assert "- self-consistency: it obeys (5)" in text
    assert re.search(r"sigma_a\^2 K_L t\[\d+, \d\] is .* off by .*, allowed", text)


def test_a_tolerance_of_one_s_own_takes_the_place_of_the_engine_s(solutions):
    assert "self-consistency" in failures(solutions["mixture"], tolerance=1e-7)
    solution = solutions["linear"]
    check_solution(evolve(solution, neuron=LargerKernel(solution.neuron)), tolerance=0.05)


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"tolerance": "small"}, {"seed": -1}])
def test_bad_arguments_are_refused(solutions, options):
    with pytest.raises((TypeError, ValueError), match=f"^{next(iter(options))}: expected"):
        check_solution(solutions["linear"], **options)


def test_what_is_no_solution_is_refused(solutions):
    with pytest.raises(TypeError, match="^theory: expected a MeanFieldSolution, got"):
        check_solution(solutions["linear"].neuron)


def test_laws_have_names_of_their_own():
    assert len({law.name for law in SOLUTION_LAWS}) == len(SOLUTION_LAWS)
