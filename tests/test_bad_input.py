"""Bad arguments to every public name: a ``ValueError`` or ``TypeError`` of our own that names them."""

import math
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from fractions import Fraction
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings, strategies as st

import fltheory as flt

PACKAGE = Path(flt.__file__).parent
P, N0, M, N = 4, 5, 2, 6  # of the little posterior below
X, Y = np.ones((P, N0)), np.ones((P, M))


@frozen
class Swish(flt.Nonlinearity):
    """A formula and nothing else."""

    def __call__(self, z):
        return z * flt.special(z).expit(z)


@frozen
class OwnGradient(flt.Target):
    """A normal density in the plane with a gradient of its own."""

    function: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    dimension = 2

    def log_density(self, x):
        return log_normal(x)

    def value_and_gradient(self, x):
        return self.function(x)


def log_normal(x):
    return -0.5 * (x**2).sum(1)


PLANE = torch.zeros(3, 2)  # three positions in it


def start_chains(target, x=PLANE):
    return flt.HMC().init(target, x, torch.Generator())


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no repr")


@cache
def posterior():
    rng = np.random.default_rng(0)
    task = flt.ArrayTask(rng.normal(size=(P, N0)), np.eye(M)[[0, 0, 1, 1]], [0, 0, 1, 1])
    return flt.DeepNetworkPosterior(task, flt.Linear(), width=N, temperature=0.1)


@cache
def theory():
    return posterior().solve()


@cache
def networks():
    return posterior().sample(n_draws=3, n_chains=2, n_warmup=12, seed=0, progress=False)


@cache
def deep():
    return evolve(posterior(), n_hidden_layers=2)


# What can come -----------------------------------------------------------------------------------

NOT_NUMBERS = {
    "bool": True,
    "numpy bool": np.False_,
    "string": "1",
    "none": None,
    "complex": 1j,
    "list": [1],
    "array": np.array([1.0]),
    "scalar array": np.array(1),
    "tensor": torch.tensor(1.0),
    "decimal": Decimal(1),
    "class": float,
    "unprintable": Unprintable(),
}
NOT_REAL = NOT_NUMBERS | {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "1e400": 10**400}
NOT_POSITIVE = NOT_REAL | {"zero": 0.0, "negative": -1.0}
NOT_TEMPERATURE = {k: v for k, v in NOT_POSITIVE.items() if k not in ("inf", "zero")}
NOT_INTEGER = NOT_NUMBERS | {"float": 2.0, "nan": np.nan, "inf": np.inf, "fraction": Fraction(3, 2)}
NOT_COUNT = NOT_INTEGER | {"zero": 0, "negative": -1, "-1e400": -(10**400)}
NOT_COUNT_OR_ZERO = NOT_INTEGER | {"negative": -1}
NOT_FLAG = {"one": 1, "zero": 0, "string": "yes", "array": np.array(True), "nan": np.nan, "list": [True]}
NOT_CHOICE = {
    "unknown": "foo",
    "empty": "",
    "bytes": b"auto",
    "number": 1,
    "bool": True,
    "list": ["auto"],
    "array": np.array("auto"),
    "nan": np.nan,
}


def arrays_like(*shape):
    """What is no real, finite array of this shape."""
    good = np.ones(shape)
    bad = good.copy()
    bad.flat[0] = np.nan
    return {
        "string": "1",
        "number": 1.0,
        "bool": True,
        "strings": np.full(shape, "1").tolist(),
        "complex": good + 1j,
        "objects": good.astype(object),
        "bools": good.astype(bool),
        "ragged": [[1.0], [1.0, 2.0]],
        "nan inside": bad,
        "inf inside": np.where(np.isnan(bad), np.inf, bad),
        "masked": np.ma.masked_invalid(bad),
        "masked in a list": [np.ma.masked, 1.0],
        "rank 3": good[None],
        "empty": np.empty((0, *shape[1:])),
        "dates": np.full(shape, np.datetime64("2020-01-01")),
        "needs gradient": torch.ones(shape, requires_grad=True),
        "dict": {"x": good},
        "class": np.ndarray,
        "unprintable": Unprintable(),
    }


