"""Training the whole encoder on few labels."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred import schedules
from tf_dpred.config import refuse
from tf_dpred.data import pipeline
from tf_dpred.data.preprocessing import Preprocessing
from tf_dpred.data.source import Source
from tf_dpred.data.views import ViewPair
from tf_dpred.evaluation import labelled, linear

# Learning rates per 256 images to choose from, by held-out labelled images.
RATES = (0.02, 0.1, 0.4)
EPOCHS, BATCH_SIZE = 30, 64
HELD_OUT = 0.2


def classifier(encoder: keras.Model, num_classes: int) -> keras.Model:
    """A new layer on an encoder: images -> logits [n, num_classes].

    Args:
      encoder: images -> representation [n, r].
      num_classes: of the labels.
    """
    images = keras.Input(encoder.input_shape[1:])
    logits = keras.layers.Dense(num_classes, name="classifier")(encoder(images))
    return keras.Model(images, logits, name="finetuned")


def train(
    encoder: keras.Model,
    source: Source,
    pair: ViewPair,
    *,
    rate: float,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> keras.Model:
    """Fine-tunes with SGD, Nesterov momentum 0.9, a cosine to 0 and no decay.

    BYOL's semi-supervised recipe (arXiv 2006.07733, appendix C.2). Random crops and
    flips; BatchNorm adapts. Call it under `strategy.scope()`.

    Args:
      encoder: square images -> representation; changed by the training.
      source: the labelled images.
      pair: the recipe that the encoder was trained with.
      rate: learning rate per 256 images.
      epochs: over `source`.
      batch_size: images of a step, at most those of `source`.
      seed: of the classifier's weights, the order and the crops.

    Returns:
      The trained model, images -> logits.
    """
    assert source.num_classes is not None  # labelled images have classes
    keras.utils.set_random_seed(seed)
    model = classifier(encoder, source.num_classes)
    steps = pipeline.steps_per_epoch(source, batch_size)
    peak = schedules.peak_learning_rate(rate, batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(peak, epochs * steps)
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    size = encoder.input_shape[1]
    model.fit(
        labelled.training_batches(source, pair, size, batch_size, seed=seed),
        epochs=epochs,
        steps_per_epoch=steps,
        shuffle=False,  # the batches are
        verbose=0,
    )
    return model


def accuracy(model: keras.Model, dataset: tf.data.Dataset) -> tuple[float, float]:
    """Top-1 and top-5 of a classifier over batches of (images, labels)."""
    top1, top5 = linear.accuracies(linear.inference(model), dataset)[0]
    return float(top1), float(top5)


def choose_rate(
    new_encoder,
    source: Source,
    pair: ViewPair,
    preprocessing: Preprocessing,
    **options,
) -> float:
    """The rate of `RATES` that is best on a held-out fifth of the labelled images.

    Args:
      new_encoder: makes a copy of the encoder, images -> representation.
      source: the labelled images, in memory.
      pair: as in `train`.
      preprocessing: of the held-out images.
      **options: of `train`.

    Raises:
      Refused: a class with a single image.
    """
    labels = labelled.labels_of(source)
    chosen = labelled.balanced_subset(labels, HELD_OUT, options["seed"])
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    if len(np.unique(labels[rest])) < len(np.unique(labels)):
        refuse(
            "eval_lr",
            None,
            "a number, or a larger --label_fraction; to choose a rate, some images of "
            "each class are held out",
            detail=f" with {len(labels)} labelled images of "
            f"{len(np.unique(labels))} classes",
        )
    kept, held = labelled.gather(source, rest), labelled.gather(source, chosen)
    options["batch_size"] = min(options["batch_size"], kept.num_examples)
    found = []
    for rate in RATES:
        model = train(new_encoder(), kept, pair, rate=rate, **options)
        size = model.input_shape[1]
        images = pipeline.evaluation_images(held, preprocessing, size, 256)
        found.append(accuracy(model, images)[0])
        logging.info("fine-tuning at rate %g: held-out top-1 %.4f", rate, found[-1])
    return RATES[linear.choose(RATES, found)]
