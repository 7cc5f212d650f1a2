"""``Moves``: what a network knows of moves for its neurons, before its target is made."""

from abc import ABC, abstractmethod

import numpy as np
from attrs import asdict, frozen

from fltheory.network.target import IntegratedTarget
from fltheory.numerics.validation import fingerprint
from fltheory.sampler.base import Sampler
from fltheory.sampler.blocks import Blocks


@frozen
class Moves(ABC):
    """Moves for the neurons of a network with one hidden layer, the readout integrated out.

    A subclass must implement ``of``.
    """

    @property
    def fingerprint(self) -> str:
        """A hash of all that it knows."""
        values = asdict(self, recurse=False)
        return fingerprint(*(np.asarray(value) for value in values.values()))

    @abstractmethod
    def of(self, target: IntegratedTarget) -> Blocks:
        """The moves as blocks of this target, at its temperature."""


@frozen(eq=False)
class Advice:
    """How to sample a posterior.

    Attributes
    ----------
    sampler
        The Markov kernel.
    moves
        Proposals for single neurons, if it asks for ``blocks``.
    softest
        The temperature up to which tempering goes; None: until the data hardly matter.
    """

    sampler: Sampler
    moves: Moves | None = None
    softest: float | None = None