NOT_INPUTS = arrays_like(P, N0) | {
    "rank 1": np.ones(N0),
    "width": np.ones((P, N0 + 1)),
    "no rows": np.ones((0, N0)),
}
NOT_NEW_INPUTS = {k: v for k, v in NOT_INPUTS.items() if k != "no rows"} | {"none of them": np.ones((0, N0))}
NOT_TARGETS = arrays_like(P, M) | {
    "too few": np.ones((P - 1, M)),
    "integer labels": [0, 0, 1, 1],
    "integer label array": np.array([0, 0, 1, 1]),
    "integer label tensor": torch.tensor([0, 0, 1, 1]),
    "vector too short": np.ones(P - 1),
    "vector with nan": [np.nan, 1.0, 1.0, 1.0],
    "no columns": np.ones((P, 0)),
}
NOT_LABELS = {
    "string": "0011",
    "strings": ["a", "a", "b", "b"],
    "floats": [0.0, 0.0, 1.0, 1.0],
    "bools": [False, False, True, True],
    "objects": np.array([0, 0, 1, 1], object),
    "complex": np.array([0, 0, 1, 1j]),
    "constant": [3] * P,
    "too few": [0, 0, 1],
    "one-hot": np.eye(M, dtype=int)[[0, 0, 1, 1]],
    "masked": np.ma.masked_array([0, 0, 1, 1], mask=[1, 0, 0, 0]),
    "masked in a list": [np.ma.masked_array(0, mask=True, dtype=int), 0, 1, 1],
    "empty": [],
    "number": 1,
    "ragged": [[0], [0, 1]],
    "unsigned": np.array([0, 0, 1, 2**63], np.uint64),
    "unprintable": Unprintable(),
}
NOT_RATIOS = {
    "string": "0.5, 0.5",
    "number": 1.0,
    "none": None,
    "scalar array": np.array(1.0),
    "scalar tensor": torch.tensor(1.0),
    "empty": (),
    "one": (1.0,),
    "sum below 1": (0.5, 0.4),
    "counts": (2, 2),
    "negative": (1.5, -0.5),
    "zero": (1.0, 0.0),
    "nan": (0.5, np.nan),
    "strings": ("0.5", "0.5"),
    "bools": (True, False),
    "matrix": np.full((2, 2), 0.5),
    "set": {0.25, 0.75},
    "dict": {0.25: "a", 0.75: "b"},
    "complex": (0.5j, 0.5),
}
NOT_DIGITS = {
    "string": "01",
    "number": 3,
    "none": None,
    "one": (1,),
    "twice": (1, 1),
    "too large": (1, 10),
    "negative": (-1, 1),
    "floats": (0.0, 1.0),
    "bools": (False, True),
    "strings": ("0", "1"),
    "empty": (),
    "set": {0, 1},
}
NOT_VARIANCES = {k: v for k, v in NOT_POSITIVE.items() if k not in ("list", "array")} | {
    "empty": (),
    "zero inside": (1.0, 0.0),
    "nan inside": [1.0, np.nan],
    "matrix": np.ones((2, 2)),
    "set": {1.0, 2.0},
    "strings": ["1.0"],
    "bools": [True],
    "no array": np.ones(2).astype(object).astype(str),
}
NOT_SCALING = {k: v for k, v in NOT_REAL.items() if k != "string"} | {"unknown": "foo", "number as text": "1"}
NOT_FRACTION = NOT_REAL | {"one": 1.0, "above": 1.5, "negative": -0.1}
NOT_PREACTIVATIONS = {
    "string": "1",
    "none": None,
    "list": [1.0],
    "bool": True,
    "complex": 1j,
    "complex array": np.ones(2, complex),
    "bools": np.ones(2, bool),
    "objects": np.array([1.0, None]),
    "strings": np.array(["1"]),
    "complex tensor": torch.ones(2, dtype=torch.complex64),
    "bool tensor": torch.ones(2, dtype=torch.bool),
    "class": np.ndarray,
}


def not_a(kind, *, optional=False):
    """What is no instance of a class, the class itself among them."""
    values = {
        "class": kind,
        "string": "x",
        "number": 1,
        "list": [],
        "function": abs,
        "unprintable": Unprintable(),
    }
    return values if optional else values | {"none": None}


def without(values, *names):
    return {k: v for k, v in values.items() if k not in names}


LAYER = NOT_COUNT | {"above L": 2}
ANY_LAYER = NOT_COUNT_OR_ZERO | {"above L": 2}
STARTS = not_a(flt.PosteriorSamples) | {"theory": theory, "other word": "posterior"}
DEVICES = {
    "unknown": "quantum",
    "empty": "",
    "number": 0,
    "none": None,
    "not here": "cuda:99",
    "no data": "meta",
    "list": ["cpu"],
}
LOG_DENSITIES = {
    "of all chains": lambda x: -(x**2).sum(),
    "of each coordinate": lambda x: -(x**2),
    "a column": lambda x: -(x**2).sum(1, keepdim=True),
    "number": lambda x: 0.0,
    "none": lambda x: None,
    "numpy": lambda x: np.zeros(len(x)),
    "integers": lambda x: (x > 0).sum(1),
    "complex": lambda x: 1j * x.sum(1),
    "detached": lambda x: x.detach().sum(1),
    "constant": lambda x: torch.zeros(len(x)),
}
GRADIENTS = {
    "of all chains": lambda x: (log_normal(x).sum(), -x),
    "one coordinate": lambda x: (log_normal(x), -x[:, :1]),
    "transposed": lambda x: (log_normal(x), -x.T),
    "none": lambda x: (log_normal(x), None),
}
POSITIONS = {
    "list": [[0.0, 0.0]],
    "array": np.zeros((3, 2)),
    "one chain": torch.zeros(2),
    "no chains": torch.zeros(0, 2),
    "dimension": torch.zeros(3, 1),
    "rank 3": torch.zeros(3, 2, 1),
    "integers": torch.zeros(3, 2, dtype=torch.int64),
}
COUNT = count(1)
NOT_AXES = {"string": "x", "number": 1, "list": [1], "empty": [], "array": X, "flag": True}
NOT_OUTPUTS = without(NOT_COUNT_OR_ZERO, "none") | {
    "above m": M,
    "pair above m": (0, M),
    "twice": (0, 0),
    "three": (0, 1, 0),
    "empty": (),
    "text": "01",
    "set": {0, 1},
}
TARGETS = without(NOT_TARGETS, "rank 3", "masked") | {
    "other outputs": np.ones((P, M + 1)),
    "other chains": np.ones((3, P, M)),
    "vector": np.ones(P),
    "masked": NOT_TARGETS["masked"],
}

# The table ---------------------------------------------------------------------------------------

Task, Digits, Orthogonal = flt.ArrayTask, flt.Digits, flt.OrthogonalClassification

