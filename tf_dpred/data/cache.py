"""Images of one size, decoded once and held in memory."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_dpred.config import refuse
from tf_dpred.data.bad_images import named_errors
from tf_dpred.data.source import Example, Source, indexed, reordered


def read(source: Source) -> np.ndarray:
    """All images of a source, in stored order, uint8 [N, H, W, 3].

    Raises:
      Refused: the images are not of one size.
    """
    loaded = source.examples(None).map(
        source.load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    images: np.ndarray | None = None
    with named_errors():
        for index, (image, _) in enumerate(loaded.as_numpy_iterator()):
            if images is None:
                images = np.empty((source.num_examples, *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                height, width = images.shape[1:3]
                refuse(
                    "cache",
                    "device",
                    "none, or images of one size",
                    detail=f", and image {index} of {source.name} {source.split} is of "
                    f"{image.shape[0]} x {image.shape[1]} pixels where the first is of "
                    f"{height} x {width}",
                )
            images[index] = image
    assert images is not None  # a source has examples
    return images


def indices_of(source: Source) -> Source:
    """A source in whose examples the index, int64, takes the place of the image.

    The order of an epoch is that of the source, or of `indexed`: shuffled completely.
    """

    def load(example: Example) -> tuple[tf.Tensor, tf.Tensor]:
        return example["index"], example["label"]

    indices = indexed(
        source.name,
        source.split,
        lambda index: {"index": index},
        source.num_examples,
        None,
        source.num_classes,
        fingerprint=source.fingerprint,
        load=load,
    )
    return reordered(indices, source.order) if source.order else indices
