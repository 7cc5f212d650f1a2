"""Argument checks: what passes comes out in one form, what does not is named."""

import pickle
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from attrs import field, frozen
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from fltheory.numerics.validation import (
    check_array,
    check_choice,
    check_flag,
    check_instance,
    check_integer,
    check_labels,
    check_real,
    check_sequence,
    checked,
    describe,
    fingerprint,
    fits,
    read_only,
    shape_text,
)


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no repr")


# Numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float32(2), np.float64(2), np.int8(2), np.uint64(2), Fraction(2)]
)
def test_real_numbers_become_floats(value):
    number = check_real("x", value)
    assert type(number) is float and number == 2.0


@given(st.floats(allow_nan=False), st.floats(-1e3, 1e3), st.booleans(), st.booleans())
def test_real_numbers_pass_if_they_are_in_range(value, minimum, exclusive, allow_inf):
    inside = value > minimum if exclusive else value >= minimum
    if inside and (allow_inf or value < np.inf):
        assert check_real("x", value, minimum=minimum, exclusive=exclusive, allow_inf=allow_inf) == value
    else:
        with pytest.raises(ValueError, match="^x: expected a .*real number .*got float"):
            check_real("x", value, minimum=minimum, exclusive=exclusive, allow_inf=allow_inf)


@pytest.mark.parametrize(
    "value", [True, np.True_, "2", None, 2j, Decimal(2), [2.0], np.array(2.0), np.ones(1)]
)
def test_what_is_no_real_number_is_a_type_error(value):
    with pytest.raises(TypeError, match="^x: expected a finite real number, got "):
        check_real("x", value)


NOT_FINITE = {
    "nan": np.nan,
    "inf": np.inf,
    "-inf": -np.inf,
    "1e400": 10**400,
    "1e5000": 10**5000,
    "fraction": Fraction(10**400),
}


@pytest.mark.parametrize("value", NOT_FINITE.values(), ids=NOT_FINITE.keys())
def test_what_is_not_finite_is_a_value_error(value):
    with pytest.raises(ValueError, match="^x: expected a finite real number, got "):
        check_real("x", value)


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_infinity_may_be_allowed_but_not_its_negative_nor_nan(value):
    assert check_real("x", np.inf, allow_inf=True) == np.inf
    with pytest.raises(ValueError, match="^x: expected a real number, got "):
        check_real("x", value, allow_inf=True)


@given(st.integers(), st.integers(-9, 9), st.none() | st.integers(10, 99))
def test_integers_pass_if_they_are_in_range(value, minimum, maximum):
    if minimum <= value and (maximum is None or value <= maximum):
        assert check_integer("n", value, minimum=minimum, maximum=maximum) == value
    else:
        with pytest.raises(ValueError, match=f"^n: expected an integer of at least {minimum}"):
            check_integer("n", value, minimum=minimum, maximum=maximum)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint16])
def test_integers_become_python_s(kind):
    assert type(check_integer("n", kind(3))) is int


@pytest.mark.parametrize("value", [True, np.False_, 2.0, np.float64(2), "2", None, [2], np.array(2), 2j])
def test_what_is_no_integer_is_a_type_error(value):
    with pytest.raises(TypeError, match="^n: expected an integer of at least 1, got "):
        check_integer("n", value)


# Choices, flags, instances -----------------------------------------------------------------------


def test_choices():
    assert check_choice("mode", "a", ("a", "b")) == "a"
    with pytest.raises(ValueError, match="^mode: expected one of 'a', 'b', got str 'c'"):
        check_choice("mode", "c", ("a", "b"))
    for value in (1, ["a"], {"a"}, np.array("a"), b"a"):
        with pytest.raises(TypeError, match="^mode: expected one of 'a', 'b', got "):
            check_choice("mode", value, ("a", "b"))


def test_flags():
    assert check_flag("f", True) is True and check_flag("f", None, optional=True) is None
    for value in (1, 0, "yes", np.array(True)):
        with pytest.raises(TypeError, match="^f: expected True, False or None, got "):
            check_flag("f", value, optional=True)
    with pytest.raises(TypeError, match="^f: expected True or False, got NoneType None"):
        check_flag("f", None)