# what is called, its argument, the bad values, the call
TABLE = [
    (
        "ArrayTask",
        "inputs",
        without(NOT_INPUTS, "width") | {"none": None, "overflowing": 1e200 * X},
        lambda v: Task(v, Y),
    ),
    ("ArrayTask", "targets", NOT_TARGETS | {"none": None}, lambda v: Task(X, v)),
    ("ArrayTask", "labels", NOT_LABELS, lambda v: Task(X, Y, v)),
    ("ArrayTask", "test_inputs", NOT_INPUTS, lambda v: Task(X, Y, test_inputs=v)),
    ("ArrayTask", "test_targets", NOT_TARGETS, lambda v: Task(X, Y, test_inputs=X, test_targets=v)),
    ("ArrayTask", "test_inputs", {"missing": None}, lambda v: Task(X, Y, test_inputs=v, test_targets=Y)),
    (
        "from_labels",
        "inputs",
        NOT_INPUTS | {"width": [[1.0], []]},
        lambda v: Task.from_labels(v, [0, 0, 1, 1]),
    ),
    ("from_labels", "labels", NOT_LABELS | {"none": None}, lambda v: Task.from_labels(X, v)),
    (
        "OrthogonalClassification",
        "n_samples",
        NOT_COUNT | {"one": 1, "1e400": 10**400, "2 of 3 classes": 2},
        lambda v: Orthogonal(v, (0.4, 0.3, 0.3)),
    ),
    ("OrthogonalClassification", "class_ratios", NOT_RATIOS, lambda v: Orthogonal(10, v)),
    (
        "OrthogonalClassification",
        "n_inputs",
        without(NOT_COUNT, "none") | {"below P": 9},
        lambda v: Orthogonal(10, (0.5, 0.5), v),
    ),
    ("Digits", "classes", NOT_DIGITS, lambda v: Digits(classes=v)),
    (
        "Digits",
        "n_samples",
        NOT_COUNT | {"one": 1, "too many": 1000, "1e400": 10**400},
        lambda v: Digits(n_samples=v),
    ),
    ("Digits", "n_test", NOT_COUNT_OR_ZERO, lambda v: Digits(n_test=v)),
    ("Digits", "seed", NOT_COUNT_OR_ZERO, lambda v: Digits(seed=v)),
    ("LeakyReLU", "negative_slope", NOT_REAL, flt.LeakyReLU),
    *(
        (type(phi).__name__, "z", NOT_PREACTIVATIONS, phi)
        for phi in (flt.Linear(), flt.Sigmoid(), flt.Erf(), flt.Tanh(), flt.ReLU(), flt.LeakyReLU(), Swish())
    ),
    *(
        (f"{type(phi).__name__}.derivative", "z", NOT_PREACTIVATIONS, phi.derivative)
        for phi in (flt.Linear(), flt.Sigmoid(), flt.Erf(), flt.Tanh(), flt.ReLU(), flt.LeakyReLU(), Swish())
    ),
    ("namespace", "z", NOT_PREACTIVATIONS, flt.namespace),
    ("special", "z", NOT_PREACTIVATIONS, flt.special),
    ("GaussianPrior", "weight_variance", NOT_VARIANCES, flt.GaussianPrior),
    ("GaussianPrior", "readout_variance", NOT_POSITIVE, lambda v: flt.GaussianPrior(1.0, v)),
    ("GaussianPrior", "scaling", NOT_SCALING, lambda v: flt.GaussianPrior(scaling=v)),
    ("weight_variances", "n_hidden_layers", NOT_COUNT, lambda v: flt.GaussianPrior().weight_variances(v)),
    (
        "effective_readout_variance",
        "n_samples",
        NOT_COUNT,
        lambda v: flt.GaussianPrior().effective_readout_variance(v, 1, is_linear=True, is_lazy=False),
    ),
    (
        "effective_readout_variance",
        "n_hidden_layers",
        NOT_COUNT,
        lambda v: flt.GaussianPrior().effective_readout_variance(10, v, is_linear=True, is_lazy=False),
    ),
    ("HMC", "n_leapfrog", NOT_COUNT, lambda v: flt.HMC(n_leapfrog=v)),
    ("HMC", "step_size", NOT_POSITIVE, lambda v: flt.HMC(step_size=v)),
    ("HMC", "target_acceptance", NOT_FRACTION, lambda v: flt.HMC(target_acceptance=v)),
    ("HMC", "jitter", NOT_FRACTION, lambda v: flt.HMC(jitter=v)),
    ("HMC", "learn_scales", NOT_FLAG | {"none": None}, lambda v: flt.HMC(learn_scales=v)),
    ("MALA", "step_size", NOT_POSITIVE, lambda v: flt.MALA(step_size=v)),
    ("MALA", "target_acceptance", NOT_FRACTION, lambda v: flt.MALA(target_acceptance=v)),
    ("NUTS", "max_depth", NOT_COUNT | {"deep": 16}, lambda v: flt.NUTS(max_depth=v)),
    ("NUTS", "step_size", NOT_POSITIVE, lambda v: flt.NUTS(step_size=v)),
    ("Langevin", "step_size", NOT_POSITIVE, lambda v: flt.Langevin(step_size=v)),
    ("Langevin", "friction", without(NOT_POSITIVE, "none"), lambda v: flt.Langevin(friction=v)),
    (
        "PreconditionedCrankNicolson",
        "step_size",
        NOT_POSITIVE,
        lambda v: flt.PreconditionedCrankNicolson(step_size=v),
    ),
    ("BlockIndependence", "n_candidates", NOT_COUNT, lambda v: flt.BlockIndependence(n_candidates=v)),
    (
        "BlockIndependence",
        "n_updates",
        without(NOT_COUNT, "none"),
        lambda v: flt.BlockIndependence(n_updates=v),
    ),
    ("Alternate", "samplers", not_a(flt.HMC), lambda v: flt.Alternate(v)),
    ("Alternate", "samplers", {"none at all": ()}, lambda v: flt.Alternate(*v)),
    (
        "Tempering",
        "sampler",
        not_a(flt.HMC)
        | {
            "tempered": flt.Tempering(flt.HMC()),
            "tempered inside": flt.Alternate(flt.MALA(), flt.Tempering(flt.HMC())),
        },
        lambda v: flt.Tempering(v),
    ),
    ("Tempering", "n_levels", NOT_COUNT | {"one": 1}, lambda v: flt.Tempering(flt.HMC(), n_levels=v)),
    (
        "from_function",
        "gaussian_factor",
        {"zero": 0.0, "negative": -1.0, "nan": math.nan, "string": "1", "bool": True, "long": torch.ones(3)},
        lambda v: flt.Target.from_function(2, log_normal, v),
    ),
    ("load", "path", {"number": 1, "none": None}, lambda v: flt.load(v)),
    ("load", "posterior", not_a(flt.HMC, optional=True), lambda v: flt.load("no file", v)),
    ("from_function", "dimension", NOT_COUNT, lambda v: flt.Target.from_function(v, torch.sum)),
    (
        "from_function",
        "log_density",
        {"number": 1, "none": None, "string": "x", "tensor": torch.ones(2)},
        lambda v: flt.Target.from_function(2, v),
    ),
    ("HMC.init", "log_density", LOG_DENSITIES, lambda v: start_chains(flt.Target.from_function(2, v))),
    ("HMC.init", "value_and_gradient", GRADIENTS, lambda v: start_chains(OwnGradient(v))),
    ("HMC.init", "x", POSITIONS, lambda v: start_chains(flt.Target.from_function(2, log_normal), v)),
    (
        "DeepNetworkPosterior",
        "task",
        not_a(flt.Digits) | {"array": X, "tuple": (X, Y)},
        lambda v: flt.DeepNetworkPosterior(v, flt.Linear()),
    ),
    (
        "DeepNetworkPosterior",
        "nonlinearity",
        not_a(flt.Tanh) | {"lambda": lambda z: z, "numpy": np.tanh},
        lambda v: flt.DeepNetworkPosterior(posterior().task, v),
    ),
    ("DeepNetworkPosterior", "prior", not_a(flt.GaussianPrior), lambda v: evolve(posterior(), prior=v)),
    (
        "DeepNetworkPosterior",
        "weight_variance",
        {"two for one layer": (1.0, 1.0)},
        lambda v: evolve(posterior(), prior=flt.GaussianPrior(v)),
    ),
    (
        "DeepNetworkPosterior",
        "n_hidden_layers",
        NOT_COUNT | {"1e400": 10**400},
        lambda v: evolve(posterior(), n_hidden_layers=v),
    ),
    ("DeepNetworkPosterior", "width", NOT_COUNT | {"1e400": 10**400}, lambda v: evolve(posterior(), width=v)),
    ("DeepNetworkPosterior", "temperature", NOT_TEMPERATURE, lambda v: evolve(posterior(), temperature=v)),
    (
        "DeepNetworkPosterior",
        "readout_scaling",
        NOT_CHOICE | {"none": None},
        lambda v: evolve(posterior(), readout_scaling=v),
    ),
    (
        "DeepNetworkPosterior",
        "sampler",
        not_a(flt.HMC, optional=True),
        lambda v: evolve(posterior(), sampler=v),
    ),
    ("at_width", "width", NOT_COUNT | {"1e400": 10**400}, lambda v: posterior().at_width(v)),
    ("at_width", "width", {"T to 0": 10**6}, lambda v: evolve(posterior(), temperature=5e-324).at_width(v)),
    ("at_width", "width", {"T to inf": 1}, lambda v: evolve(posterior(), temperature=1e308).at_width(v)),
    ("solve", "method", NOT_CHOICE | {"none": None}, lambda v: posterior().solve(method=v)),
    (
        "solve",
        "start",
        not_a(flt.MeanFieldSolution, optional=True) | {"samples": networks},
        lambda v: posterior().solve(start=v),
    ),
    (
        "solve",
        "start",
        {"of another task": theory},
        lambda v: flt.DeepNetworkPosterior(Orthogonal(8, (0.5, 0.5)), flt.Linear(), temperature=0.1).solve(
            start=v
        ),
    ),
    ("solve", "tolerance", NOT_POSITIVE, lambda v: posterior().solve(tolerance=v)),
    ("solve", "max_iterations", NOT_COUNT, lambda v: posterior().solve(max_iterations=v)),
    ("solve", "seed", NOT_COUNT_OR_ZERO, lambda v: posterior().solve(seed=v)),
    ("solve", "progress", NOT_FLAG, lambda v: posterior().solve(progress=v)),
    ("sample", "sampler", not_a(flt.HMC, optional=True), lambda v: posterior().sample(sampler=v)),
    ("sample", "n_draws", NOT_COUNT, lambda v: posterior().sample(n_draws=v)),
    ("sample", "n_chains", NOT_COUNT, lambda v: posterior().sample(n_chains=v)),
    ("sample", "n_warmup", without(NOT_COUNT_OR_ZERO, "none"), lambda v: posterior().sample(n_warmup=v)),
    (
        "solve",
        "code_fractions",
        {
            "number": 0.5,
            "list": [(1, 0)],
            "text": "10",
            "sum": {(1, 0): 0.5},
            "negative": {(1, 0): 1.5, (0, 1): -0.5},
            "length": {(1,): 1.0},
            "entries": {(1, 2): 1.0},
            "key": {5: 1.0},
            "empty": {},
            "value": {(1, 0): "all"},
        },
        lambda v: evolve(posterior(), nonlinearity=flt.Sigmoid()).solve(code_fractions=v),
    ),
    ("solve", "code_fractions", {"linear": {(1, 0): 1.0}}, lambda v: posterior().solve(code_fractions=v)),
    ("sample", "start", STARTS, lambda v: posterior().sample(start=v)),
    ("sample", "start", {"of other chains": networks}, lambda v: posterior().sample(n_chains=3, start=v)),
    (
        "sample",
        "start",
        {"of another width": networks},
        lambda v: posterior().at_width(9).sample(n_chains=2, start=v),
    ),
    ("sample", "start", {"of another depth": networks}, lambda v: deep().sample(n_chains=2, start=v)),
    ("sample", "seed", NOT_COUNT_OR_ZERO | {"1e400": 10**400}, lambda v: posterior().sample(seed=v)),
    ("sample", "coordinates", NOT_CHOICE | {"none": None}, lambda v: posterior().sample(coordinates=v)),
    (
        "sample",
        "coordinates",
        {"weights at T = 0": "weights", "preactivations at T = 0": "preactivations"},
        lambda v: evolve(posterior(), temperature=0.0).sample(coordinates=v),
    ),
    (
        "sample",
        "width",
        {"below P at T = 0": 3},
        lambda v: evolve(posterior(), temperature=0.0, width=v).sample(),
    ),
    ("sample", "device", DEVICES, lambda v: posterior().sample(device=v)),
    (
        "sample",
        "dtype",
        NOT_CHOICE | {"float16": "float16", "none": None, "torch": torch.float64, "numpy": np.float64},
        lambda v: posterior().sample(dtype=v),
    ),
    ("sample", "keep", NOT_CHOICE | {"none": None}, lambda v: posterior().sample(keep=v)),
    (
        "sample",
        "chains_per_batch",
        without(NOT_COUNT, "none"),
        lambda v: posterior().sample(chains_per_batch=v),
    ),
    (
        "sample",
        "checkpoint",
        {"number": 1, "bool": True, "list": ["folder"]},
        lambda v: posterior().sample(checkpoint=v),
    ),
    ("sample", "thin", NOT_COUNT, lambda v: posterior().sample(thin=v)),
    ("sample", "progress", NOT_FLAG, lambda v: posterior().sample(progress=v)),
    ("sample", "targets", TARGETS, lambda v: posterior().sample(targets=v)),
    *(
        row
        for name, answer in (("theory", theory), ("networks", networks))
        for row in (
            (f"{name}.kernel", "layer", ANY_LAYER, lambda v, a=answer: a().kernel(v)),
            (f"{name}.kernel", "inputs", NOT_NEW_INPUTS, lambda v, a=answer: a().kernel(1, v)),
            (f"{name}.predict", "inputs", NOT_NEW_INPUTS, lambda v, a=answer: a().predict(v)),
            (f"{name}.neurons", "n", NOT_COUNT, lambda v, a=answer: a().neurons(v, 1)),
            (f"{name}.neurons", "layer", LAYER, lambda v, a=answer: a().neurons(3, v)),
            (f"{name}.neurons", "seed", NOT_COUNT_OR_ZERO, lambda v, a=answer: a().neurons(3, 1, seed=v)),
        )
    ),
    ("theory.conjugate_kernel", "layer", LAYER, lambda v: theory().conjugate_kernel(v)),
    ("theory.decomposition", "layer", LAYER, lambda v: theory().decomposition(v)),
    ("theory.symmetry", "layer", LAYER, lambda v: theory().symmetry(v)),
    ("networks.neurons", "n", {"more than there are": 2 * 3 * N + 1}, lambda v: networks().neurons(v, 1)),
    ("networks.activations", "layer", LAYER, lambda v: networks().activations(v)),
    ("networks.outputs", "inputs", NOT_NEW_INPUTS, lambda v: networks().outputs(v)),
    ("networks.functional", "layer", without(LAYER, "none"), lambda v: networks().functional(np.abs, v)),
    ("networks.functional", "inputs", NOT_NEW_INPUTS, lambda v: networks().functional(np.abs, 1, v)),
    (
        "networks.functional",
        "function",
        {
            "number": 1,
            "none": None,
            "string": "mean",
            "matrix": np.eye(2),
            "one number": np.mean,
            "no chains": lambda v: v[0],
            "text": lambda v: np.full(2, "x"),
            "complex": lambda v: np.ones(2) * 1j,
            "nothing": lambda v: None,
            "ragged": lambda v: [[1.0], [1.0, 2.0]],
            "objects": lambda v: np.array([1.0, None]),
            "nan": lambda v: np.array([1.0, np.nan]),
            "inf": lambda v: np.array([1.0, np.inf]),
            "masked": lambda v: np.ma.masked_array([1.0, 2.0], [False, True]),
            "a shape of each draw": lambda v: np.ones((2, next(COUNT))),
        },
        lambda v: networks().functional(v),
    ),
    ("networks.resume", "n_draws", NOT_COUNT, lambda v: networks().resume(v)),
    ("networks.resume", "progress", NOT_FLAG, lambda v: networks().resume(1, progress=v)),
    (
        "compare",
        "theory",
        not_a(flt.MeanFieldSolution) | {"networks": networks},
        lambda v: flt.compare(v, networks()),
    ),
    (
        "compare",
        "networks",
        not_a(flt.PosteriorSamples) | {"theory": theory},
        lambda v: flt.compare(theory(), v),
    ),
    (
        "find_codes",
        "representation",
        not_a(flt.MeanFieldSolution) | without(arrays_like(7, P), "rank 3"),
        lambda v: flt.find_codes(v, labels=[0, 0, 1, 1]),
    ),
    ("find_codes", "layer", without(LAYER, "none"), lambda v: flt.find_codes(theory(), v)),
    ("find_codes", "n", without(NOT_COUNT, "none"), lambda v: flt.find_codes(theory(), n=v)),
    ("find_codes", "seed", NOT_COUNT_OR_ZERO, lambda v: flt.find_codes(theory(), seed=v)),
    ("find_codes", "labels", NOT_LABELS, lambda v: flt.find_codes(theory(), labels=v)),
    (
        "plot_activations",
        "n_strongest",
        without(NOT_COUNT, "none") | {"above N": 10**6},
        lambda v: flt.plot_activations(theory(), n_strongest=v),
    ),
    (
        "plot_coding_schemes",
        "representations",
        not_a(flt.MeanFieldSolution),
        lambda v: flt.plot_coding_schemes(v),
    ),
    (
        "plot_coding_schemes",
        "theories",
        {"number": 1, "string": "x", "two": [None, None], "another": ["x"]},
        lambda v: flt.plot_coding_schemes(theory(), theories=v),
    ),
    (
        "plot_coding_schemes",
        "n_strongest",
        NOT_COUNT,
        lambda v: flt.plot_coding_schemes(theory(), n_strongest=v),
    ),
    ("plot_coding_schemes", "seed", NOT_COUNT_OR_ZERO, lambda v: flt.plot_coding_schemes(theory(), seed=v)),
    ("plot_coding_schemes", "ax", NOT_AXES, lambda v: flt.plot_coding_schemes(theory(), ax=v)),
    (
        "plot_overview",
        "representations",
        not_a(flt.PosteriorSamples),
        lambda v: flt.plot_overview(v),
    ),
    (
        "plot_overview",
        "theories",
        {"number": 1, "string": "x", "two": [None, None], "another": ["x"]},
        lambda v: flt.plot_overview(networks(), theories=v),
    ),
    ("plot_overview", "seed", NOT_COUNT_OR_ZERO, lambda v: flt.plot_overview(networks(), seed=v)),
    ("plot_overview", "ax", NOT_AXES, lambda v: flt.plot_overview(networks(), ax=v)),
    (
        "plot_drift",
        "trajectories",
        not_a(flt.PosteriorSamples) | {"theory": theory},
        lambda v: flt.plot_drift(v),
    ),
    (
        "plot_drift",
        "theories",
        {"number": 1, "string": "x", "two": [None, None], "another": ["x"]},
        lambda v: flt.plot_drift(networks(), theories=v),
    ),
    ("plot_drift", "n_strongest", NOT_COUNT, lambda v: flt.plot_drift(networks(), n_strongest=v)),
    ("plot_drift", "ax", NOT_AXES, lambda v: flt.plot_drift(networks(), ax=v)),
    ("plot_overlap", "trajectory", not_a(flt.PosteriorSamples) | {"theory": theory}, flt.plot_overlap),
    (
        "plot_overlap",
        "theory",
        not_a(flt.MeanFieldSolution, optional=True),
        lambda v: flt.plot_overlap(networks(), v),
    ),
    ("plot_overlap", "modulo", NOT_CHOICE, lambda v: flt.plot_overlap(networks(), modulo=v)),
    ("plot_overlap", "ax", NOT_AXES, lambda v: flt.plot_overlap(networks(), ax=v)),
    ("plot_comparison", "comparison", not_a(flt.Comparison) | {"theory": theory}, flt.plot_comparison),
    ("plot_convergence", "theories", not_a(flt.MeanFieldSolution), lambda v: flt.plot_convergence(v)),
    ("compute_figure", "name", NOT_CHOICE, flt.compute_figure),
    ("compute_figure", "quick", NOT_FLAG, lambda v: flt.compute_figure("readouts", v)),
    ("compute_figure", "seed", NOT_COUNT_OR_ZERO, lambda v: flt.compute_figure("readouts", True, v)),
    (
        "compute_figure",
        "checkpoint",
        {"number": 1, "list": []},
        lambda v: flt.compute_figure("readouts", True, checkpoint=v),
    ),
    ("compute_figure", "progress", NOT_FLAG, lambda v: flt.compute_figure("readouts", True, progress=v)),
    ("write_figures", "output", {"number": 1, "none": None, "list": []}, flt.write_figures),
    (
        "write_figures",
        "names",
        {"number": 1, "string": "drift", "none": None, "empty": [], "unknown": ["central"]},
        lambda v: flt.write_figures(".", v),
    ),
    ("write_figures", "quick", NOT_FLAG, lambda v: flt.write_figures(".", quick=v)),
    ("write_figures", "seed", NOT_COUNT_OR_ZERO, lambda v: flt.write_figures(".", seed=v)),
    ("write_figures", "progress", NOT_FLAG, lambda v: flt.write_figures(".", progress=v)),
    ("find_codes", "readouts", arrays_like(7, M), lambda v: flt.find_codes(np.ones((7, P)), readouts=v)),
    (
        "find_codes",
        "readouts",
        {"with a theory": np.ones((N, M))},
        lambda v: flt.find_codes(theory(), readouts=v),
    ),
    ("code_fractions", "representation", not_a(flt.MeanFieldSolution) | {"array": X}, flt.code_fractions),
    ("code_fractions", "layer", without(LAYER, "none"), lambda v: flt.code_fractions(networks(), v)),
    ("code_fractions", "n", NOT_COUNT, lambda v: flt.code_fractions(theory(), n=v)),
    ("code_fractions", "seed", NOT_COUNT_OR_ZERO, lambda v: flt.code_fractions(theory(), seed=v)),
    ("code_fractions", "labels", NOT_LABELS, lambda v: flt.code_fractions(networks(), labels=v)),
    ("coding_scheme", "representation", not_a(flt.MeanFieldSolution) | {"array": X}, flt.coding_scheme),
    ("coding_scheme", "layer", without(LAYER, "none"), lambda v: flt.coding_scheme(theory(), v)),
    ("coding_scheme", "n", without(NOT_COUNT, "none"), lambda v: flt.coding_scheme(theory(), n=v)),
    ("coding_scheme", "seed", NOT_COUNT_OR_ZERO, lambda v: flt.coding_scheme(theory(), seed=v)),
    ("coding_scheme", "labels", NOT_LABELS, lambda v: flt.coding_scheme(theory(), labels=v)),
    (
        "coding_scheme.top_share",
        "k",
        NOT_COUNT | {"too many": N + 1},
        lambda v: flt.coding_scheme(theory()).top_share(v),
    ),
    (
        "coding_scheme.most_active",
        "k",
        NOT_COUNT | {"too many": N + 1},
        lambda v: flt.coding_scheme(theory()).most_active(v),
    ),
    ("overlap", "samples", not_a(flt.PosteriorSamples) | {"theory": theory}, flt.overlap),
    ("overlap", "layer", without(LAYER, "none"), lambda v: flt.overlap(networks(), v)),
    (
        "overlap",
        "lags",
        {"number": 1, "string": "1", "empty": (), "negative": [-1], "too long": [3], "float": [1.0]},
        lambda v: flt.overlap(networks(), lags=v),
    ),
    ("overlap", "modulo", NOT_CHOICE, lambda v: flt.overlap(networks(), modulo=v)),
    ("overlap_limit", "theory", not_a(flt.MeanFieldSolution) | {"networks": networks}, flt.overlap_limit),
    ("overlap_limit", "layer", without(LAYER, "none"), lambda v: flt.overlap_limit(theory(), v)),
    ("align", "samples", not_a(flt.PosteriorSamples) | {"theory": theory}, flt.align),
    ("align", "layer", without(LAYER, "none"), lambda v: flt.align(networks(), v)),
    (
        "align",
        "reference",
        NOT_COUNT_OR_ZERO | {"too large": 2},
        lambda v: flt.align(networks(), reference=v),
    ),
    (
        "align",
        "draw",
        without(NOT_COUNT_OR_ZERO, "none") | {"too large": 3},
        lambda v: flt.align(networks(), draw=v),
    ),
    ("kernel_alignment", "representation", not_a(flt.MeanFieldSolution) | {"array": X}, flt.kernel_alignment),
    ("kernel_alignment", "layer", without(ANY_LAYER, "none"), lambda v: flt.kernel_alignment(theory(), v)),
    (
        "plot_kernels",
        "representations",
        not_a(flt.MeanFieldSolution) | {"array": X},
        lambda v: flt.plot_kernels(v),
    ),
    ("plot_kernels", "layer", ANY_LAYER, lambda v: flt.plot_kernels(theory(), layer=v)),
    ("plot_kernels", "ax", NOT_AXES, lambda v: flt.plot_kernels(theory(), ax=v)),
    ("plot_activations", "representation", not_a(flt.MeanFieldSolution) | {"array": X}, flt.plot_activations),
    ("plot_activations", "layer", LAYER, lambda v: flt.plot_activations(theory(), layer=v)),
    ("plot_activations", "n", without(NOT_COUNT, "none"), lambda v: flt.plot_activations(theory(), n=v)),
    ("plot_activations", "seed", NOT_COUNT_OR_ZERO, lambda v: flt.plot_activations(theory(), seed=v)),
    ("plot_activations", "ax", NOT_AXES, lambda v: flt.plot_activations(theory(), ax=v)),
    ("plot_readouts", "networks", not_a(flt.PosteriorSamples), flt.plot_readouts),
    (
        "plot_readouts",
        "theory",
        not_a(flt.MeanFieldSolution, optional=True) | {"networks": networks},
        lambda v: flt.plot_readouts(networks(), v),
    ),
    ("plot_readouts", "output", NOT_OUTPUTS, lambda v: flt.plot_readouts(networks(), output=v)),
    ("plot_readouts", "ax", NOT_AXES, lambda v: flt.plot_readouts(networks(), output=0, ax=v)),
]

