"""Samples in the form that ArviZ reads."""

from typing import Any

import numpy as np
from attrs import fields_dict

from fltheory import __version__
from fltheory.network.draws import Draws, Statistics
from fltheory.task import Task

_NAMES = {"log_density": "lp", "acceptance": "acceptance_rate", "n_divergences": "diverging"}


def to_tree(draws: Draws, task: Task) -> Any:
    """An ``xarray.DataTree`` with the groups posterior, sample_stats and observed_data."""
    import arviz_base

    weights = {f"weights_{layer}": w for layer, w in enumerate(draws.weights, 1)}
    readouts = {} if draws.readouts is None else {"readouts": draws.readouts}
    statistics = {_NAMES.get(name, name): getattr(draws.statistics, name) for name in fields_dict(Statistics)}
    statistics["diverging"] = statistics["diverging"] > 0
    groups = {
        "posterior": {**draws.traces, **weights, **readouts},
        "sample_stats": {name: values for name, values in statistics.items() if values.size},
        "observed_data": {"inputs": task.inputs, "targets": task.targets},
    }
    copies = {
        group: {name: np.array(values) for name, values in entries.items()}
        for group, entries in groups.items()
    }
    attributes = {"inference_library": "fltheory", "inference_library_version": __version__}
    return arviz_base.from_dict(copies, attrs={"posterior": attributes})
