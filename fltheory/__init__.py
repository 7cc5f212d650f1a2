"""The theory of learned representations in Bayesian neural networks, and the networks themselves.

A task, a nonlinearity and a prior make a ``DeepNetworkPosterior``. It answers twice: ``solve()`` for
networks of infinite width, ``sample()`` for networks of finite width. Both answers are
``Representation``s, so that they are compared and plotted by the same functions.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fltheory import testing as testing
    from fltheory.coding import (
        Alignment as Alignment,
        CodeFractions as CodeFractions,
        Codes as Codes,
        CodingScheme as CodingScheme,
        Drift as Drift,
        KernelAlignment as KernelAlignment,
        align as align,
        code_fractions as code_fractions,
        coding_scheme as coding_scheme,
        find_codes as find_codes,
        kernel_alignment as kernel_alignment,
        overlap as overlap,
        overlap_limit as overlap_limit,
    )
    from fltheory.errors import (
        CheckpointError as CheckpointError,
        ConvergenceError as ConvergenceError,
        FltheoryError as FltheoryError,
        InterruptedWarning as InterruptedWarning,
    )
    from fltheory.figures import compute_figure as compute_figure, write_figures as write_figures
    from fltheory.io import load as load
    from fltheory.meanfield.solution import (
        Branch as Branch,
        Decomposition as Decomposition,
        MeanFieldSolution as MeanFieldSolution,
        Outlier as Outlier,
    )
    from fltheory.network.samples import PosteriorSamples as PosteriorSamples
    from fltheory.nonlinearity import (
        GELU as GELU,
        Erf as Erf,
        LeakyReLU as LeakyReLU,
        Linear as Linear,
        Nonlinearity as Nonlinearity,
        ReLU as ReLU,
        Sigmoid as Sigmoid,
        Softplus as Softplus,
        Tanh as Tanh,
    )
    from fltheory.numerics.namespace import namespace as namespace, special as special
    from fltheory.plotting import (
        plot_activations as plot_activations,
        plot_coding_schemes as plot_coding_schemes,
        plot_comparison as plot_comparison,
        plot_convergence as plot_convergence,
        plot_drift as plot_drift,
        plot_kernels as plot_kernels,
        plot_overlap as plot_overlap,
        plot_overview as plot_overview,
        plot_ranks as plot_ranks,
        plot_readouts as plot_readouts,
        plot_traces as plot_traces,
    )
    from fltheory.posterior import DeepNetworkPosterior as DeepNetworkPosterior
    from fltheory.prior import GaussianPrior as GaussianPrior, Prior as Prior
    from fltheory.representation import (
        Neurons as Neurons,
        Prediction as Prediction,
        Representation as Representation,
    )
    from fltheory.sampler.alternate import Alternate as Alternate
    from fltheory.sampler.base import Sampler as Sampler, Target as Target
    from fltheory.sampler.blocks import (
        BlockIndependence as BlockIndependence,
        Blocks as Blocks,
        BlockSweep as BlockSweep,
    )
    from fltheory.sampler.elliptical import (
        EllipticalSlice as EllipticalSlice,
        PreconditionedCrankNicolson as PreconditionedCrankNicolson,
    )
    from fltheory.sampler.hmc import HMC as HMC, MALA as MALA
    from fltheory.sampler.langevin import Langevin as Langevin
    from fltheory.sampler.nuts import NUTS as NUTS
    from fltheory.sampler.tempering import Tempering as Tempering
    from fltheory.study import Comparison as Comparison, compare as compare
    from fltheory.task import (
        ArrayTask as ArrayTask,
        Digits as Digits,
        OrthogonalClassification as OrthogonalClassification,
        Task as Task,
    )

__version__ = "0.1.0"

# The table of contents: where each public name lives. A module is imported when one of its names is
# first used, so that torch and matplotlib load only where networks are sampled and figures drawn.
_CONTENTS = {
    "task": ("Task", "ArrayTask", "OrthogonalClassification", "Digits"),
    "nonlinearity": (
        "Nonlinearity",
        "Linear",
        "Sigmoid",
        "Erf",
        "Tanh",
        "ReLU",
        "LeakyReLU",
        "Softplus",
        "GELU",
    ),
    "numerics.namespace": ("namespace", "special"),
    "prior": ("Prior", "GaussianPrior"),
    "posterior": ("DeepNetworkPosterior",),
    "representation": ("Representation", "Prediction", "Neurons"),
    "meanfield.solution": ("MeanFieldSolution", "Branch", "Outlier", "Decomposition"),
    "network.samples": ("PosteriorSamples",),
    "sampler.base": ("Target", "Sampler"),
    "sampler.hmc": ("HMC", "MALA"),
    "sampler.nuts": ("NUTS",),
    "sampler.langevin": ("Langevin",),
    "sampler.elliptical": ("EllipticalSlice", "PreconditionedCrankNicolson"),
    "sampler.blocks": ("BlockIndependence", "Blocks", "BlockSweep"),
    "sampler.alternate": ("Alternate",),
    "sampler.tempering": ("Tempering",),
    "study": ("compare", "Comparison"),
    "coding": (
        "find_codes",
        "Codes",
        "code_fractions",
        "CodeFractions",
        "coding_scheme",
        "CodingScheme",
        "overlap",
        "Drift",
        "overlap_limit",
        "align",
        "Alignment",
        "kernel_alignment",
        "KernelAlignment",
    ),
    "plotting": (
        "plot_kernels",
        "plot_activations",
        "plot_readouts",
        "plot_comparison",
        "plot_convergence",
        "plot_overlap",
        "plot_traces",
        "plot_ranks",
        "plot_coding_schemes",
        "plot_overview",
        "plot_drift",
    ),
    "figures": ("compute_figure", "write_figures"),
    "io": ("load",),
    "errors": ("FltheoryError", "ConvergenceError", "CheckpointError", "InterruptedWarning"),
}
_HOME = {name: module for module, names in _CONTENTS.items() for name in names}

_ROOMS = ("testing",)  # modules that are used by their own name, as in flt.testing.check_nonlinearity

__all__ = list(_HOME)

if not TYPE_CHECKING:  # a type checker reads the imports above, and so reports misspelt names

    def __getattr__(name: str) -> object:
        if name in _ROOMS:
            return import_module(f"{__name__}.{name}")
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_ROOMS})
