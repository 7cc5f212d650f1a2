"""One layer of a chain: a bulk of neurons, and beside it those that have condensed."""

from functools import cached_property

import numpy as np
from attrs import frozen

from fltheory.meanfield.rectified.classes import ClassMatrix
from fltheory.meanfield.rectified.condensation import ClassRays, largest_gain
from fltheory.meanfield.rectified.lattice import LayerProblem
from fltheory.numerics.validation import Array


@frozen(eq=False)
class ChainLayer:
    """A layer at given order parameters.

    Attributes
    ----------
    bulk
        All neurons but the condensed ones.
    amplitudes
        zbar^T K_{l-1}^{-1} zbar of condensed neurons, (C,): 0 for a class without any.
    """

    bulk: LayerProblem
    amplitudes: Array

    @property
    def has_condensed(self) -> bool:
        """Whether there are condensed neurons."""
        return bool(self.amplitudes.any())

    @cached_property
    def rays(self) -> ClassRays:
        """The directions in which neurons condense."""
        bulk = self.bulk
        return ClassRays.of(bulk.conjugate, bulk.below, bulk.counts, bulk.slopes)

    @property
    def excess(self) -> Array:
        """lambda - 1 of each class, (C,); 0 above the first layer while none has condensed there.

        It costs a search there.
        """
        is_wanted = self.bulk.is_first or self.has_condensed
        return self.rays.strengths - 1.0 if is_wanted else np.zeros(len(self.amplitudes))

    @property
    def gain(self) -> float:
        """lambda of the layer, at most 1: (R5) and (R6)."""
        bulk = self.bulk
        return largest_gain(bulk.conjugate, bulk.below, bulk.counts, bulk.slopes)

    @cached_property
    def kernel(self) -> ClassMatrix:
        """<phi phi^T>."""
        kernel = self.bulk.kernel
        return kernel + self.rays.kernel(self.amplitudes) if self.has_condensed else kernel

    @cached_property
    def message(self) -> ClassMatrix:
        """2 dJ / dK_{l-1}: right side of (7), but for sigma_l^2."""
        message = self.bulk.message
        return message + self.rays.message(self.amplitudes) if self.has_condensed else message
