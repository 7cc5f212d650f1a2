"""What is learned: shapes, orthogonality, counts, read-only arrays, fingerprints, a user's task."""

import copy
import pickle

import numpy as np
import pytest
import torch
from attrs import evolve, field, frozen
from hypothesis import assume, given, strategies as st
from numpy.testing import assert_allclose

import fltheory as flt
from fltheory.task import check_task

ARRAYS = ("inputs", "targets", "labels", "test_inputs", "test_targets")


def small_task(**changes):
    rng = np.random.default_rng(0)
    arrays = {
        "inputs": rng.normal(size=(6, 4)),
        "targets": rng.normal(size=(6, 2)),
        "labels": [0, 1, 2, 0, 1, 2],
        "test_inputs": rng.normal(size=(3, 4)),
        "test_targets": rng.normal(size=(3, 2)),
    }
    return flt.ArrayTask(**(arrays | changes))


def orthogonal():
    return flt.OrthogonalClassification(7, (0.5, 0.25, 0.25), n_inputs=9)


EVERY = {
    "arrays": small_task,
    "labels": lambda: flt.ArrayTask.from_labels(np.eye(4, 5), [5, 3, 3, 9]),
    "orthogonal": orthogonal,
    "digits": lambda: flt.Digits(n_samples=20, n_test=10),
    "digits without test set": lambda: flt.Digits(n_samples=20, n_test=0),
}
every_task = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY.keys())


# Laws of every task ------------------------------------------------------------------------------


@every_task
def test_arrays_are_read_only_and_fit_together(make):
    task = make()
    p, n0, m = task.n_samples, task.n_inputs, task.n_outputs
    assert task.inputs.shape == (p, n0) and task.targets.shape == (p, m)
    assert task.labels is None or (task.labels.shape == (p,) and task.labels.dtype == np.int64)
    if task.test_inputs is not None:
        assert task.test_inputs.shape[1] == n0
        assert task.test_targets.shape == (len(task.test_inputs), m)
    assert task.gram().shape == (p, p)
    for array in (*(getattr(task, name) for name in ARRAYS), task.gram()):
        if array is not None:
            assert not array.flags.writeable
            assert array.dtype == (np.int64 if array is task.labels else np.float64)


@every_task
def test_gram_is_that_of_the_inputs(make):
    task = make()
    assert_allclose(task.gram(), task.inputs @ task.inputs.T / task.n_inputs, atol=1e-12)


@every_task
def test_equal_content_has_equal_fingerprints(make):
    task, again = make(), make()
    assert task is not again and task.fingerprint == again.fingerprint
    plain = flt.ArrayTask(*(getattr(task, name) for name in ARRAYS))
    assert plain.fingerprint == task.fingerprint


@every_task
def test_a_task_survives_copying_and_pickling(make):
    task = make()
    fingerprint = task.fingerprint  # fills caches
    for twin in (copy.deepcopy(task), pickle.loads(pickle.dumps(task))):
        assert twin.fingerprint == fingerprint


@every_task
def test_a_task_can_be_learned(make):
    task = make()
    assert check_task("task", task) is task
    assert flt.DeepNetworkPosterior(task, flt.Linear()).task is task


# From arrays -------------------------------------------------------------------------------------


def test_one_dimensional_targets_become_a_column():
    for targets in ([1.0, -1.0], (1.0, -1.0), np.array([1, -1], np.float32), torch.tensor([1.0, -1.0])):
        task = flt.ArrayTask(np.eye(2), targets)
        assert task.targets.tolist() == [[1.0], [-1.0]] and task.n_outputs == 1
    with_test = flt.ArrayTask(np.eye(2), [1.0, -1.0], test_inputs=np.eye(2), test_targets=[0.5, 0.25])
    assert with_test.test_targets.shape == (2, 1)


@pytest.mark.parametrize(
    "targets", [[0, 1], np.array([0, 1]), torch.tensor([0, 1])], ids=["list", "numpy", "torch"]
)
def test_one_dimensional_integers_point_to_from_labels(targets):
    with pytest.raises(ValueError, match="^targets: .*from_labels"):
        flt.ArrayTask(np.eye(2), targets)


