"""Linear classification of frozen features, by the two protocols of the field.

`features` is logistic regression on features of clean images, which are extracted once
(the DirectPred authors' probe for small images). `imagenet` trains on random crops, so
that every epoch runs the frozen encoder again, and chooses the learning rate on
held-out training images (BYOL, arXiv 2006.07733, appendix C).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

# Learning rates per 256 images that the `imagenet` protocol chooses from.
RATES: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1, 0.05)
FEATURES = {"epochs": 50, "batch_size": 128}
IMAGENET = {"epochs": 80, "batch_size": 1024}

Features = tuple[np.ndarray, np.ndarray]


def logistic_regression(
    train: Features,
    test: Features,
    num_classes: int,
    *,
    epochs: int = FEATURES["epochs"],
    batch_size: int = FEATURES["batch_size"],
    seed: int = 0,
) -> dict[str, Any]:
    """The `features` protocol: accuracy after the LAST epoch.

    Features are standardised by the training set. Adam 3e-4 with a decay of 1e-3
    inside the gradient (PyTorch's `weight_decay`), from zero weights. The authors
    report the best test accuracy over the epochs, which is optimistic; it is returned
    beside the last, under a name of its own.

    Args:
      train, test: (features [N, r], labels [N]).
      num_classes: of the labels.
      epochs: passes over the training features.
      batch_size: features of a step; the last of an epoch may be smaller.
      seed: of the order.

    Returns:
      `learning_rate`, `weight_decay`, `top1` and `top5` on the test features, and
      `train_top1`; `best_epoch`, the first with the best test accuracy, from 1, and
      `top1_of_best_epoch`.
    """
    from sklearn.preprocessing import StandardScaler

    rate, decay = 3e-4, 1e-3
    scaler = StandardScaler().fit(train[0])
    x, test_x = (scaler.transform(x).astype(np.float32) for x, _ in (train, test))
    keras.utils.set_random_seed(seed)
    # The gradient of decay/2 w^2 is decay w.
    penalty = keras.regularizers.L2(decay / 2)
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            keras.layers.Dense(
                num_classes,
                kernel_initializer="zeros",
                kernel_regularizer=penalty,
                bias_regularizer=penalty,
            ),
        ]
    )
    steps = -(-len(x) // batch_size)
    model.compile(
        keras.optimizers.Adam(rate, epsilon=1e-8),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=min(steps, 64),
        jit_compile=False,
    )
    predict = inference(model, tf.float32)
    on_train, on_test = (
        tf.data.Dataset.from_tensor_slices(examples).batch(4096)
        for examples in ((x, train[1]), (test_x, test[1]))
    )
    by_epoch: list[np.ndarray] = []
    after_each = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: by_epoch.append(accuracies(predict, on_test)[0])
    )
    model.fit(
        x,
        train[1],
        batch_size=batch_size,
        epochs=epochs,
        callbacks=[after_each],
        verbose=0,
    )
    best = int(np.argmax([top1 for top1, _ in by_epoch]))
    return {
        "learning_rate": rate,
        "weight_decay": decay,
        "train_top1": float(accuracies(predict, on_train)[0, 0]),
        "top1": float(by_epoch[-1][0]),
        "top5": float(by_epoch[-1][1]),
        "best_epoch": best + 1,
        "top1_of_best_epoch": float(by_epoch[best][0]),
    }


def inference(model: keras.Model, dtype: tf.DType = tf.uint8):
    """A model's inference mode as one graph for every batch size."""
    spec = tf.TensorSpec([None, *model.input_shape[1:]], dtype)
    return tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)


