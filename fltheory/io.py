"""Reading what was saved: files that hold no code and of which nothing is run."""

import os
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from fltheory.numerics.validation import check_instance, describe
from fltheory.posterior import DeepNetworkPosterior

if TYPE_CHECKING:  # torch is imported only where samples are read
    from fltheory.network.samples import PosteriorSamples


def load(path: "str | PathLike[str]", posterior: DeepNetworkPosterior | None = None) -> "PosteriorSamples":
    """Samples as they were saved, equal to the last bit; ``resume`` goes on with them.

    Parameters
    ----------
    path
        A file written by ``PosteriorSamples.save``.
    posterior
        The posterior that was sampled. Needed only if its nonlinearity is a class of your own, which a
        file cannot bring along; a sampler of your own is taken from it too, or there is no ``resume``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or ``posterior`` is another one, naming what differs.
    CheckpointError
        If the file cannot be read, is damaged, or no file of samples.
    """
    from fltheory.network.saving import SavedFile

    check_instance("posterior", posterior, DeepNetworkPosterior, optional=True)
    if not isinstance(path, str | PathLike):
        raise TypeError(f"path: expected the path of a file, got {describe(path)}")
    file = SavedFile.read(Path(os.fsdecode(path)))
    if posterior is None:
        return file.samples(None, None)
    return file.samples(posterior.model, posterior.sampler)
