"""What decides the outcome of a run, in words and numbers, so that two runs can be told apart."""

import re
from typing import Any

import numpy as np
import torch

from fltheory.model import Model
from fltheory.numerics.validation import fingerprint

_PROBE = np.linspace(-4.0, 4.0, 17)  # where two nonlinearities of one name are told apart


def describe_model(model: Model) -> dict[str, Any]:
    """The network and its task."""
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


def versions() -> dict[str, str]:
    """Of the libraries that decide the numbers drawn."""
    return {"torch": str(torch.__version__)}


def plain_repr(value: object) -> str:
    """The repr without addresses in memory, which differ from process to process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def check_same_model(name: str, ours: Model, theirs: Model) -> None:
    """Refuse what is of another posterior, naming what differs."""
    wanted, found = describe_model(ours), describe_model(theirs)
    for key, value in wanted.items():
        if found[key] != value:
            raise ValueError(f"{name}: expected the same {key}, got {found[key]!r:.60} and {value!r:.60}")