CASES = {
    f"{what}-{argument}-{label}": (argument, value, call)
    for what, argument, values, call in TABLE
    for label, value in values.items()
}


def test_the_table_is_long():
    assert len(CASES) > 1000 and len(CASES) == sum(len(values) for _, _, values, _ in TABLE)


def _raised_inside(info):
    """Whether the error was raised by the package, not by numpy or torch underneath."""
    return Path(info.traceback[-1].path).is_relative_to(PACKAGE)


@pytest.mark.parametrize(("argument", "value", "call"), CASES.values(), ids=CASES)
def test_bad_input_is_refused_by_name(argument, value, call):
    value = value() if any(value is late for late in (theory, networks)) else value
    with pytest.raises((TypeError, ValueError)) as info:
        call(value)
    message = str(info.value)
    assert type(info.value) in (TypeError, ValueError), "a subclass is someone else's error"
    assert argument in message and "expected" in message
    assert _raised_inside(info), "raised outside the package"
    assert len(message) < 500


# Names that do not exist -------------------------------------------------------------------------

UNKNOWN = {
    "ArrayTask": lambda: Task(X, Y, label=[0, 0, 1, 1]),
    "OrthogonalClassification": lambda: Orthogonal(4, (0.5, 0.5), seed=0),
    "Digits": lambda: Digits(n_train=100),
    "Sigmoid": lambda: flt.Sigmoid(beta=1.0),
    "LeakyReLU": lambda: flt.LeakyReLU(slope=0.1),
    "GaussianPrior": lambda: flt.GaussianPrior(variance=1.0),
    "HMC": lambda: flt.HMC(n_steps=3),
    "DeepNetworkPosterior": lambda: flt.DeepNetworkPosterior(posterior().task, flt.Tanh(), depth=2),
    "evolve": lambda: evolve(posterior(), depth=2),
    "solve": lambda: posterior().solve(tol=1e-6),
    "sample": lambda: posterior().sample(n_samples=10),
    "kernel": lambda: theory().kernel(1, x=None),
    "resume": lambda: networks().resume(1, seed=0),
}


