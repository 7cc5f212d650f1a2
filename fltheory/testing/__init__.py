"""The laws that the package holds itself to, for those who extend it.

``check_nonlinearity`` holds a nonlinearity of one's own, ``check_sampler`` a sampler, and
``check_solution`` a solution of the theory, to every law at once and says in words which one fails,
where and by how much. ``rank_test`` and ``simulation_based_calibration`` are exact tests of a sampler on
a ``SamplingProblem``, such as the networks of a ``NetworkProblem``.
``strategies`` draws small tasks, kernels and posteriors for Hypothesis; it alone imports it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fltheory.testing import strategies as strategies
    from fltheory.testing.laws import (
        Law as Law,
        LawViolation as LawViolation,
        LawWarning as LawWarning,
    )
    from fltheory.testing.network_problem import NetworkProblem as NetworkProblem
    from fltheory.testing.nonlinearity_laws import (
        NONLINEARITY_LAWS as NONLINEARITY_LAWS,
        check_nonlinearity as check_nonlinearity,
    )
    from fltheory.testing.ranks import (
        Ranks as Ranks,
        Replicates as Replicates,
        SamplingProblem as SamplingProblem,
        rank_test as rank_test,
        simulation_based_calibration as simulation_based_calibration,
    )
    from fltheory.testing.sampler_laws import (
        SAMPLER_LAWS as SAMPLER_LAWS,
        check_sampler as check_sampler,
    )
    from fltheory.testing.solution_laws import (
        SOLUTION_LAWS as SOLUTION_LAWS,
        check_solution as check_solution,
    )

_CONTENTS = {
    "laws": ("Law", "LawViolation", "LawWarning"),
    "network_problem": ("NetworkProblem",),
    "nonlinearity_laws": ("NONLINEARITY_LAWS", "check_nonlinearity"),
    "ranks": ("Ranks", "Replicates", "SamplingProblem", "rank_test", "simulation_based_calibration"),
    "sampler_laws": ("SAMPLER_LAWS", "check_sampler"),
    "solution_laws": ("SOLUTION_LAWS", "check_solution"),
}
_HOME = {name: module for module, names in _CONTENTS.items() for name in names}

__all__ = [*_HOME, "strategies"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "strategies":
            return import_module(f"{__name__}.strategies")
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
