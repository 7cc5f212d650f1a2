"""What samplers learn in warm-up."""

import math
from collections.abc import Mapping
from typing import Self

import torch
from attrs import frozen
from torch import Tensor


@frozen(eq=False)
class StepSize:
    """One step size a chain and its dual averaging (Hoffman & Gelman 2014, section 3.2).

    Attributes
    ----------
    current
        The step size in use, shape (C,).
    log_average, log_anchor, shortfall
        Weighted mean of the logarithm so far, the value shrunk towards, and the mean of goal minus
        acceptance, each (C,).
    """

    current: Tensor
    log_average: Tensor
    log_anchor: Tensor
    shortfall: Tensor

    @classmethod
    def constant(cls, current: Tensor) -> Self:
        """A start at these step sizes, shape (C,)."""
        log = current.log()
        return cls(current, log, log, torch.zeros_like(log))

    def updated(self, acceptance: Tensor, iteration: int, goal: float) -> "StepSize":
        """After one iteration (counted from 1, where averaging starts afresh) with ``acceptance`` (C,)."""
        gamma, t0, kappa = 0.05, 10.0, 0.75
        past = StepSize.constant(self.current) if iteration == 1 else self
        shortfall = past.shortfall + (goal - acceptance - past.shortfall) / (iteration + t0)
        log_current = past.log_anchor - math.sqrt(iteration) / gamma * shortfall
        log_average = past.log_average + iteration**-kappa * (log_current - past.log_average)
        return StepSize(log_current.exp(), log_average, past.log_anchor, shortfall)

    def settled(self) -> "StepSize":
        """The average, to be kept from here on."""
        return StepSize.constant(self.log_average.exp())

    @classmethod
    def recalled(cls, memory: Mapping[str, Tensor]) -> Self:
        """From the memory of a state."""
        return cls(*(memory[f"step_size_{name}"] for name in _STEP_SIZE_FIELDS))

    @property
    def memory(self) -> dict[str, Tensor]:
        """For the memory of a state."""
        return {f"step_size_{name}": getattr(self, name) for name in _STEP_SIZE_FIELDS}


_STEP_SIZE_FIELDS = ("current", "log_average", "log_anchor", "shortfall")
