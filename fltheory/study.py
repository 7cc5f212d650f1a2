"""Theory against networks: one table of what both say, how far apart, and how well that is known."""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from importlib import import_module
from typing import Any

import numpy as np
from attrs import asdict, frozen

from fltheory.meanfield.solution import Agreement, MeanFieldSolution, activity_threshold
from fltheory.network.diagnostics import Convergence, text_or_dash
from fltheory.network.samples import PosteriorSamples
from fltheory.numerics.validation import Array, Booleans, Integers, check_instance
from fltheory.representation import class_means, nearest_class
from fltheory.task import Task

_LARGEST_RHAT = 1.1  # above, the chains disagree
_ROUNDING = 1e-9  # relative variation of a chain that counts as none
_RAREST_CODE = 0.005  # probability from which a code is compared
_SHARE = "share of code"
_FROZEN_SHARE = 0.1  # of the entries of a distance, above which it is frozen as they are
_SAME = 1e-6  # relative difference of N T that counts as none


@frozen
class Row:
    """One quantity, as theory and networks have it.

    Attributes
    ----------
    quantity
        What it is.
    theory, network
        Its values; None for distances, which have a gap only, and one of them for a correlation.
    gap
        Network minus theory.
    standard_error
        Of the network's value, from the effective sample size; None where that is not defined.
    frozen
        Whether the chains cannot tell the value: they do not move or disagree (R-hat above 1.1).
    """

    quantity: str
    theory: float | None = None
    network: float | None = None
    gap: float | None = None
    standard_error: float | None = None
    frozen: bool = False

    @property
    def score(self) -> float | None:
        """|gap| in standard errors; None where it would not be a test."""
        if self.frozen or self.gap is None or not self.standard_error:
            return None
        return abs(self.gap) / self.standard_error


@frozen
class Comparison:
    """What ``compare`` returns: a table that prints itself.

    The theory is the limit of infinite width, so that gaps of order 1/N remain however small their
    standard error.

    Attributes
    ----------
    heading
        Which networks were compared.
    rows
        One for each quantity.
    has_imposed_codes
        Whether the theory is the one at imposed shares of codes.
    agreement
        What the theory states of its own error, which standard errors do not contain; None: nothing.
    """

    heading: str
    rows: tuple[Row, ...]
    has_imposed_codes: bool = False
    agreement: Agreement | None = None

    @property
    def worst(self) -> Row | None:
        """The row with the largest gap in standard errors, among those that are not frozen."""
        tested = [row for row in self.rows if row.score is not None]
        return max(tested, key=lambda row: row.score or 0.0, default=None)

    def to_dataframe(self) -> Any:
        """The rows as a pandas ``DataFrame``.

        Raises
        ------
        ImportError
            Without pandas.
        """
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise ImportError("to_dataframe needs pandas: pip install pandas") from error
        return pandas.DataFrame([asdict(row) for row in self.rows])

    def __str__(self) -> str:
        width = max(len(row.quantity) for row in self.rows)
        lines = [self.heading, f"{'':{width}}{'theory':>11}{'network':>11}{'gap':>10}{'s.e.':>9}"]
        for row in self.rows:
            values = f"{text_or_dash(row.theory, '#.4g'):>11}{text_or_dash(row.network, '#.4g'):>11}"
            errors = f"{text_or_dash(row.gap, '+.2g'):>10}{text_or_dash(row.standard_error, '.2g'):>9}"
            lines.append(f"{row.quantity:{width}}{values}{errors}{'  frozen' if row.frozen else ''}")
        if any(row.frozen and row.quantity.startswith(_SHARE) for row in self.rows):
            lines.append("frozen codes: the rest of the table is given the shares that the chains settled on")
            if not self.has_imposed_codes:
                lines.append("theory at these: solve(code_fractions=fltheory.code_fractions(networks))")
        if self.agreement is not None:
            lines.append(f"error of the theory itself, by {self.agreement}")
        if self.worst is not None:
            lines.append(f"largest gap: {self.worst.score:.1f} standard errors ({self.worst.quantity})")
        return "\n".join(lines)


def compare(theory: MeanFieldSolution, networks: PosteriorSamples) -> Comparison:
    """Compare theory and networks: kernels, codes, outputs and the dual field.

    Parameters
    ----------
    theory, networks
        Answers for the same task, nonlinearity, depth and N T. Widths may differ. Of networks that were not
        kept the averages of each chain are compared, and errors are those between chains.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as above, naming what differs.
    """
    check_instance("theory", theory, MeanFieldSolution)
    check_instance("networks", networks, PosteriorSamples)
    _check_same(theory, networks)
    model = networks.model
    heading = (
        f"{model.nonlinearity!r}, L = {model.n_hidden_layers}, N = {model.width}, "
        f"N T = {model.scaled_temperature:.4g}, {networks.draws.size}"
        f"{'; theory at imposed code fractions' if theory.has_imposed_codes else ''}"
    )
    sections = (_kernel_rows, _code_rows, _output_rows, _field_rows)
    rows = tuple(row for section in sections for row in section(theory, networks))
    return Comparison(heading, rows, theory.has_imposed_codes, theory.agreement)


