"""Each image its own operation: branching and computing all give the same."""

import pytest
import tensorflow as tf

from tf_dpred.data import choice


def test_select__each_image_its_own_operation():
    operations = [lambda images: images + 1.0, lambda images: -images]
    images = tf.reshape(tf.range(1.0, 5.0), [4, 1, 1, 1])
    result = choice.select(tf.constant([1, 0, 2, 1]), operations, images)
    # An index that no operation has leaves the image alone.
    assert tf.squeeze(result).numpy().tolist() == [-1.0, 3.0, 3.0, -4.0]


def test_branch__runs_the_chosen_one_alone():
    run = []

    def spy(name, factor):
        def operation(images):
            run.append(name)
            return images * factor

        return operation

    operations = [spy("first", 2.0), spy("second", 3.0)]
    result = choice.branch(tf.constant([1]), operations, tf.ones([1, 1, 2, 2]))
    assert float(result[0, 0, 0, 0]) == 3.0 and run == ["second"]


def test_branch__takes_one_image():
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        choice.branch(tf.constant([0, 0]), [tf.identity], tf.ones([2, 1, 2, 2]))


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.0, [1, 1, 1]), (0.4, [-1, 1, 1]), (0.5, [-1, -1, 1]), (1.0, [-1, -1, -1])],
)
def test_sometimes__below_the_probability(probability, expected):
    draw = tf.constant([0.0, 0.45, 0.999])
    images = tf.ones([3, 1, 2, 2])
    arguments = (probability, draw, lambda x: -x, images, choice.select)
    assert choice.sometimes(*arguments)[:, 0, 0, 0].numpy().tolist() == expected
    for i in range(3):
        arguments = (probability, draw[i : i + 1], lambda x: -x, images[:1])
        one = choice.sometimes(*arguments, choice.branch)
        assert float(one[0, 0, 0, 0]) == expected[i]
