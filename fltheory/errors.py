"""What can go wrong, by name. Bad arguments raise plain ``ValueError`` or ``TypeError``."""

from typing import Any


class FltheoryError(Exception):
    """Base class of the errors that are the package's own."""


class ConvergenceError(FltheoryError, RuntimeError):
    """A solver stopped before its tolerance.

    Attributes
    ----------
    last
        The last iterate: a ``MeanFieldSolution`` whose ``residual`` says how far it is from
        one, or None if not even a first iterate exists.
    """

    def __init__(self, message: str, last: Any = None) -> None:
        super().__init__(message)
        self.last = last


class CheckpointError(FltheoryError, RuntimeError):
    """A checkpoint or a saved file is damaged, or of another configuration."""


class InterruptedWarning(UserWarning):
    """Sampling was interrupted; the draws finished by then are returned."""
