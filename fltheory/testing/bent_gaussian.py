"""A textbook density that knows all that a sampler may ask of a target, and can be drawn from."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from fltheory.sampler.base import Softened, Target
from fltheory.sampler.blocks import Blocks, BlockSweep, Memory
from fltheory.testing.ranks import Replicates, SamplingProblem

if TYPE_CHECKING:
    from torch import Generator, Tensor

_SCALES = (1.0, 0.7, 0.25, 0.8)  # standard deviations before bending
_FACTOR = 1.2  # standard deviation of a Gaussian factor
_WIDE = 1.3  # of proposals of a block


@frozen(eq=False)
class BentTarget(Target):
    """Four Gaussian coordinates, bent and sheared: x1 += x0^2 / 2, x3 += 0.6 x1, x2 += 0.3 x3^2.

    That leaves volumes as they are. Coordinates 0, 1 and 2, 3 are blocks.
    """

    dimension = 4
    gaussian_factor = _FACTOR

    @staticmethod
    def bent(white: "Tensor") -> "Tensor":
        """Positions of white coordinates, both (C, 4)."""
        import torch

        z0, z1, z2, z3 = (white * white.new_tensor(_SCALES)).unbind(1)
        x1 = z1 + 0.5 * z0**2
        x3 = z3 + 0.6 * x1
        return torch.stack([z0, x1, z2 + 0.3 * x3**2, x3], 1)

    @staticmethod
    def straightened(x: "Tensor") -> "Tensor":
        """White coordinates at positions, both (C, 4)."""
        import torch

        x0, x1, x2, x3 = x.unbind(1)
        z = torch.stack([x0, x1 - 0.5 * x0**2, x2 - 0.3 * x3**2, x3 - 0.6 * x1], 1)
        return z / z.new_tensor(_SCALES)

    def log_density(self, x: "Tensor") -> "Tensor":
        return -0.5 * (self.straightened(x) ** 2).sum(1)

    def value_and_gradient(self, x: "Tensor") -> tuple["Tensor", "Tensor"]:
        import torch

        white = self.straightened(x)
        g0, g1, g2, g3 = (-white / white.new_tensor(_SCALES)).unbind(1)
        slopes = [g0 - x[:, 0] * g1, g1 - 0.6 * g3, g2, g3 - 0.6 * x[:, 3] * g2]
        return -0.5 * (white**2).sum(1), torch.stack(slopes, 1)

    @property
    def blocks(self) -> "BentBlocks":
        return BentBlocks(self)

    def softened(self, level: "Tensor") -> "SoftBentTarget":
        return SoftBentTarget(self, level)


@frozen(eq=False)
class SoftBentTarget(Softened):
    """The same, softened, with the same blocks."""

    @property
    def blocks(self) -> "BentBlocks":
        return BentBlocks(self)


@frozen(eq=False)
class BentBlocks(Blocks):
    """Coordinates 0, 1 and 2, 3: proposed from a wide Gaussian."""

    target: Target
    n_blocks = 2

    def sweep(
        self,
        x: "Tensor",
        order: Sequence[int],
        n_candidates: int,
        memory: Memory,
        generator: "Generator",
    ) -> BlockSweep:
        return BentSweep(self.target, x, order, n_candidates, generator)


class BentSweep(BlockSweep):
    """A pass over them."""

    def __init__(
        self,
        target: Target,
        x: "Tensor",
        order: Sequence[int],
        n_candidates: int,
        generator: "Generator",
    ) -> None:
        self._target, self._order, self._n, self._generator = target, order, n_candidates, generator
        self._choices = [x]

    def log_weights(self, step: int) -> "Tensor":
        import torch

        x, first = self.position(), 2 * self._order[step]
        self._choices = [self._proposed(x, first) for _ in range(self._n)] + [x]
        weights = [self._target.log_density(y) - _log_q(y[:, first : first + 2]) for y in self._choices]
        return torch.stack(weights, 1)

    def replace(self, step: int, choice: "Tensor") -> None:
        import torch

        self._choices = [torch.stack(self._choices, 1)[torch.arange(len(choice)), choice]]

    def position(self) -> "Tensor":
        return self._choices[-1]

    def _proposed(self, x: "Tensor", first: int) -> "Tensor":
        import torch

        y = x.clone()
        noise = torch.randn((len(x), 2), generator=self._generator, dtype=x.dtype)
        y[:, first : first + 2] = _WIDE * noise
        return y


def _log_q(block: "Tensor") -> "Tensor":
    """The log density (C,) of proposals for a block, shape (C, 2), up to a constant."""
    return -0.5 * (block**2).sum(1) / _WIDE**2


@frozen
class BentGaussian(SamplingProblem):
    """That density, drawn from directly: there are no data."""

    def draw(self, n_chains: int, generator: "Generator") -> Replicates:
        import torch

        target = BentTarget()
        noise = torch.randn((n_chains, target.dimension), generator=generator, dtype=torch.float64)
        x = target.bent(noise)
        return Replicates(target, x, self.statistics(target, x, generator))

    def statistics(self, target: Target, x: "Tensor", generator: "Generator") -> Mapping[str, "Tensor"]:
        z = BentTarget.straightened(x)  # light tails, unlike x
        white = {f"white coordinate {i}": z[:, i] for i in range(target.dimension)}
        return {"log density": target.log_density(x), "product": z[:, 0] * z[:, 2], **white}