def _check_same(theory: MeanFieldSolution, networks: PosteriorSamples) -> None:
    ours, theirs = theory.model, networks.model
    if ours.task.fingerprint != theirs.task.fingerprint:
        raise ValueError(f"task: expected the same for both, got {ours.task!r:.60} and {theirs.task!r:.60}")
    if not np.array_equal(networks.targets, theirs.task.targets):
        raise ValueError("targets: expected networks sampled with those of the task, got others")
    for name in ("nonlinearity", "n_hidden_layers", "is_lazy"):
        if getattr(ours, name) != getattr(theirs, name):
            raise ValueError(
                f"{name}: expected the same for both, got {getattr(ours, name)!r} for the theory and "
                f"{getattr(theirs, name)!r} for the networks"
            )
    if not np.isclose(ours.scaled_temperature, theirs.scaled_temperature, rtol=_SAME, atol=0.0):
        raise ValueError(
            f"temperature: expected the same N T for both (at_width keeps it), got "
            f"{ours.scaled_temperature:g} for the theory and {theirs.scaled_temperature:g} for the networks"
        )


# Estimates ---------------------------------------------------------------------------------------


@frozen
class _Estimate:
    """The mean of a functional over networks, its error, and whether its chains can be believed."""

    mean: float
    error: float | None
    is_frozen: bool

    @classmethod
    def of(cls, draws: Array) -> "_Estimate":
        """From the values in each network, shape (C, D); or from the average of each chain, (C, 1)."""
        if draws.shape[1] == 1:
            error = float(draws.std(ddof=1) / np.sqrt(len(draws))) if len(draws) > 1 else None
            return cls(float(draws.mean()), error, False)
        if (np.ptp(draws, axis=1) <= _ROUNDING * np.abs(draws).max()).any():
            return cls(float(draws.mean()), None, True)
        known = Convergence.of(draws)
        is_frozen = known.standard_error is None or known.rhat is None or not known.rhat <= _LARGEST_RHAT
        return cls(known.mean, known.standard_error, is_frozen)


def _row(quantity: str, theory: float, draws: Array, *, is_frozen: bool = False) -> Row:
    """A row from the values in each network, shape (C, D)."""
    found = _Estimate.of(draws)
    gap = float(found.mean - theory)
    return Row(quantity, float(theory), found.mean, gap, found.error, is_frozen or found.is_frozen)


def _distance_row(quantity: str, theory: Array, draws: Array) -> Row:
    """The rms gap of many entries, draws (C, D, ...): its error is the rms gap that chance alone gives."""
    entries = np.moveaxis(draws.reshape(*draws.shape[:2], -1), -1, 0)
    found = [_Estimate.of(values) for values in entries]
    gaps = np.array([f.mean for f in found]) - theory.ravel()
    errors = [f.error for f in found if f.error is not None]
    error = _rms(np.array(errors)) if len(errors) == len(found) else None
    frozen = np.mean([f.is_frozen for f in found]) > _FROZEN_SHARE
    return Row(quantity, gap=_rms(gaps), standard_error=error, frozen=bool(frozen or error is None))


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


# Quantities --------------------------------------------------------------------------------------


@frozen(eq=False)
class _Blocks:
    """Averages of a kernel over pairs of different inputs, one for each pair of classes."""

    labels: Integers | None
    n_inputs: int

    @cached_property
    def _member(self) -> Array:
        """Whether an input is of a class, (P, n_classes); all of one class without labels."""
        labels = np.zeros(self.n_inputs, np.int64) if self.labels is None else self.labels
        return np.asarray(labels[:, None] == np.unique(labels), dtype=np.float64)

    @cached_property
    def _pairs(self) -> list[tuple[int, int, float]]:
        """Pairs of classes and how many pairs of inputs each has, if any."""
        counts = self._sums(np.ones((self.n_inputs, self.n_inputs)))
        upper = zip(*np.triu_indices(len(counts)), strict=True)
        return [(int(i), int(j), float(counts[i, j])) for i, j in upper if counts[i, j] > 0]

    def _sums(self, kernel: Array) -> Array:
        between = kernel * (1.0 - np.eye(self.n_inputs))
        return np.asarray(self._member.T @ between @ self._member)

    @property
    def names(self) -> list[str]:
        """Of the averages, in their order."""
        if self.labels is None:
            return ["different inputs"] * len(self._pairs) + ["diagonal"]
        classes = np.unique(self.labels)
        return [f"classes {classes[i]}, {classes[j]}" for i, j, _ in self._pairs] + ["diagonal"]

    def of(self, kernel: Array) -> Array:
        """Block averages and the mean of the diagonal, (..., P, P) -> (..., n_blocks + 1)."""
        sums = self._sums(kernel)
        blocks = [sums[..., i, j] / count for i, j, count in self._pairs]
        diagonal = np.diagonal(kernel, axis1=-2, axis2=-1).mean(-1)
        return np.asarray(np.stack([*blocks, diagonal], axis=-1))


