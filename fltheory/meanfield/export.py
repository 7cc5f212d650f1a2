"""A solution as named arrays."""

from typing import Any

import numpy as np

from fltheory import __version__
from fltheory.meanfield.solution import MeanFieldSolution

_SCALARS = ("free_energy", "residual", "certificate", "n_iterations", "method")


def to_tree(solution: MeanFieldSolution) -> Any:
    """An ``xarray.DataTree`` with the groups solution and observed_data."""
    import xarray

    model, branches, outliers = solution.model, solution.branches, solution.outliers
    p, m = model.task.n_samples, model.task.n_outputs
    layers = list(range(1, model.n_hidden_layers + 1))
    values = {
        "dual_field": (("input", "output"), solution.dual_field),
        "mean_output": (("input", "output"), solution.predict().mean),
        "kernel": (("layer", "input", "other_input"), np.stack([solution.kernel(n) for n in layers])),
        "conjugate_kernel": (
            ("layer", "input", "other_input"),
            np.stack([solution.conjugate_kernel(n) for n in layers]),
        ),
        "readout_covariance": (("output", "other_output"), solution.readout_covariance),
        "branch_probability": (("branch",), [branch.probability for branch in branches]),
        "branch_readout": (("branch", "output"), [branch.readout for branch in branches]),
        "branch_activations": (("branch", "input"), [branch.activations for branch in branches]),
        "outlier_readout": (("outlier", "output"), np.array([o.readout for o in outliers]).reshape(-1, m)),
        "outlier_preactivations": (
            ("outlier", "input"),
            np.array([o.preactivations for o in outliers]).reshape(-1, p),
        ),
    }
    scalars = {name: getattr(solution, name) for name in _SCALARS}
    attributes = {name: value for name, value in scalars.items() if value is not None}
    attributes |= {"library": "fltheory", "library_version": __version__}
    data = {
        "inputs": (("input", "feature"), model.task.inputs),
        "targets": (("input", "output"), model.task.targets),
    }
    return xarray.DataTree.from_dict(
        {
            "solution": xarray.Dataset(values, {"layer": layers}, attributes),
            "observed_data": xarray.Dataset(data),
        }
    )
