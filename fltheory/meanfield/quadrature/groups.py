"""Inputs that the theory cannot tell apart.

They share their target and their variance, hence t: there is one row of t a group of inputs.
"""

from typing import Self

import numpy as np
from attrs import frozen

from fltheory.meanfield.branches import distinct_rows
from fltheory.numerics.validation import Array


@frozen(eq=False)
class GroupedTargets:
    """Inputs that the theory cannot tell apart, taken together.

    Attributes
    ----------
    targets, variances, counts
        Row of Y (G, m), entry of diag K_0 (G,) and number of inputs (G,) of each group.
    member
        The group of each input, (P,).
    """

    targets: Array
    variances: Array
    counts: Array
    member: np.ndarray

    @classmethod
    def of(cls, targets: Array, variances: Array) -> Self:
        """Group the inputs of Y (P, m) and diag K_0 (P,)."""
        rows, member = distinct_rows(np.column_stack([targets, variances]))
        counts = np.bincount(member).astype(float)
        return cls(rows[:, :-1], rows[:, -1], counts, member)