def _kernel_rows(theory: MeanFieldSolution, networks: PosteriorSamples) -> Iterator[Row]:
    task, width = networks.model.task, networks.model.width
    blocks = _Blocks(task.labels, task.n_samples)
    for layer in range(1, networks.model.n_hidden_layers + 1):
        expected = theory.kernel(layer)
        if networks.draws.weights:
            draws = networks.functional(lambda phi: blocks.of(phi.swapaxes(1, 2) @ phi / width), layer)
        else:
            draws = blocks.of(networks.chain_averages("kernel", layer))[:, None]
        for i, (name, value) in enumerate(zip(blocks.names, blocks.of(expected), strict=True)):
            yield _row(f"K_{layer}, {name}", value, draws[..., i])
        difference = np.linalg.norm(networks.kernel(layer) - expected)
        yield Row(f"K_{layer}, relative distance", gap=float(difference / np.linalg.norm(expected)))


def _code_rows(theory: MeanFieldSolution, networks: PosteriorSamples) -> Iterator[Row]:
    """The share of each code, where neurons sit on discrete codes."""
    model = networks.model
    labels = model.task.labels
    if labels is None or theory.symmetry(model.n_hidden_layers) == "intact":
        return
    shares: dict[tuple[int, ...], float] = {}
    for branch in theory.branches:
        if branch.code is not None:
            shares[branch.code] = shares.get(branch.code, 0.0) + branch.probability
    common = {code: share for code, share in shares.items() if share > _RAREST_CODE}
    names = {code: f"{_SHARE} {'-'.join(map(str, code))}" for code in common}
    if not networks.draws.weights:
        traced = networks.functionals()  # as counted while sampling
        for code, share in common.items():
            draws = traced.get("code " + "".join(map(str, code)))
            if draws is not None:
                yield _row(names[code], share, draws)
        return
    threshold = activity_threshold(model)
    active = networks.functional(lambda phi: class_means(phi, labels) > threshold)  # (C, D, N, classes)
    for code, share in common.items():
        has_code = (active == np.array(code)).all(-1)
        yield _row(names[code], share, has_code.mean(-1), is_frozen=not _is_renewed(has_code))


def _is_renewed(has_code: Booleans) -> bool:
    """Whether in every chain as many neurons left a code (C, D, N) as have it: it forgot its start."""
    departures = (has_code[:, :-1] & ~has_code[:, 1:]).sum((1, 2))
    return bool((departures >= np.maximum(has_code.sum(2).mean(1), 1.0)).all())


def _output_rows(theory: MeanFieldSolution, networks: PosteriorSamples) -> Iterator[Row]:
    task = networks.model.task
    test_labels = None if task.test_targets is None else nearest_class(task, task.test_targets)
    for name, inputs, labels in (("training", None, task.labels), ("test", task.test_inputs, test_labels)):
        if name == "test" and inputs is None:
            continue
        expected, draws = theory.predict(inputs).mean, _draws(networks, "output", inputs)
        for label, own in _own_class(task, labels):
            yield _row(f"{name} output, class {label}", float(own(expected)), own(draws))
        yield _distance_row(f"{name} output, rms gap", expected, draws)


def _field_rows(theory: MeanFieldSolution, networks: PosteriorSamples) -> Iterator[Row]:
    task, expected, draws = networks.model.task, theory.dual_field, _draws(networks, "dual field")
    for label, own in _own_class(task, task.labels):
        yield _row(f"dual field, class {label}", float(own(expected)), own(draws))
    found = networks.dual_field
    if np.ptp(expected) > 0 and np.ptp(found) > 0:
        correlation = float(np.corrcoef(expected.ravel(), found.ravel())[0, 1])
        yield Row("dual field, correlation", network=correlation)


def _draws(networks: PosteriorSamples, quantity: str, inputs: Array | None = None) -> Array:
    """In each network, (C, D, n, m), if that was kept; else the average of each chain, (C, 1, n, m)."""
    if quantity == "dual field" and (networks.draws.weights or "dual_field" in networks.draws.traces):
        return networks.dual_field_draws
    if networks.draws.weights:
        return networks.mean_outputs(inputs)
    return networks.chain_averages(quantity, inputs=inputs)[:, None]


def _own_class(task: Task, labels: Integers | None) -> Iterator[tuple[int, Callable[[Array], Array]]]:
    """For each class in ``labels``, what averages its own output over its inputs: (..., n, m) -> (...).

    The own output of a class is the largest in its mean target.
    """
    if labels is None or task.labels is None:
        return
    outputs = np.abs(class_means(task.targets.T, task.labels)).argmax(0)
    for label, output in zip(np.unique(task.labels), outputs, strict=True):
        if (labels == label).any():
            yield int(label), partial(_mean_output, inputs=labels == label, output=int(output))


def _mean_output(values: Array, inputs: Booleans, output: int) -> Array:
    return np.asarray(values[..., inputs, output].mean(-1))
