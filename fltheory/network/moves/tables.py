"""Densities on the line by tables: draws and density from the same numbers."""

import torch
from attrs import evolve, frozen
from torch import Tensor


@frozen(eq=False)
class LinearTables:
    """Densities that are linear between equidistant nodes, and 0 beyond them.

    Attributes
    ----------
    low, spacing
        The first node, and the distance between two.
    values
        At the nodes, of any sum, shape (..., G).
    cumulative
        The integral up to each node but the first, in units of half the spacing, (..., G - 1).
    """

    low: float
    spacing: float
    values: Tensor
    cumulative: Tensor

    @classmethod
    def of(
        cls,
        low: float,
        spacing: float,
        log_values: Tensor,
        values: Tensor | None = None,
        cumulative: Tensor | None = None,
    ) -> "LinearTables":
        """From the logarithms of the values, up to one constant a table.

        Memory for both attributes may be given; that of the values may be that of their logarithms.
        """
        values = torch.sub(log_values, log_values.amax(-1, keepdim=True), out=values).exp_()
        cumulative = torch.add(values[..., 1:], values[..., :-1], out=cumulative).cumsum_(-1)
        return cls(low, spacing, values, cumulative)

    def split(self, n: int) -> tuple["LinearTables", "LinearTables"]:
        """The first n along the first axis, and the others."""
        first = evolve(self, values=self.values[:n], cumulative=self.cumulative[:n])
        return first, evolve(self, values=self.values[n:], cumulative=self.cumulative[n:])

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One point of each table and the log density there: (...) both."""
        total = self.cumulative[..., -1:]
        uniform = torch.rand(total.shape, generator=generator, dtype=total.dtype, device=total.device)
        mass = uniform * total
        cell = torch.searchsorted(self.cumulative, mass).clamp_(max=self.cumulative.shape[-1] - 1)
        left, right = self._ends(cell)
        # Up to the share y of the cell there is the mass (left y + (right - left) y^2 / 2) * 2.
        inside = (left + right - (self.cumulative.gather(-1, cell) - mass)[..., 0]).clamp_(min=0.0)
        value = torch.addcmul(left * left, right - left, inside).clamp_(min=0.0).sqrt_()
        share = (inside / (left + value)).clamp_(0.0, 1.0)
        return self.low + self.spacing * (cell[..., 0] + share), self._log_density(value)

    def log_density(self, points: Tensor) -> Tensor:
        """At one point of each table: (...)."""
        place = (points - self.low) / self.spacing
        cell = place.floor().clamp_(0, self.cumulative.shape[-1] - 1)
        share = place - cell
        log_density = self._log_density(
            torch.lerp(*self._ends(cell.long()[..., None]), share.clamp(0.0, 1.0))
        )
        return torch.where((share >= 0.0) & (share <= 1.0), log_density, -torch.inf)

    def _ends(self, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Values at both ends of a cell (..., 1): (...) each."""
        return self.values.gather(-1, cell)[..., 0], self.values.gather(-1, cell + 1)[..., 0]

    def _log_density(self, value: Tensor) -> Tensor:
        """From the value at a point, (...) both."""
        return (value / (self.cumulative[..., -1] * (0.5 * self.spacing))).log()