@pytest.mark.parametrize("call", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_unknown_keywords_are_refused_by_python(call):
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        call()


ABSTRACT = [flt.Task, flt.Nonlinearity, flt.Prior, flt.Target, flt.Sampler, flt.Representation]


@pytest.mark.parametrize("kind", ABSTRACT)
def test_abstract_classes_cannot_be_made(kind):
    with pytest.raises(TypeError, match=f"instantiate abstract class {kind.__name__}"):
        kind()


def test_values_cannot_be_changed():
    for value, name in ((posterior(), "width"), (posterior().task, "inputs"), (flt.HMC(), "jitter")):
        with pytest.raises(AttributeError):
            setattr(value, name, 1)


# Arbitrary junk ----------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(max_size=4)
    | st.binary(max_size=3)
    | st.decimals()
    | st.fractions()
    | st.sampled_from([10**400, -(10**400), date(2020, 1, 1), object(), ..., float, np.mean])
    | st.sampled_from(
        ["auto", "none", "lazy", "non-lazy", flt.Tanh(), flt.Tanh, flt.GaussianPrior(), flt.HMC()]
    )
)
dtypes = ["f8", "f4", "f2", "i8", "i1", "u8", "c16", "?", "O", "U1", "S1", "M8[D]", "m8[s]", "g"]
shapes = st.sampled_from([(), (0,), (1,), (4,), (4, 5), (4, 2), (4, 0), (0, 5), (2, 4, 5)])