def accuracies(
    predict: Callable[[tf.Tensor], tf.Tensor], dataset: tf.data.Dataset
) -> np.ndarray:
    """Top-1 and top-5 accuracy, of several classifiers at once.

    Args:
      predict: images [n, ...] -> logits [n, heads, classes], or [n, classes] of one.
      dataset: batches of (images, labels [n]).

    Returns:
      [heads, 2]. With at most 5 classes the second is 1.
    """
    correct: Any = 0  # then [heads, 2]
    seen = 0
    for images, labels in dataset:
        logits = predict(images)
        if logits.shape.rank == 2:
            logits = logits[:, tf.newaxis]
        # in_top_k would count ties: with equal logits, all classes would be right.
        best = tf.math.top_k(logits, min(5, logits.shape[-1])).indices
        hit = best == tf.cast(labels, tf.int32)[:, tf.newaxis, tf.newaxis]
        top1, top5 = hit[..., 0], tf.reduce_any(hit, axis=-1)
        hits = tf.cast(tf.stack([top1, top5], axis=-1), tf.int64)
        correct = correct + tf.reduce_sum(hits, axis=0).numpy()
        seen += len(labels)
    return correct / seen


@keras.saving.register_keras_serializable("tf_dpred")
class Heads(keras.layers.Layer):
    """Independent linear classifiers of the same input: [n, r] -> [n, heads, classes].

    Args:
      heads: how many.
      classes: of each.
    """

    def __init__(self, heads: int, classes: int, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.classes = heads, classes

    def build(self, input_shape) -> None:
        """Zero weights: the problem is convex, and all heads start equal."""
        shape = [self.heads, input_shape[-1], self.classes]
        self.kernel = self.add_weight(shape=shape, initializer="zeros", name="kernel")
        shape = [self.heads, self.classes]
        self.bias = self.add_weight(shape=shape, initializer="zeros", name="bias")

    def call(self, x):
        return keras.ops.einsum("nr,grc->ngc", x, self.kernel) + self.bias

    def get_config(self) -> dict[str, Any]:
        own = {"heads": self.heads, "classes": self.classes}
        return {**super().get_config(), **own}


class WeightedCrossEntropy(keras.losses.Loss):
    """Sum over heads of weight * cross-entropy: labels [n], logits -> [n]."""

    def __init__(self, weights: Sequence[float]):
        super().__init__(name="cross_entropy")
        self.weights = tuple(weights)

    def call(self, labels, logits):
        labels = tf.cast(tf.reshape(labels, [-1, 1]), tf.int32)
        labels = tf.repeat(labels, len(self.weights), axis=1)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return tf.linalg.matvec(losses, tf.constant(self.weights, losses.dtype))


def frozen_classifiers(
    encoder: keras.Model, num_classes: int, rates: Sequence[float], total_steps: int
) -> keras.Model:
    """The `imagenet` protocol's model: one linear classifier for each learning rate.

    SGD with Nesterov momentum 0.9, a cosine to 0 and no decay. Its update is linear
    in the gradient and the heads share no weight, so a head's own rate is a factor
    on its loss: all rates train in one pass over the encoder.

    Args:
      encoder: images -> representation [n, r]; frozen here, BatchNorm statistics
        included.
      num_classes: of the labels.
      rates: peak learning rates, one a head.
      total_steps: of the run.

    Returns:
      A compiled model, images -> logits [n, len(rates), num_classes]; make it under
      `strategy.scope()`.
    """
    encoder.trainable = False
    images = keras.Input(encoder.input_shape[1:])
    heads = Heads(len(rates), num_classes, name="heads")
    model = keras.Model(images, heads(encoder(images, training=False)))
    schedule = keras.optimizers.schedules.CosineDecay(max(rates), total_steps)
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True),
        WeightedCrossEntropy([rate / max(rates) for rate in rates]),
        jit_compile=False,
    )
    return model


def choose(rates: Sequence[float], accuracy: Sequence[float]) -> int:
    """Index of the best accuracy; of several, that of the smallest rate."""
    best = max(range(len(rates)), key=lambda i: (accuracy[i], -rates[i]))
    shown = ", ".join(f"{r:g}: {a:.4f}" for r, a in zip(rates, accuracy, strict=True))
    logging.info("learning rate %g by held-out top-1 (%s)", rates[best], shown)
    return best
