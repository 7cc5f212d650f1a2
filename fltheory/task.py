"""What is learned: inputs and targets."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, Self

import numpy as np
from attrs import field, frozen

from fltheory.numerics.validation import (
    Array,
    Integers,
    check_array,
    check_integer,
    check_labels,
    check_real,
    check_sequence,
    checked,
    describe,
    fingerprint,
    read_only,
    sealed,
    to_numpy,
)

_ARRAYS = ("inputs", "targets", "labels", "test_inputs", "test_targets")
_LARGEST = 1e100  # of an input, so that products of inputs are finite


class Task(ABC):
    """A training set, and test inputs if there are any.

    A subclass must supply ``inputs`` and ``targets``. It may supply ``labels``, ``test_inputs``,
    ``test_targets`` and, where it is known exactly, ``gram()``. Callers also use ``n_samples``
    (P), ``n_inputs`` (N0), ``n_outputs`` (m) and ``fingerprint``. Arrays are read-only float64.
    """

    @property
    @abstractmethod
    def inputs(self) -> Array:
        """X, shape (P, N0)."""

    @property
    @abstractmethod
    def targets(self) -> Array:
        """Y, shape (P, m)."""

    @property
    def labels(self) -> Integers | None:
        """The class of each training input, shape (P,), or None."""
        return None

    @property
    def test_inputs(self) -> Array | None:
        """Inputs outside the training set, shape (n, N0), or None."""
        return None

    @property
    def test_targets(self) -> Array | None:
        """Their targets, shape (n, m), or None."""
        return None

    def gram(self) -> Array:
        """X X^T / N0, shape (P, P): the input kernel at unit weight variance."""
        return read_only(self.inputs @ self.inputs.T / self.n_inputs)

    @property
    def n_samples(self) -> int:
        """P, the number of training inputs."""
        return len(self.inputs)

    @property
    def n_inputs(self) -> int:
        """N0, the dimension of an input."""
        return int(self.inputs.shape[1])

    @property
    def n_outputs(self) -> int:
        """m, the number of outputs."""
        return int(self.targets.shape[1])

    @property
    def fingerprint(self) -> str:
        """A hash of the content: equal for equal data."""
        return fingerprint(self.inputs, self.targets, self.labels, self.test_inputs, self.test_targets)


def check_task(name: str, task: object) -> Task:
    """A ``Task`` whose arrays are finite and fit together, whoever wrote its class."""
    if not isinstance(task, Task):
        hint = " (a class, not an instance: call it)" if isinstance(task, type) else ""
        raise TypeError(f"{name}: expected a Task, got {type(task).__name__}{hint}")
    if not isinstance(task, ArrayTask):
        plain = ArrayTask(*(getattr(task, array) for array in _ARRAYS))
        for array in _ARRAYS:
            _check_form(f"{name}.{array}", getattr(task, array), getattr(plain, array))
        check_array(f"{name}.gram()", task.gram(), (task.n_samples, task.n_samples))
    return task


def _check_form(name: str, value: object, wanted: Any) -> None:
    """Refuse what can be made the array that is wanted but is not it: a list, targets (P,), float32."""
    if wanted is None or (
        isinstance(value, np.ndarray) and value.shape == wanted.shape and value.dtype == wanted.dtype
    ):
        return
    expected = f"an array of shape {wanted.shape} and dtype {wanted.dtype}"
    raise TypeError(f"{name}: expected {expected}, got {describe(value)}")


def _check_targets(name: str, value: object) -> Array:
    try:
        raw = to_numpy(value)
    except TypeError:
        raw = None
    if raw is None or raw.ndim != 1:  # check_array says why
        return check_array(name, value, ("P", "m"))
    if raw.dtype.kind in "iu":
        raise ValueError(
            f"{name}: expected real targets of shape (P, m) or (P,), got integers of shape {raw.shape}; "
            "for class labels use ArrayTask.from_labels(inputs, labels)"
        )
    return read_only(check_array(name, value, ("P",))[:, None])


def _optional_array(name: str, value: object, shape: tuple[str | int, ...]) -> Array | None:
    return None if value is None else check_array(name, value, shape)


def _check_length(name: str, array: Any, axis: int, length: int, of: str) -> None:
    if array is not None and array.shape[axis] != length:
        wanted = [str(n) for n in array.shape]
        wanted[axis] = str(length)
        raise ValueError(f"{name}: expected shape ({', '.join(wanted)}) to match {of}, got {array.shape}")


@frozen(eq=False, repr=False)
class ArrayTask(Task):
    """A task from arrays.

    Parameters
    ----------
    inputs
        X, shape (P, N0).
    targets
        Y, shape (P, m); real targets of shape (P,) become (P, 1).
    labels
        Integer class of each input, shape (P,), at least two classes.
    test_inputs, test_targets
        Inputs outside the training set, shape (n, N0), and their targets, shape (n, m).

    Raises
    ------
    TypeError, ValueError
        If an array is not finite, real and of the right shape. Integer targets of shape (P,) are
        refused: class labels go to ``from_labels``.
    """

    inputs: Array = field(converter=checked(check_array, shape=("P", "N0")))
    targets: Array = field(converter=checked(_check_targets))
    labels: Integers | None = field(
        default=None, converter=checked(lambda name, v: None if v is None else check_labels(name, v))
    )
    test_inputs: Array | None = field(default=None, converter=checked(_optional_array, shape=("n", "N0")))
    test_targets: Array | None = field(
        default=None, converter=checked(lambda name, v: None if v is None else _check_targets(name, v))
    )

    def __attrs_post_init__(self) -> None:
        n_samples, n_inputs = self.inputs.shape
        if np.abs(self.inputs).max() > _LARGEST:
            raise ValueError(
                f"inputs: expected entries of at most {_LARGEST:g}, got {np.abs(self.inputs).max():g}"
            )
        _check_length("targets", self.targets, 0, n_samples, "inputs")
        _check_length("labels", self.labels, 0, n_samples, "inputs")
        _check_length("test_inputs", self.test_inputs, 1, n_inputs, "inputs")
        _check_length("test_targets", self.test_targets, 1, self.targets.shape[1], "targets")
        if self.test_targets is not None:
            if self.test_inputs is None:
                raise ValueError("test_inputs: expected an array to go with test_targets, got None")
            _check_length("test_targets", self.test_targets, 0, len(self.test_inputs), "test_inputs")

    def __repr__(self) -> str:
        n_test = 0 if self.test_inputs is None else len(self.test_inputs)
        return f"ArrayTask(P={self.n_samples}, N0={self.n_inputs}, m={self.n_outputs}, n_test={n_test})"

    @classmethod
    def from_labels(cls, inputs: object, labels: object) -> Self:
        """Classification: one-hot 0/1 targets, one column a class, in the order of the labels.

        Parameters
        ----------
        inputs
            X, shape (P, N0).
        labels
            Integer class of each input, shape (P,), at least two classes.
        """
        array = check_array("inputs", inputs, ("P", "N0"))
        classes = check_labels("labels", labels, len(array))
        one_hot = classes[:, None] == np.unique(classes)
        return cls(inputs=array, targets=one_hot.astype(float), labels=classes)


def _check_ratios(name: str, value: object) -> tuple[float, ...]:
    ratios = check_sequence(name, value, check_real, minimum=0.0, exclusive=True)
    if len(ratios) < 2:
        raise ValueError(f"{name}: expected at least two classes, got {len(ratios)}")
    if abs(sum(ratios) - 1.0) > 1e-9:
        raise ValueError(f"{name}: expected ratios that sum to 1, got a sum of {sum(ratios):.12g}")
    return ratios


def _check_dimension(_: str, value: object) -> int | None:
    return None if value is None else check_integer("n_inputs", value)


@frozen(repr=False)
class OrthogonalClassification(Task):
    """Mutually orthogonal inputs, X X^T / N0 = 1 exactly, and one-hot 0/1 targets.

    Nothing about the input statistics helps, so all structure in the representations is learned.

    Parameters
    ----------
    n_samples
        P. Raises ``ValueError`` if it leaves a class empty.
    class_ratios
        Share of each class, positive, summing to 1; counts by largest remainder. Inputs are
        ordered by class.
    n_inputs
        N0 >= P; P if None.
    """

    n_samples: int = field(converter=checked(check_integer, minimum=2, maximum=2**31 - 1))
    class_ratios: tuple[float, ...] = field(converter=checked(_check_ratios))
    _n_inputs: int | None = field(default=None, converter=checked(_check_dimension))

    def __attrs_post_init__(self) -> None:
        if self._n_inputs is not None and self._n_inputs < self.n_samples:
            raise ValueError(
                f"n_inputs: expected at least n_samples = {self.n_samples} orthogonal directions, "
                f"got {self._n_inputs}"
            )
        if not self.class_counts.all():
            raise ValueError(
                f"n_samples: expected enough inputs for every class of ratios {self.class_ratios}, "
                f"got {self.n_samples}, which leaves class {int(np.argmin(self.class_counts))} empty"
            )

    def __repr__(self) -> str:
        return (
            f"OrthogonalClassification(n_samples={self.n_samples}, class_ratios={self.class_ratios}, "
            f"n_inputs={self._n_inputs})"
        )

    @property
    def class_counts(self) -> Integers:
        """Inputs a class, by largest remainder (ties to the earlier class)."""
        shares = self.n_samples * np.asarray(self.class_ratios)
        counts = np.floor(shares + 1e-9).astype(np.int64)
        order = np.argsort(-np.round(shares - counts, 9), kind="stable")
        counts[order[: self.n_samples - counts.sum()]] += 1
        return counts

    @cached_property
    def labels(self) -> Integers:
        return sealed(np.repeat(np.arange(len(self.class_ratios)), self.class_counts))

    @cached_property
    def inputs(self) -> Array:
        n_inputs = self._n_inputs or self.n_samples
        return read_only(np.sqrt(n_inputs) * np.eye(self.n_samples, n_inputs))

    @cached_property
    def targets(self) -> Array:
        return read_only(np.eye(len(self.class_ratios))[self.labels])

    def gram(self) -> Array:
        return read_only(np.eye(self.n_samples))


def _check_classes(name: str, value: object) -> tuple[int, ...]:
    classes = check_sequence(name, value, check_integer, minimum=0, maximum=9)
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise ValueError(f"{name}: expected at least two different digits, got {classes}")
    return classes


@frozen
class Digits(Task):
    """Scikit-learn's 8 x 8 images of handwritten digits, which need no download.

    Features are centred over all images of the chosen classes, then each image is scaled to mean
    square 1. Inputs are ordered by class, targets are one-hot 0/1, ``labels`` counts the classes
    in the order given.

    Parameters
    ----------
    classes
        The digits to tell apart, at least two.
    n_samples, n_test
        Sizes of the training and the test set (no test set if ``n_test`` is 0), drawn at random
        without overlap.
    seed
        Of the draw.

    Raises
    ------
    ValueError
        If the chosen classes hold fewer images than asked for, or a class is missing.
    ImportError
        Without scikit-learn (``pip install fltheory[data]``).
    """

    classes: tuple[int, ...] = field(default=(0, 1, 2), converter=checked(_check_classes))
    n_samples: int = field(default=100, converter=checked(check_integer, minimum=2))
    n_test: int = field(default=100, converter=checked(check_integer, minimum=0))
    seed: int = field(default=0, converter=checked(check_integer, minimum=0))

    def __attrs_post_init__(self) -> None:
        images = len(self._images[0])
        if self.n_samples + self.n_test > images:
            raise ValueError(
                f"n_samples: expected n_samples + n_test of at most {images}, the images of digits "
                f"{self.classes}, got {self.n_samples} + {self.n_test}"
            )
        missing = set(range(len(self.classes))) - set(self.labels.tolist())
        if missing:
            raise ValueError(
                f"n_samples: expected enough images to draw every class, got {self.n_samples}, "
                f"without digit {self.classes[missing.pop()]}"
            )

    @cached_property
    def _images(self) -> tuple[Array, Integers]:
        """All images of the chosen classes, normalised, in random order, and their classes."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError("Digits needs scikit-learn: pip install fltheory[data]") from error
        pixels, digit = load_digits(return_X_y=True)
        members = [np.flatnonzero(digit == c) for c in self.classes]
        label = np.repeat(np.arange(len(members)), [len(m) for m in members])
        order = np.random.default_rng(self.seed).permutation(len(label))
        images = pixels[np.concatenate(members)][order]
        images = images - images.mean(0)
        images /= np.sqrt(np.mean(images**2, axis=1, keepdims=True))
        return images, label[order]

    def _subset(self, start: int, stop: int) -> tuple[Array, Integers]:
        images, label = self._images[0][start:stop], self._images[1][start:stop]
        order = np.argsort(label, kind="stable")
        return read_only(images[order]), sealed(label[order])

    @cached_property
    def _training(self) -> tuple[Array, Integers]:
        return self._subset(0, self.n_samples)

    @cached_property
    def _test(self) -> tuple[Array, Integers]:
        return self._subset(self.n_samples, self.n_samples + self.n_test)

    @property
    def inputs(self) -> Array:
        return self._training[0]

    @property
    def labels(self) -> Integers:
        return self._training[1]

    @cached_property
    def targets(self) -> Array:
        return read_only(np.eye(len(self.classes))[self.labels])

    @property
    def test_inputs(self) -> Array | None:
        return self._test[0] if self.n_test else None

    @cached_property
    def test_targets(self) -> Array | None:
        return read_only(np.eye(len(self.classes))[self._test[1]]) if self.n_test else None
