"""One formula for numpy and torch: the module that knows how to compute with ``z``."""

from numbers import Real
from typing import Any

import array_api_compat
import numpy as np
import scipy.special

from fltheory.numerics.validation import describe


def is_torch(z: object) -> bool:
    """Whether ``z`` is a torch tensor (never imports torch)."""
    return bool(array_api_compat.is_torch_array(z))


def namespace(z: Any) -> Any:
    """The array functions for ``z``: tanh, exp, where, maximum, ... of numpy or torch.

    Parameters
    ----------
    z
        A real numpy array, torch tensor or number.

    Raises
    ------
    TypeError
        If ``z`` is none of these.
    """
    if is_torch(z) and not z.is_complex() and str(z.dtype) != "torch.bool":
        return array_api_compat.array_namespace(z)
    is_number = isinstance(z, Real) and not isinstance(z, bool)
    if is_number or (isinstance(z, np.ndarray | np.generic) and z.dtype.kind in "iuf"):
        return array_api_compat.array_namespace(np.empty(0))
    raise TypeError(f"z: expected a real numpy array, torch tensor or number, got {describe(z)}")


def special(z: Any) -> Any:
    """The special functions for ``z``: expit, erf, log_ndtr, ... of scipy or torch.

    Raises
    ------
    TypeError
        If ``z`` is no real numpy array, torch tensor or number.
    """
    namespace(z)
    if is_torch(z):
        import torch

        return torch.special
    return scipy.special