def test_two_dimensional_integers_are_targets():
    assert flt.ArrayTask(np.eye(2), [[0, 1], [1, 0]]).targets.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_it_keeps_copies():
    inputs = np.eye(3)
    task = flt.ArrayTask(inputs, np.ones((3, 1)))
    inputs[0, 0] = 7
    assert task.inputs[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        task.inputs[0, 0] = 7


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=12))
def test_from_labels_is_one_hot_in_the_order_of_the_labels(labels):
    assume(len(set(labels)) > 1)
    inputs = np.random.default_rng(0).normal(size=(len(labels), 3))
    task = flt.ArrayTask.from_labels(inputs, labels)
    classes = sorted(set(labels))
    assert task.labels.tolist() == labels and task.n_outputs == len(classes)
    assert np.array(classes)[task.targets.argmax(1)].tolist() == labels
    assert set(task.targets.ravel()) == {0.0, 1.0} and (task.targets.sum(1) == 1).all()
    assert (task.inputs == inputs).all() and task.test_inputs is None


CHANGES = {
    "inputs": lambda a: a + 1e-12,
    "targets": lambda a: -a,
    "labels": lambda a: a[::-1],
    "test_inputs": lambda a: a[:, ::-1],
    "test_targets": lambda a: 2 * a,
}


@pytest.mark.parametrize("name", ARRAYS)
def test_any_change_changes_the_fingerprint(name):
    task = small_task()
    changed = evolve(task, **{name: CHANGES[name](getattr(task, name))})
    assert changed.fingerprint != task.fingerprint
    if name not in ("inputs", "targets"):
        without = {name: None} | ({"test_targets": None} if name == "test_inputs" else {})
        assert evolve(task, **without).fingerprint not in (task.fingerprint, changed.fingerprint)


def test_tasks_are_equal_only_to_themselves():
    """Arrays have no single truth value, so content is compared by fingerprint."""
    task = small_task()
    assert task == task and task != small_task() and len({task, small_task()}) == 2


# Orthogonal inputs -------------------------------------------------------------------------------


def ratios(weights):
    return tuple(w / sum(weights) for w in weights)


@given(st.integers(2, 40), st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(0, 5))
def test_orthogonal_inputs(n_samples, weights, extra):
    shares = n_samples * np.array(ratios(weights))
    assume(shares.min() >= 1)
    task = flt.OrthogonalClassification(n_samples, ratios(weights), n_inputs=n_samples + extra)
    assert (task.gram() == np.eye(n_samples)).all()
    assert_allclose(task.inputs @ task.inputs.T / task.n_inputs, np.eye(n_samples), atol=1e-14)
    counts = np.bincount(task.labels, minlength=len(weights))
    assert counts.sum() == n_samples and counts.min() > 0 and (counts == task.class_counts).all()
    assert np.abs(counts - shares).max() < 1 + 1e-9
    assert (np.diff(task.labels) >= 0).all()
    assert (task.targets == np.eye(len(weights))[task.labels]).all()
    assert task.n_inputs == n_samples + extra and task.n_outputs == len(weights)


def test_inputs_are_as_many_dimensions_as_samples_unless_said_otherwise():
    assert flt.OrthogonalClassification(4, (0.5, 0.5)).n_inputs == 4


@pytest.mark.parametrize(
    ("n_samples", "class_ratios", "counts"),
    [
        (60, (0.5, 0.25, 0.25), [30, 15, 15]),
        (10, (0.35, 0.35, 0.3), [4, 3, 3]),  # 3.5, 3.5, 3: a tie goes to the earlier class
        (5, (0.5, 0.5), [3, 2]),
        (7, (0.25, 0.25, 0.25, 0.25), [2, 2, 2, 1]),
        (10, (0.44, 0.26, 0.3), [4, 3, 3]),  # 4.4, 2.6, 3
        (11, (0.12, 0.44, 0.44), [1, 5, 5]),  # 1.32, 4.84, 4.84
        (3, (1 / 3, 1 / 3, 1 / 3), [1, 1, 1]),
        (10, (0.1,) * 10, [1] * 10),
        (100, (0.29, 0.57, 0.14), [29, 57, 14]),  # 0.29 * 100 is below 29 in floating point
    ],
)
def test_counts_by_largest_remainder(n_samples, class_ratios, counts):
    assert flt.OrthogonalClassification(n_samples, class_ratios).class_counts.tolist() == counts


