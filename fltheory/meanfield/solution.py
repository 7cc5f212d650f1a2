"""The answer of the theory: order parameters, and the questions of ``Representation``."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from attrs import field, frozen

from fltheory.meanfield.branches import neuron_states
from fltheory.meanfield.neuron import NeuronPosterior, NewInputs
from fltheory.model import Model
from fltheory.numerics.validation import Array, Integers, check_integer, read_only
from fltheory.representation import Neurons, Prediction, Representation, class_means, nearest_class

_MOST_SHOWN = 8  # branches in a repr
_DISCRETE = 1e-3  # probability outside the first branch from which neurons sit on discrete codes


@frozen(eq=False)
class Branch:
    """A group of neurons of the readout layer that share a code.

    Averages are over the whole branch, including the width of a inside it.

    Attributes
    ----------
    probability
        P_gamma, the share of neurons.
    readout, readout_covariance
        Mean and covariance of the readout weights, (m,) and (m, m).
    activations
        Mean activation on each training input, (P,).
    code
        For each class 1 if the branch is active on it, else 0; None without labels and for linear
        networks, whose code is analog.
    """

    probability: float
    readout: Array
    readout_covariance: Array
    activations: Array
    code: tuple[int, ...] | None


@frozen(eq=False)
class Outlier:
    """A condensed neuron: a = sqrt(N) readout, z = sqrt(N) preactivations (docs/theory.md section 6).

    Attributes
    ----------
    readout
        (m,).
    preactivations, activations
        On the training inputs, (P,), in the same units.
    """

    readout: Array
    preactivations: Array
    activations: Array


@frozen(eq=False)
class Decomposition:
    """A kernel as a bulk and a few directions: kernel = bulk + sum of outer products of ``outliers``.

    Attributes
    ----------
    bulk
        Covariance inside branches (bounded phi), <phi phi^T> of all but the condensed neurons
        (asymptotically linear), the prior's kernel (linear), (P, P).
    outliers
        sqrt(P_gamma) <phi>_gamma of each branch, phi_inf of the condensed neurons, or the learned
        directions, (k, P).
    """

    bulk: Array
    outliers: Array

    @property
    def kernel(self) -> Array:
        """Their sum, (P, P)."""
        return read_only(self.bulk + self.outliers.T @ self.outliers)


@frozen
class Agreement:
    """How far a second answer to the same equations is from a solution, relative to it.

    Attributes
    ----------
    other
        What gave the second answer.
    dual_field, kernel
        Norm of the difference, of t and of <phi phi^T>.
    missing_probability
        The share of neurons that the solution knows nothing of.
    """

    other: str
    dual_field: float
    kernel: float
    missing_probability: float = 0.0

    @classmethod
    def between(
        cls, other: str, fields: tuple[Array, Array], kernels: Sequence[tuple[Array, Array]]
    ) -> "Agreement":
        """Of the solution and the other, t (P, m) and the kernel of each layer; the largest counts."""
        return cls(other, _distance(*fields), max(_distance(*pair) for pair in kernels))

    def __str__(self) -> str:
        return f"{self.other}: t {self.dual_field:.1%}, kernel {self.kernel:.1%} apart"


def _distance(one: Array, other: Array) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))


@frozen(eq=False, repr=False)
class MeanFieldSolution(Representation):
    """The solution of the mean-field equations at infinite width.

    Attributes
    ----------
    model
        The network and the task.
    neuron
        The law of single neurons, on which all answers rest.
    free_energy
        -S of docs/theory.md (8), per neuron.
    residual
        Largest absolute entry of Y - N T t - <phi a^T>, (5).
    certificate
        sigma_a^2 times the maximum in (14): at most 1, tight at 1; None if phi is bounded.
    n_iterations
        Steps the solver took.
    method
        "closed form" (linear, prior, lazy), "quadrature" (diagonal K_0), "ep", "lattice" (two hidden
        layers, any kernel), or "particles" (the residual is that on the particles; ``agreement`` tells
        the error).
    action_path
        S after each step of the solver, where it minimises S; J for L > 1, where steps at a higher N T or
        on fewer points may come first.
    agreement
        How far exact neurons are from EP, or two runs of particles from one another, which is twice
        the standard error of the solution, or solutions of a deep network on two sets of points (the
        kernels of all layers together; exact neurons too where EP takes part); None for one layer by
        quadrature and where EP was not checked.
    has_imposed_codes
        Whether the shares of codes were imposed, not found.
    """

    model: Model
    neuron: NeuronPosterior
    free_energy: float
    residual: float
    certificate: float | None
    n_iterations: int
    method: str
    action_path: tuple[float, ...] = field(default=())
    agreement: Agreement | None = None
    has_imposed_codes: bool = False

    def __repr__(self) -> str:
        shares = self.neuron.branches.probabilities
        branches = ", ".join(f"{share:.3f}" for share in shares[:_MOST_SHOWN])
        branches += f", and {len(shares) - _MOST_SHOWN} more" if len(shares) > _MOST_SHOWN else ""
        return (
            f"MeanFieldSolution({self.model.nonlinearity!r}, L={self.model.n_hidden_layers}, "
            f"NT={self.model.scaled_temperature:g}, branches=({branches}), "
            f"{'' if self.certificate is None else f'certificate={self.certificate:.6f}, '}"
            f"{len(self.outliers)} outliers, "
            f"free_energy={self.free_energy:.6g}, residual={self.residual:.1e}, method={self.method!r}"
            f"{'' if self.agreement is None else f', {self.agreement}'}"
            f"{', imposed code fractions' if self.has_imposed_codes else ''})"
        )

    @property
    def dual_field(self) -> Array:
        return read_only(self.neuron.field)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """Of the readout layer, most probable first; one for a linear network."""
        table = self.neuron.branches
        return tuple(
            Branch(float(p), read_only(a), read_only(c), read_only(phi), self._code(phi))
            for p, a, c, phi in zip(
                table.probabilities, table.readout, table.readout_covariance, table.activations, strict=True
            )
        )

    @property
    def outliers(self) -> tuple[Outlier, ...]:
        """The condensed neurons, strongest first: none for linear and bounded phi."""
        condensed = self.neuron.outliers
        if condensed is None:
            return ()
        parts = (condensed.readouts, condensed.preactivations, condensed.activations)
        return tuple(Outlier(*map(read_only, part)) for part in zip(*parts, strict=True))

    @property
    def readout_covariance(self) -> Array:
        """U, the covariance of a readout over the whole posterior, outliers included, (m, m)."""
        return read_only(self.neuron.readout_covariance)

    def kernel(self, layer: int, inputs: object = None) -> Array:
        layer = self.model.check_layer(layer)
        new = None if inputs is None else self._new(inputs)
        if layer == 0:
            return read_only(self.model.input_kernel if new is None else new.own)
        if new is None:
            return read_only(self.neuron.kernel_parts(layer).total)
        return read_only(self.neuron.kernel(layer, new))

    def conjugate_kernel(self, layer: int) -> Array:
        """Kt_l, conjugate to the kernel of a layer (1 to L), (P, P); Kt_L = sigma_a^2 t t^T."""
        return read_only(self.neuron.conjugate_kernel(self.model.check_layer(layer, lowest=1)))

    def decomposition(self, layer: int) -> Decomposition:
        """The kernel of a layer (1 to L) as a bulk and a few directions."""
        parts = self.neuron.kernel_parts(self.model.check_layer(layer, lowest=1))
        return Decomposition(read_only(parts.bulk), read_only(parts.patterns))

    def symmetry(self, layer: int) -> str:
        """Whether the permutation symmetry of the neurons of a layer (1 to L) is "broken" or "intact".

        Broken: neurons sit on discrete codes and stay there. Intact: representations drift.
        """
        layer = self.model.check_layer(layer, lowest=1)
        if layer < self.model.n_hidden_layers:
            return "broken" if self.neuron.is_discrete(layer) else "intact"
        return "broken" if self.neuron.branches.probabilities[0] < 1.0 - _DISCRETE else "intact"

    def predict(self, inputs: object = None) -> Prediction:
        """Mean (15) and variance (16) of the output on inputs (n, N0), the training inputs if None.

        The variance is of order 1/N, without a term from fluctuations of the kernels below the
        last layer, which is not known for L > 1 at T > 0. Nonlinear networks answer by
        averages over thousands of drawn neurons, with the outputs on the training inputs as control
        variates: a training input among ``inputs`` is answered as without inputs.
        """
        if inputs is None:
            mean, variance = self._training_mean(), self.neuron.training_variance()
        else:
            mean, variance = self.neuron.predict(self._new(inputs))
        labels = nearest_class(self.model.task, mean)
        return Prediction(read_only(mean), read_only(variance / self.model.width), labels)

    def neurons(self, n: int, layer: int, seed: int = 0) -> Neurons:
        layer = self.model.check_layer(layer, lowest=1)
        rng = np.random.default_rng(check_integer("seed", seed, minimum=0))
        z, readouts = self.neuron.draw(check_integer("n", n), layer, rng)
        activations = np.asarray(self.model.nonlinearity(z))
        return Neurons(
            read_only(activations), read_only(z), None if readouts is None else read_only(readouts)
        )

    def save(self, path: "str | PathLike[str]") -> None:
        from fltheory.meanfield.saving import save

        save(self, path)

    def to_xarray(self) -> Any:
        """As an ``xarray.DataTree``: dimensions input, output, branch, outlier and layer (1 to L).

        Group solution holds dual field, kernels, branches and outliers, with the scalars as its attributes;
        observed_data inputs and targets.
        """
        from fltheory.meanfield.export import to_tree

        return to_tree(self)

    def _training_mean(self) -> Array:
        field, noise = self.neuron.field, self.model.scaled_temperature
        return np.zeros_like(field) if np.isinf(noise) else self.model.task.targets - noise * field

    def _new(self, inputs: object) -> NewInputs:
        array = self.model.check_inputs(inputs)
        cross = self.model.kernel_between(array, self.model.task.inputs)
        return NewInputs(cross, self.model.kernel_between(array, array))

    def _code(self, activations: Array) -> tuple[int, ...] | None:
        labels = self.model.task.labels
        if labels is None or self.model.nonlinearity.is_linear:
            return None
        return activation_code(self.model, activations, labels)


def activity_threshold(model: Model) -> float:
    """The middle of phi's range, above which a neuron counts as active."""
    scale = float(np.sqrt(np.diagonal(model.input_kernel).max()))
    return float(np.mean(model.nonlinearity(neuron_states(model.nonlinearity, scale))))


def activation_code(model: Model, activations: Array, labels: Integers) -> tuple[int, ...]:
    """For each class 1 if the mean activation (P,) on it is above the threshold, else 0."""
    return tuple((class_means(activations, labels) > activity_threshold(model)).astype(int).tolist())
