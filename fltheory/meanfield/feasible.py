"""Whether a network can fit its targets exactly, as T = 0 asks, docs/theory.md section 2.4."""

import numpy as np

from fltheory.numerics.validation import Array

_RANK_CUT = 1e-10  # relative eigenvalue of a kernel that counts as zero
_IN_RANGE = 1e-6  # relative part of Y outside the range that is put down to rounding
_EQUAL = 1e-10  # relative


def check_range(kernel: Array, targets: Array, input_kernel: Array) -> None:
    """Refuse T = 0 with targets that no network fits, naming inputs that conflict.

    Parameters
    ----------
    kernel
        Of the last layer at the prior, (P, P): its range is what networks can fit.
    targets
        Y, (P, m).
    input_kernel
        K_0, (P, P).

    Raises
    ------
    ValueError
        If a part of Y is outside the range.
    """
    values, vectors = np.linalg.eigh(kernel)
    null = vectors[:, values <= _RANK_CUT * values[-1]]
    if np.abs(null.T @ targets).max(initial=0.0) <= _IN_RANGE * np.abs(targets).max():
        return
    conflict = _conflicting_inputs(input_kernel, targets)
    rank = len(values) - null.shape[1]
    which = f"the kernel of the last layer before learning has rank {rank} of {len(values)}"
    if conflict:
        which = f"inputs {conflict[0]} and {conflict[1]} are equal but their targets differ"
    raise ValueError(
        f"temperature: expected above 0 for targets that cannot be fitted exactly ({which}); got 0"
    )


def _conflicting_inputs(kernel: Array, targets: Array) -> tuple[int, int] | None:
    norms = np.diagonal(kernel)
    distance = norms[:, None] + norms - 2 * kernel
    equal = distance <= _EQUAL * norms.max()
    differ = np.abs(targets[:, None] - targets).max(-1) > _EQUAL * np.abs(targets).max()
    pairs = np.argwhere(np.triu(equal & differ, 1))
    return (int(pairs[0, 0]), int(pairs[0, 1])) if len(pairs) else None