def test_instances():
    assert check_instance("s", "a", str) == "a" and check_instance("s", None, str, optional=True) is None
    with pytest.raises(TypeError, match="^s: expected a str, got int 1$"):
        check_instance("s", 1, str)
    with pytest.raises(TypeError, match=r"^s: .*\(a class, not an instance: call it\)$"):
        check_instance("s", str, str)


# Arrays ------------------------------------------------------------------------------------------

finite = {"allow_nan": False, "allow_infinity": False}


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2), elements=finite))
def test_arrays_become_read_only_copies(array):
    for given_array in (array, array.T, array[::-1]):
        found = check_array("x", given_array, ("P", "m"))
        assert found.dtype == np.float64 and found.flags.c_contiguous and not found.flags.writeable
        assert (found == given_array).all() and not np.shares_memory(found, given_array)


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2], [3, 4]],
        ((1, 2), (3, 4)),
        np.array([[1, 2], [3, 4]], np.int8),
        np.array([[1, 2], [3, 4]], np.float16),
        torch.tensor([[1, 2], [3, 4]]),
        np.ma.masked_array([[1, 2], [3, 4]], mask=False),
    ],
)
def test_whatever_is_a_real_array_passes(value):
    assert check_array("x", value, ("P", 2)).tolist() == [[1.0, 2.0], [3.0, 4.0]]


BAD_TYPES = {
    "none": None,
    "string": "x",
    "number list of strings": [["1", "2"]],
    "complex": np.ones((1, 2), complex),
    "bool": np.ones((1, 2), bool),
    "object": np.array([[1.0, None]]),
    "ragged": [[1.0], [1.0, 2.0]],
    "dates": np.array([["2020-01-01", "2020-01-02"]], "datetime64[D]"),
    "records": np.zeros((1, 2), [("a", float)]),
    "dict": {"a": 1},
    "set": {1.0, 2.0},
    "needs gradient": torch.ones(1, 2, requires_grad=True),
    "bfloat16": torch.ones(1, 2, dtype=torch.bfloat16),
    "sparse": torch.ones(1, 2).to_sparse(),
    "unprintable": Unprintable(),
}


@pytest.mark.parametrize("value", BAD_TYPES.values(), ids=BAD_TYPES.keys())
def test_what_is_no_real_array_is_a_type_error(value):
    with pytest.raises(TypeError, match=r"^x: expected a finite real array of shape \(P, 2\)"):
        check_array("x", value, ("P", 2))


BAD_VALUES = {
    "number": 1.0,
    "rank 1": [1.0, 2.0],
    "rank 3": [[[1.0, 2.0]]],
    "width": [[1.0, 2.0, 3.0]],
    "empty": np.empty((0, 2)),
    "nan": [[1.0, np.nan]],
    "inf": [[1.0, -np.inf]],
    "masked": np.ma.masked_array([[1.0, 2.0]], mask=[[True, False]]),
    "above float64": np.full((1, 2), np.finfo(np.longdouble).max),
}


