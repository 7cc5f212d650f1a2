"""The network and its prior in numbers: what both answers, theory and samples, start from."""

import re
from functools import cached_property
from typing import Any

import numpy as np
from attrs import frozen

from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.validation import Array, check_array, check_integer, fingerprint, read_only
from fltheory.task import Task

_PROBE = np.linspace(-4.0, 4.0, 17)  # where two nonlinearities of one name are told apart


@frozen(eq=False)
class Model:
    """A posterior with all scalings resolved (docs/theory.md (1), (2)).

    ``DeepNetworkPosterior`` makes it from its ingredients; nothing here is checked again.

    Attributes
    ----------
    task, nonlinearity, width, temperature, is_lazy
        As in ``DeepNetworkPosterior``: N neurons a hidden layer, T, and whether the output is
        divided by sqrt(N) (lazy) or N.
    weight_variances
        sigma_1^2 ... sigma_L^2.
    readout_variance
        sigma_a^2, after scaling with P.
    """

    task: Task
    nonlinearity: Nonlinearity
    width: int
    temperature: float
    weight_variances: tuple[float, ...]
    readout_variance: float
    is_lazy: bool

    @property
    def n_hidden_layers(self) -> int:
        """L."""
        return len(self.weight_variances)

    @property
    def scaled_temperature(self) -> float:
        """N T (T if lazy): the size of a residual in units of the dual field."""
        return self.temperature if self.is_lazy else self.width * self.temperature

    @cached_property
    def input_kernel(self) -> Array:
        """K_0 = sigma_1^2 X X^T / N0, shape (P, P)."""
        return read_only(self.weight_variances[0] * self.task.gram())

    def kernel_between(self, inputs: Array, others: Array) -> Array:
        """sigma_1^2 x x'^T / N0 between two sets of inputs, shape (n, n')."""
        return np.asarray(self.weight_variances[0] * (inputs @ others.T) / self.task.n_inputs)

    def check_inputs(self, inputs: object) -> Array:
        """New inputs of this task's dimension, shape (n, N0)."""
        return check_array("inputs", inputs, ("n", self.task.n_inputs))

    def check_layer(self, layer: object, *, lowest: int = 0) -> int:
        """The number of a layer of this network."""
        return check_integer("layer", layer, minimum=lowest, maximum=self.n_hidden_layers)


def describe_model(model: Model) -> dict[str, Any]:
    """The network and its task in words and numbers, so that two can be told apart."""
    phi = model.nonlinearity
    values = fingerprint(np.asarray(phi(_PROBE)), np.asarray(phi.derivative(_PROBE)))
    return {
        "task": model.task.fingerprint,
        "nonlinearity": f"{plain_repr(phi)}, values {values[:16]}",
        "is_lazy": model.is_lazy,
        "width": model.width,
        "temperature": model.temperature,
        "weight_variances": list(model.weight_variances),
        "readout_variance": model.readout_variance,
    }


def plain_repr(value: object) -> str:
    """The repr without addresses in memory, which differ from process to process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def check_same_model(name: str, ours: Model, theirs: Model) -> None:
    """Refuse what is of another posterior, naming what differs."""
    wanted, found = describe_model(ours), describe_model(theirs)
    for key, value in wanted.items():
        if found[key] != value:
            raise ValueError(f"{name}: expected the same {key}, got {found[key]!r:.60} and {value!r:.60}")