@pytest.mark.parametrize(
    ("n_samples", "class_ratios", "empty"), [(3, (0.9, 0.1), 1), (2, (0.2, 0.4, 0.4), 0)]
)
def test_an_empty_class_is_named(n_samples, class_ratios, empty):
    with pytest.raises(ValueError, match=rf"^n_samples: .*got {n_samples}, which leaves class {empty} empty"):
        flt.OrthogonalClassification(n_samples, class_ratios)


def test_equal_descriptions_are_equal_tasks():
    assert orthogonal() == orthogonal() and hash(orthogonal()) == hash(orthogonal())
    assert orthogonal() != evolve(orthogonal(), n_samples=8)
    assert flt.OrthogonalClassification(4, [0.5, 0.5]) == flt.OrthogonalClassification(
        4, np.array([0.5, 0.5])
    )


def test_one_more_sample_is_another_fingerprint():
    task = orthogonal()
    for change in ({"n_samples": 8}, {"n_inputs": 10}, {"class_ratios": (0.6, 0.2, 0.2)}):
        assert evolve(task, **change).fingerprint != task.fingerprint


# Digits ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return flt.Digits()


def test_digits_are_scaled_to_mean_square_one(digits):
    assert digits.inputs.shape == (100, 64) and digits.test_inputs.shape == (100, 64)
    for images in (digits.inputs, digits.test_inputs):
        assert_allclose((images**2).mean(1), 1.0, rtol=1e-12)
    assert_allclose(np.diagonal(digits.gram()), 1.0, rtol=1e-12)


def test_gram_of_the_digits_has_the_rank_of_the_pixels_in_use(digits):
    values = np.linalg.eigvalsh(digits.gram())
    assert (values > 1e-10 * values[-1]).sum() == 51


def test_training_and_test_digits_are_disjoint(digits):
    images = np.concatenate([digits.inputs, digits.test_inputs])
    assert len(np.unique(images.round(9), axis=0)) == 200


def test_digits_are_ordered_by_class_and_one_hot(digits):
    assert (np.diff(digits.labels) >= 0).all() and set(digits.labels) == {0, 1, 2}
    assert (digits.targets == np.eye(3)[digits.labels]).all()
    assert (digits.test_targets.sum(1) == 1).all() and (digits.test_targets.sum(0) > 0).all()


def test_digits_are_the_same_again_by_their_seed(digits):
    assert digits == flt.Digits() and digits.fingerprint == flt.Digits().fingerprint
    assert digits.fingerprint != flt.Digits(seed=1).fingerprint


def test_labels_count_the_digits_in_the_order_given():
    """Sorted rows: the images of a digit are the same set wherever it stands."""
    one = flt.Digits(classes=(3, 8), n_samples=300, n_test=0)
    other = flt.Digits(classes=(8, 3), n_samples=300, n_test=0)
    # 1 is 8 in the first and 3 in the second; a nearest mean tells them apart.
    mean = one.inputs[one.labels == 1].mean(0)
    assert (
        (other.inputs[other.labels == 0] @ mean).mean()
        > 0.2
        > (other.inputs[other.labels == 1] @ mean).mean()
    )


def test_features_are_centred_over_all_images():
    """Centred first, then scaled: weighted by their norms the features have mean zero."""
    from sklearn.datasets import load_digits

    pixels, digit = load_digits(return_X_y=True)
    chosen = pixels[np.isin(digit, (0, 1))]
    centred = chosen - chosen.mean(0)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True))
    task = flt.Digits(classes=(0, 1), n_samples=len(chosen), n_test=0)
    assert_allclose(np.sort(task.inputs, axis=0), np.sort(expected, axis=0), atol=1e-12)


def test_no_test_set(digits):
    task = flt.Digits(n_test=0)
    assert task.test_inputs is None and task.test_targets is None
    assert (task.inputs == digits.inputs).all()