@st.composite
def junk_arrays(draw):
    array = np.resize(np.array([0, 1, 1], "i8"), draw(shapes)).astype(draw(st.sampled_from(dtypes)))
    if array.size and array.dtype.kind in "fc" and draw(st.booleans()):
        array = array.copy()
        array.flat[0] = draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e4]))
    kind = draw(st.sampled_from(["array", "list", "masked", "tensor"]))
    if kind == "masked":
        return np.ma.masked_array(array, mask=draw(st.booleans()))
    if kind == "tensor" and array.dtype.char in "dfel?":
        return torch.from_numpy(array)
    return array.tolist() if kind == "list" else array


junk = st.recursive(
    scalars | junk_arrays(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=1), inner)
    ),
    max_leaves=4,
)
CONSTRUCTORS = {
    "ArrayTask": (Task, {"inputs": X, "targets": Y}, ["labels", "test_inputs", "test_targets"]),
    "from_labels": (Task.from_labels, {"inputs": X, "labels": [0, 0, 1, 1]}, []),
    "OrthogonalClassification": (Orthogonal, {"n_samples": 6, "class_ratios": (0.5, 0.5)}, ["n_inputs"]),
    "Digits": (Digits, {}, ["classes", "n_samples", "n_test", "seed"]),
    "LeakyReLU": (flt.LeakyReLU, {}, ["negative_slope"]),
    "GaussianPrior": (flt.GaussianPrior, {}, ["weight_variance", "readout_variance", "scaling"]),
    "HMC": (flt.HMC, {}, ["n_leapfrog", "step_size", "target_acceptance", "jitter", "learn_scales"]),
    "MALA": (flt.MALA, {}, ["step_size", "target_acceptance", "learn_scales"]),
    "NUTS": (flt.NUTS, {}, ["step_size", "target_acceptance", "max_depth", "learn_scales"]),
    "Langevin": (flt.Langevin, {}, ["step_size", "friction"]),
    "PreconditionedCrankNicolson": (
        flt.PreconditionedCrankNicolson,
        {},
        ["step_size", "target_acceptance"],
    ),
    "BlockIndependence": (flt.BlockIndependence, {}, ["n_candidates", "n_updates"]),
    "Tempering": (flt.Tempering, {"sampler": flt.HMC()}, ["n_levels"]),
    "from_function": (
        flt.Target.from_function,
        {"dimension": 2, "log_density": torch.sum},
        ["gaussian_factor"],
    ),
    "DeepNetworkPosterior": (
        flt.DeepNetworkPosterior,
        {"task": Orthogonal(4, (0.5, 0.5)), "nonlinearity": flt.Tanh()},
        ["prior", "n_hidden_layers", "width", "temperature", "readout_scaling", "sampler"],
    ),
}


@settings(suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("name", CONSTRUCTORS)
@given(data=st.data())
def test_junk_is_accepted_or_refused(name, data):
    make, arguments, optional = CONSTRUCTORS[name]
    names = [*arguments, *optional]
    chosen = data.draw(st.sets(st.sampled_from(names), min_size=1, max_size=2))
    given_values = {argument: data.draw(junk, label=argument) for argument in sorted(chosen)}
    try:
        make(**(arguments | given_values))
    except (TypeError, ValueError) as error:
        refusal = error
    else:
        return
    assert type(refusal) in (TypeError, ValueError)
    assert any(argument in str(refusal) for argument in names) and "expected" in str(refusal)
