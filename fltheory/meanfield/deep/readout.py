"""The readout layer of a deep network: S(t) at fixed K_{L-1}, convex on frozen points, among symmetric t."""

import math

import numpy as np
from attrs import evolve, frozen

from fltheory.meanfield.deep.blocks import ClassBlocks, ClassSymmetry
from fltheory.meanfield.deep.layer import Layer, LayerPoints, LayerState
from fltheory.meanfield.deep.sites import ClassSites
from fltheory.meanfield.fractions import ImposedFractions
from fltheory.meanfield.quadrature.dual import GroupedDual, GroupedEvaluation
from fltheory.meanfield.quadrature.groups import GroupedTargets
from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.newton import minimise
from fltheory.numerics.validation import Array

_MAX_STEP = 1.0  # of t, in one Newton step
_MOST_STEPS = 30
_RARE = 1e-6  # the least share that is imposed on the way
_LOG_2PI = math.log(2 * math.pi)


@frozen(eq=False)
class Readout:
    """The last layer of a task.

    Attributes
    ----------
    noise
        N T.
    fractions
        Shares of codes that are imposed, if any, by activations of the classes.
    """

    groups: GroupedTargets
    symmetry: ClassSymmetry
    readout_variance: float
    nonlinearity: Nonlinearity
    noise: float
    fractions: ImposedFractions | None = None

    def layer(self, field: Array, below: ClassBlocks) -> Layer:
        """The law of its neurons at t (G, m) and K_{L-1}; latents are a / sigma_a and v."""
        return Layer(
            math.sqrt(self.readout_variance) * field,
            below.root,
            below.diagonal,
            np.zeros(len(field)),
            self.groups.counts,
            self.nonlinearity,
        )

    @property
    def images(self) -> Array:
        """The symmetries on latents."""
        return self.symmetry.images(self.symmetry.rotations, len(self.groups.counts))

    def solve(
        self,
        start: Array,
        below: ClassBlocks,
        points: LayerPoints,
        tolerance: float,
        radius: float = math.inf,
    ) -> "ReadoutSolution":
        """The t that minimises S on these points."""
        sites, root_counts = self.layer(start, below).sites(points.latents), np.sqrt(self.groups.counts)
        dual = self.dual(sites, points)
        problem = SymmetricDual(dual, self.symmetry.field_basis, root_counts)
        allowed = tolerance * float(root_counts.min()) / math.sqrt(len(problem.basis))
        last = dict[bytes, SymmetricEvaluation]()  # of which the answer is one

        def evaluate(x: Array) -> SymmetricEvaluation:
            key = x.tobytes()
            if key not in last:
                last[key] = problem(x)
            return last[key]

        found = minimise(
            evaluate,
            problem.coordinates(start),
            tolerance=allowed,
            max_iterations=_MOST_STEPS,
            max_step=_MAX_STEP * float(root_counts.min()),
            radius=radius * float(root_counts.min()),
        )
        field, grouped = problem.field(found.x), last[found.x.tobytes()].grouped
        state = evolve(
            self.layer(field, below).at(points, sites),
            log_partition=grouped.log_partition,
            branch_weights=grouped.branch_weights,
        )
        residual = float(np.abs(self.symmetry.of_field(grouped.gradient)).max())
        return ReadoutSolution(field, grouped, state, residual)

    def dual(self, sites: ClassSites, points: LayerPoints) -> GroupedDual:
        """S(t): given the latent v, the problem is the one of a single hidden layer."""
        m = self.groups.targets.shape[1]
        scale, v = math.sqrt(self.readout_variance), points.latents[:, m:]
        given = points.log_density + 0.5 * (v**2).sum(1) + 0.5 * _LOG_2PI * v.shape[1] - m * math.log(scale)
        proposal = evolve(points.proposal, points=scale * points.latents[:, :m], log_density=given)
        return GroupedDual(self.groups, sites, self.noise, self.readout_variance, proposal)


@frozen(eq=False)
class ReadoutSolution:
    """The readout layer at the minimum of S.

    Attributes
    ----------
    field
        t, (G, m).
    grouped
        S with its derivatives there.
    state
        The law of its neurons.
    residual
        Largest entry of Y - N T t - <phi a^T>.
    """

    field: Array
    grouped: GroupedEvaluation
    state: LayerState
    residual: float

    def shares_of(self, fractions: ImposedFractions) -> Array:
        """How common the neurons of each of these codes are among them, (k,)."""
        state = self.state.unfolded()
        probabilities = state.branch_weights.sum(0)
        member = fractions.members(state.layer.activations(state.points.proposal.modes))
        found = np.array([probabilities[member == c].sum() for c in range(len(fractions.shares))])
        found = np.maximum(found, _RARE)
        return np.asarray(found / found.sum())


@frozen(eq=False)
class SymmetricDual:
    """S as a function of the coordinates of sqrt(n) t in an orthonormal basis; called, an ``Evaluation``."""

    dual: GroupedDual
    basis: Array
    root_counts: Array

    def coordinates(self, field: Array) -> Array:
        """Of the symmetric part of t (G, m), (k,)."""
        return np.asarray(self.basis @ (self.root_counts[:, None] * field).ravel())

    def field(self, coordinates: Array) -> Array:
        """t, (G, m)."""
        flat = coordinates @ self.basis
        return np.asarray(flat.reshape(len(self.root_counts), -1) / self.root_counts[:, None])

    def __call__(self, coordinates: Array) -> "SymmetricEvaluation":
        return SymmetricEvaluation(self, self.dual(self.field(coordinates)))


@frozen(eq=False)
class SymmetricEvaluation:
    """S and its derivatives among symmetric t."""

    problem: SymmetricDual
    grouped: GroupedEvaluation

    @property
    def value(self) -> float:
        return self.grouped.value

    @property
    def gradient(self) -> Array:
        return self.problem.coordinates(self.grouped.gradient)

    def newton_step(self) -> Array:
        basis = self.problem.basis
        return np.asarray(-np.linalg.solve(basis @ self.grouped.hessian() @ basis.T, self.gradient))
