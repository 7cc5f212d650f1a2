"""Reading what was saved: files that hold no code and of which nothing is run."""

import os
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from fltheory.errors import CheckpointError
from fltheory.meanfield import saving as theory
from fltheory.numerics.validation import check_instance, describe
from fltheory.posterior import DeepNetworkPosterior
from fltheory.storage.archive import NOT_AS_WRITTEN, Archive

if TYPE_CHECKING:  # torch is imported only where samples are read
    from fltheory.meanfield.solution import MeanFieldSolution
    from fltheory.network.samples import PosteriorSamples


def load(
    path: "str | PathLike[str]", posterior: DeepNetworkPosterior | None = None
) -> "PosteriorSamples | MeanFieldSolution":
    """Samples or a solution as they were saved, equal to the last bit; ``resume`` goes on with samples.

    Parameters
    ----------
    path
        A file written by ``PosteriorSamples.save`` or ``MeanFieldSolution.save``.
    posterior
        The posterior that was sampled or solved. Needed only if its nonlinearity is a class of your own,
        which a file cannot bring along; a sampler of your own is taken from it too, or ``resume`` is refused.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or ``posterior`` is another one, naming what differs.
    CheckpointError
        If the file cannot be read, is damaged, or not of this package.
    """
    check_instance("posterior", posterior, DeepNetworkPosterior, optional=True)
    if not isinstance(path, str | PathLike):
        raise TypeError(f"path: expected the path of a file, got {describe(path)}")
    file = Path(os.fsdecode(path))
    archive = Archive.read(file)
    model, sampler = (None, None) if posterior is None else (posterior.model, posterior.sampler)
    try:
        if archive.kind == theory.KIND:
            return theory.solution_of(archive, model)
        from fltheory.network import saving as networks

        if archive.kind == networks.KIND:
            return networks.samples_of(archive, model, sampler)
    except NOT_AS_WRITTEN as error:
        raise CheckpointError(f"{file}: not a file of this version ({error})") from error
    raise CheckpointError(f"{file}: expected samples or a solution, got {archive.kind!r:.60}")
