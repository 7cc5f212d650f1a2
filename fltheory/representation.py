"""The questions that both answers, theory and samples, are asked. No computation here."""

from abc import ABC, abstractmethod
from os import PathLike
from typing import Any

import numpy as np
from attrs import frozen

from fltheory.model import Model
from fltheory.numerics.validation import Array, Integers
from fltheory.task import Task


@frozen(eq=False)
class Prediction:
    """The posterior of the network's output.

    Attributes
    ----------
    mean, variance
        Of each output, shape (n, m). The variance is that of one network drawn from the posterior.
    labels
        The predicted class, shape (n,): the class of the nearest class mean of the targets; None
        for a task without labels.
    """

    mean: Array
    variance: Array
    labels: Integers | None


@frozen(eq=False)
class Neurons:
    """One layer of n neurons, all of one network drawn from the posterior.

    Attributes
    ----------
    activations, preactivations
        phi(z) and z on the training inputs, shape (n, P).
    readouts
        Readout weights, shape (n, m); None below the last layer.
    """

    activations: Array
    preactivations: Array
    readouts: Array | None


class Representation(ABC):
    """What is known of the representations after learning, from theory or from samples.

    A subclass must implement the three questions ``kernel``, ``predict`` and ``neurons`` and the
    properties ``model`` and ``dual_field``. Plots and comparisons use nothing else; ``save`` and
    ``to_xarray`` may be supplied.
    """

    @property
    @abstractmethod
    def model(self) -> Model:
        """The network and the task that this is an answer for."""

    @property
    @abstractmethod
    def dual_field(self) -> Array:
        """t (P, m), the field conjugate to the outputs: (Y - mean output) / (N T) for T > 0."""

    @abstractmethod
    def kernel(self, layer: int, inputs: object = None) -> Array:
        """The kernel of a layer: (1/N) sum_i phi_i phi_i^T, averaged over the posterior.

        Parameters
        ----------
        layer
            1 to L; 0 is the input kernel K_0.
        inputs
            Shape (n, N0); the training inputs if None.

        Returns
        -------
        Array
            Shape (n, n), without the factor sigma_(l+1)^2.
        """

    @abstractmethod
    def predict(self, inputs: object = None) -> Prediction:
        """Mean and variance of the output on inputs (n, N0), the training inputs if None."""

    @abstractmethod
    def neurons(self, n: int, layer: int, seed: int = 0) -> Neurons:
        """Draw the neurons of one layer (1 to L) of a network of width n."""

    def save(self, path: "str | PathLike[str]") -> None:
        """Write to one file, whole or not at all; ``fltheory.load`` reads it.

        It holds no code and nothing that runs when it is read: arrays, and the rest in words and
        numbers. A nonlinearity of your own is passed to ``load`` again.

        Raises
        ------
        NotImplementedError
            For a representation of your own, unless it supplies this.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be saved")

    def to_xarray(self) -> Any:
        """As an ``xarray.DataTree``, whose arrays have named dimensions.

        Raises
        ------
        NotImplementedError
            For a representation of your own, unless it supplies this.
        """
        raise NotImplementedError(f"{type(self).__name__} is not available as named arrays")


def class_means(values: Array, labels: Integers) -> Array:
    """Means over the inputs of each class, in the order of the labels: (..., P) -> (..., n_classes)."""
    return np.stack([values[..., labels == c].mean(-1) for c in np.unique(labels)], axis=-1)


def nearest_class(task: Task, mean: Array) -> Integers | None:
    """The class whose mean target is nearest to each prediction, shape (n,)."""
    if task.labels is None:
        return None
    centres = class_means(task.targets.T, task.labels).T
    distance = ((mean[:, None, :] - centres) ** 2).sum(-1)
    classes = np.unique(task.labels)
    return np.asarray(classes[distance.argmin(1)])