def test_too_many_images_or_too_few_of_a_class_are_refused():
    with pytest.raises(ValueError, match=r"^n_samples: expected n_samples \+ n_test of at most 5\d\d"):
        flt.Digits(n_samples=500, n_test=100)
    with pytest.raises(
        ValueError, match="^n_samples: expected enough images to draw every class, got 2, without"
    ):
        flt.Digits(n_samples=2, n_test=0)


# A user's task -----------------------------------------------------------------------------------


@frozen
class Waves(flt.Task):
    """Points on a line, seen through cosines; regression onto a slower wave."""

    n_points: int = 6
    n_waves: int = 4

    @property
    def inputs(self):
        x = np.linspace(0, 1, self.n_points)
        return np.cos(np.pi * np.arange(self.n_waves) * x[:, None])

    @property
    def targets(self):
        return np.sin(3 * np.linspace(0, 1, self.n_points))[:, None]


def test_a_user_s_task_needs_inputs_and_targets_only():
    task = Waves()
    assert (task.n_samples, task.n_inputs, task.n_outputs) == (6, 4, 1)
    assert task.labels is None and task.test_inputs is None and task.test_targets is None
    assert_allclose(task.gram(), task.inputs @ task.inputs.T / 4)
    assert task.fingerprint == Waves().fingerprint != Waves(n_waves=5).fingerprint
    solution = flt.DeepNetworkPosterior(task, flt.Linear(), width=50, temperature=0.01).solve()
    assert solution.predict().mean.shape == (6, 1)


def test_a_task_without_targets_is_abstract():
    class Half(flt.Task):
        inputs = np.eye(2)

    with pytest.raises(TypeError, match="targets"):
        Half()


@frozen(eq=False)
class Made(flt.Task):
    """A user's task of any content."""

    inputs: object = field(factory=lambda: np.eye(3))
    targets: object = field(factory=lambda: np.ones((3, 1)))
    labels: object = None
    test_inputs: object = None
    test_targets: object = None
    matrix: object = None

    def gram(self):
        return super().gram() if self.matrix is None else self.matrix


BROKEN = {
    "inputs of rank 1": ("inputs", {"inputs": np.ones(3)}),
    "inputs in a list": ("inputs", {"inputs": np.eye(3).tolist()}),
    "inputs in a tensor": ("inputs", {"inputs": torch.eye(3, dtype=torch.float64)}),
    "single precision": ("inputs", {"inputs": np.eye(3, dtype=np.float32)}),
    "inputs with nan": ("inputs", {"inputs": np.full((3, 3), np.nan)}),
    "no targets": ("targets", {"targets": None}),
    "targets of rank 1": ("targets", {"targets": np.ones(3)}),
    "integer targets": ("targets", {"targets": np.array([0, 1, 2])}),
    "too few targets": ("targets", {"targets": np.ones((2, 1))}),
    "one class": ("labels", {"labels": np.zeros(3, int)}),
    "labels in a list": ("labels", {"labels": [0, 1, 2]}),
    "too few labels": ("labels", {"labels": np.arange(2)}),
    "test inputs of another width": ("test_inputs", {"test_inputs": np.eye(2)}),
    "test targets alone": ("test_inputs", {"test_targets": np.ones((3, 1))}),
    "test targets of rank 1": ("test_targets", {"test_inputs": np.eye(3), "test_targets": np.ones(3)}),
    "gram of another shape": ("gram", {"matrix": np.eye(2)}),
    "gram with nan": ("gram", {"matrix": np.full((3, 3), np.nan)}),
    "no gram": ("gram", {"matrix": "none"}),
}


@pytest.mark.parametrize(("name", "content"), BROKEN.values(), ids=BROKEN.keys())
def test_a_user_s_task_that_does_not_fit_is_refused(name, content):
    flt.DeepNetworkPosterior(Made(), flt.Linear())
    with pytest.raises((TypeError, ValueError), match=rf"^(task\.)?{name}"):
        flt.DeepNetworkPosterior(Made(**content), flt.Linear())


def test_a_class_in_place_of_a_task_is_pointed_out():
    with pytest.raises(TypeError, match="^task: expected a Task, got .*call it"):
        flt.DeepNetworkPosterior(flt.Digits, flt.Linear())