@pytest.mark.parametrize("value", BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_an_array_of_wrong_shape_or_content_is_a_value_error(value):
    with pytest.raises(ValueError, match=r"^x: expected a finite real array of shape \(P, 2\).*, got "):
        check_array("x", value, ("P", 2))


@pytest.mark.parametrize(
    ("actual", "shape", "is_right"),
    [
        ((3, 2), (3, 2), True),
        ((3, 2), ("P", 2), True),
        ((0, 2), ("P", 2), False),
        ((0, 2), (0, 2), True),
        ((3,), ("P", 2), False),
        ((3, 2), ("P",), False),
        ((3,), (3, ...), True),
        ((3, 4, 0), (3, ...), True),
        ((2, 3), (3, ...), False),
        ((), (3, ...), False),
        ((), (...,), True),
        ((), (), True),
    ],
)
def test_shapes_that_fit(actual, shape, is_right):
    assert fits(actual, shape) is is_right


def test_shapes_are_written_as_tuples_are():
    shapes = [(), (2,), ("P", 2), ("C", ...)]
    assert [shape_text(shape) for shape in shapes] == ["()", "(2,)", "(P, 2)", "(C, ...)"]


def test_booleans_pass_where_they_are_allowed():
    array = check_array("x", [True, False], (2,), allow_bool=True)
    assert array.dtype == np.float64 and array.tolist() == [1.0, 0.0]
    with pytest.raises(TypeError, match="^x: expected a finite real array"):
        check_array("x", [True, False], (2,))


def test_a_message_never_prints_an_array():
    with pytest.raises(ValueError, match="got an array of shape") as info:
        check_array("x", np.ones(10_000), ("P", "m"))
    assert len(str(info.value)) < 150


# Labels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64])
def test_labels_become_read_only_int64(kind):
    given_labels = np.array([0, 2, 1], kind)
    labels = check_labels("y", given_labels)
    assert labels.dtype == np.int64 and labels.tolist() == [0, 2, 1] and not labels.flags.writeable
    given_labels[0] = 5
    assert labels[0] == 0


BAD_LABELS = {
    "none": None,
    "floats": [0.0, 1.0],
    "bools": [True, False],
    "strings": ["a", "b"],
    "ragged": [[0], [0, 1]],
    "number": 1,
    "rank 2": [[0, 1]],
    "empty": np.empty(0, int),
    "one class": [3, 3, 3],
    "masked": np.ma.masked_array([0, 1, 2], mask=[1, 0, 0]),
    "beyond int64": np.array([0, 2**63], np.uint64),
}


@pytest.mark.parametrize("value", BAD_LABELS.values(), ids=BAD_LABELS.keys())
def test_bad_labels_are_refused(value):
    with pytest.raises((TypeError, ValueError), match="^y: expected "):
        check_labels("y", value)


def test_labels_must_be_as_many_as_asked_for():
    assert len(check_labels("y", [0, 1], 2)) == 2
    with pytest.raises(ValueError, match=r"^y: expected integer class labels of shape \(3,\), got"):
        check_labels("y", [0, 1], 3)


# Sequences ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [[1, 2], (1, 2), np.array([1, 2]), range(1, 3), (i for i in (1, 2))])
def test_sequences_become_tuples(value):
    assert check_sequence("s", value, check_integer) == (1, 2)


@pytest.mark.parametrize("value", ["12", b"12", 12, None, {1, 2}, {1: 1}, np.array(1)], ids=repr)
def test_what_has_no_order_is_no_sequence(value):
    with pytest.raises(TypeError, match="^s: expected a sequence, got "):
        check_sequence("s", value, check_integer)


def test_entries_are_named_by_their_place():
    with pytest.raises(TypeError, match=r"^s\[1\]: expected an integer"):
        check_sequence("s", [1, "2"], check_integer)
    with pytest.raises(ValueError, match="^s: expected at least one entry"):
        check_sequence("s", [], check_integer)


# Converters and helpers --------------------------------------------------------------------------


@frozen
class Record:
    size: int = field(converter=checked(check_integer, minimum=3))


def test_converters_know_their_field():
    assert Record(np.int64(4)) == Record(4) == pickle.loads(pickle.dumps(Record(4)))
    with pytest.raises(ValueError, match="^size: expected an integer of at least 3, got int 2"):
        Record(2)


def test_descriptions_are_short():
    for value in ("x" * 500, list(range(500)), 10**300, 10**5000, Unprintable(), np.ones(99), torch.ones(99)):
        assert len(describe(value)) < 90


def test_read_only_refuses_writing():
    array = read_only([[1, 2]])
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 2


parts = st.lists(
    st.none()
    | st.integers(-3, 3)
    | hnp.arrays(np.float64, hnp.array_shapes(max_dims=2), elements=st.integers(0, 2)),
    max_size=3,
)


def same(one, two):
    return len(one) == len(two) and all(
        type(a) is type(b) and np.shape(a) == np.shape(b) and np.array_equal(a, b)
        for a, b in zip(one, two, strict=True)
    )


@given(parts, parts)
def test_fingerprints_are_equal_for_equal_content_only(one, two):
    assert fingerprint(*one) == fingerprint(*[p.copy() if isinstance(p, np.ndarray) else p for p in one])
    assert (fingerprint(*one) == fingerprint(*two)) == same(one, two)


def test_fingerprints_see_shape_dtype_and_order():
    row = np.arange(4.0)
    square = row.reshape(2, 2)
    assert len({fingerprint(a) for a in (row, square, square.T, row.astype(np.float32), row[::-1])}) == 5
    assert fingerprint(square.T) == fingerprint(square.T.copy())
