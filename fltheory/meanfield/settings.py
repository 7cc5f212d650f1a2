"""How the theory is solved."""

from collections.abc import Callable

from attrs import frozen

from fltheory.meanfield.fractions import ImposedFractions
from fltheory.meanfield.solution import MeanFieldSolution


@frozen
class Settings:
    """How a solver works: the arguments of ``DeepNetworkPosterior.solve``, checked.

    ``report`` is called with the residual after each step; ``code_fractions`` are imposed if given.
    """

    method: str
    start: MeanFieldSolution | None
    tolerance: float
    max_iterations: int
    seed: int
    finite_width: bool
    report: Callable[[float], None]
    code_fractions: ImposedFractions | None = None
