"""Samples among the answers: torch is loaded only where there are some."""

from typing import TYPE_CHECKING

from fltheory.meanfield.solution import MeanFieldSolution
from fltheory.numerics.validation import check_instance
from fltheory.representation import Representation

if TYPE_CHECKING:
    from fltheory.network.samples import PosteriorSamples


def as_samples(representation: Representation) -> "PosteriorSamples | None":
    """The representation itself if it is samples, else None."""
    if isinstance(representation, MeanFieldSolution):
        return None
    from fltheory.network.samples import PosteriorSamples

    return representation if isinstance(representation, PosteriorSamples) else None


def check_samples(name: str, value: object) -> "PosteriorSamples":
    """Samples, or a ``TypeError``."""
    from fltheory.network.samples import PosteriorSamples

    samples: PosteriorSamples = check_instance(name, value, PosteriorSamples)
    return samples
