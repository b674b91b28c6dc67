"""What may fail: all of it as it is, or something else in its place."""

import pytest
import tensorflow as tf

from tf_dpred.data import attempts


def half(number, name):
    """Fails for odd numbers."""
    check = tf.debugging.Assert(number % 2 == 0, ["odd"])
    with tf.control_dependencies([check]):
        return number // 2, name + "/half"


def minus(number, name):
    return -number, name + "/minus"


def mapped(numbers, otherwise=minus):
    """Inside tf.data, where it is used."""
    elements = (numbers, [f"{n}" for n in numbers])
    stream = tf.data.Dataset.from_tensors(elements).map(
        lambda *parts: attempts.map_or(half, otherwise, *parts)
    )
    assert [spec.shape for spec in stream.element_spec] == [(len(numbers),)] * 2
    numbers, names = stream.get_single_element()
    return numbers.numpy().tolist(), [name.decode() for name in names.numpy()]


def test_map_or__each_succeeds():
    assert mapped([4, 8, 2]) == ([2, 4, 1], ["4/half", "8/half", "2/half"])


@pytest.mark.parametrize("numbers", [[3, 8, 2], [4, 8, 3], [1, 3, 5], [7]])
def test_map_or__one_fails(numbers):
    assert mapped(numbers) == ([-n for n in numbers], [f"{n}/minus" for n in numbers])


def test_map_or__an_error_in_place_of_it_is_raised():
    with pytest.raises(tf.errors.InvalidArgumentError, match="odd"):
        mapped([2, 3], otherwise=half)


@pytest.mark.parametrize(("numbers", "expected"), [([1, 3, 8, 6], 4), ([1, 3], 7)])
def test_single_element_or__the_first_that_succeeds(numbers, expected):
    halves = tf.data.Dataset.from_tensor_slices(numbers).map(
        lambda number: half(number, "")[0]
    )
    assert int(attempts.single_element_or(halves, 7)) == expected
