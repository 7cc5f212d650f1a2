"""What layers ask of matrices that see inputs by their class."""

import numpy as np
from attrs import frozen

from fltheory.meanfield.deep.blocks import ClassBlocks
from fltheory.numerics.validation import Array


@frozen(eq=False)
class ClassMatrix(ClassBlocks):
    """A kernel or a conjugate kernel: blocks over classes (C, C) and a diagonal (C,)."""

    def __add__(self, other: ClassBlocks) -> "ClassMatrix":
        return ClassMatrix(self.blocks + other.blocks, self.diagonal + other.diagonal)

    def __mul__(self, factor: float) -> "ClassMatrix":
        return ClassMatrix(factor * self.blocks, factor * self.diagonal)

    def on_means(self, counts: Array) -> Array:
        """The covariance of class means, if this is the covariance of inputs, (C, C)."""
        return np.asarray(self.blocks + np.diag(self.diagonal / counts))

    def on_sums(self, counts: Array) -> Array:
        """M with v^T A v = w^T M w for v that is w_c on class c, (C, C)."""
        return np.asarray(np.outer(counts, counts) * self.blocks + np.diag(counts * self.diagonal))
