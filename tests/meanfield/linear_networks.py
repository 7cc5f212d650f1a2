"""Linear networks solved at finite or infinite width, for the tests."""

import fltheory as flt
from fltheory.meanfield.linear import LinearPosterior, solve_linear


def linear(
    task: flt.Task,
    *,
    depth: int = 1,
    width: int = 30,
    noise: float = 0.0,
    variances: float | tuple[float, ...] = 1.0,
) -> flt.DeepNetworkPosterior:
    prior = flt.GaussianPrior(weight_variance=variances, scaling="none")
    return flt.DeepNetworkPosterior(
        task, flt.Linear(), prior=prior, n_hidden_layers=depth, width=width, temperature=noise / width
    )


def solved(p: flt.DeepNetworkPosterior, finite_width: bool = True) -> LinearPosterior:
    solution, _ = solve_linear(
        p.model, tolerance=1e-8, max_iterations=60, report=lambda _: None, finite_width=finite_width
    )
    return solution
