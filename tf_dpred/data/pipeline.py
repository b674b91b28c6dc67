"""From a source to batches: random views for training, clean images otherwise.

The training stream is a function of (seed, epoch, step) alone. It can therefore start
at any step of any epoch and be equal, bit for bit, to the one that started at 0.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.config import Config, refuse
from tf_dpred.data import attempts, random_views
from tf_dpred.data.own_views import OwnViews
from tf_dpred.data.preprocessing import Preprocessing
from tf_dpred.data.random_views import NUM_DRAWS
from tf_dpred.data.source import Example, Load, Source, Stored
from tf_dpred.data.views import ViewSpec

# Images are prepared in chunks of at most so many pixels and images. Many small images
# go together, since each operation costs time; few large ones, since they need memory.
CHUNK_PIXELS = 16 * 224 * 224
CHUNK_IMAGES = 128
# A chunk is prepared twice if one of its images cannot be used; so it is smaller.
ATTEMPTED_IMAGES = 16

# Batches that wait for the training step. tf.data would let their number grow, and the
# memory with it, whenever the step waits for the input; but then more do not help.
PREFETCHED = 4

# Examples or chunks that are prepared at the same time.
PARALLEL_CALLS = tf.data.AUTOTUNE

# The random numbers of so many examples are drawn by one operation.
DRAWN_AT_ONCE = 256

# Nothing here needs AutoGraph, which doubles the time to build a pipeline.
_as_it_is = tf.autograph.experimental.do_not_convert


# Images of one batch where features are computed.
EVALUATION_BATCH = 256
# Images whose mean and standard deviation `--normalize=data` takes.
MEASURED = 512


def steps_per_epoch(source: Source, batch_size: int, keep_last: bool = False) -> int:
    """Number of batches in an epoch.

    Args:
      source: the images.
      batch_size: of a full batch.
      keep_last: a smaller batch ends the epoch; else the rest, which fills no batch, is
        left out.

    Raises:
      Refused: there is no full batch, or the smaller one is a single image, of which
        BatchNorm has no statistics.
    """
    steps, rest = divmod(source.num_examples, batch_size)
    if keep_last and rest == 1:
        refuse(
            "keep_last_batch",
            True,
            f"false with a --batch_size that leaves one image, as {batch_size} does of "
            f"the {source.num_examples} of {source.name} {source.split}",
        )
    steps += keep_last and rest > 1
    if not steps:
        refuse(
            "batch_size",
            batch_size,
            f"2 to {source.num_examples}, the images of {source.name} {source.split}; "
            "or more images (--data_dir, --split, --train_size)",
        )
    return steps


def check_last_batch(config: Config, replicas: int) -> None:
    """Refuses `--keep_last_batch` on several devices, which divide every batch."""
    if config.data.keep_last_batch and replicas > 1:
        accepted = f"false on {replicas} devices, which divide every batch"
        refuse("keep_last_batch", True, accepted)


def training_views(
    source: Source,
    specs: Sequence[ViewSpec] | OwnViews,
    image_size: int,
    batch_size: int,
    *,
    seed: int,
    start_epoch: int = 0,
    start_step: int = 0,
    share: tuple[int, int] = (0, 1),
    micro_batches: int = 1,
    replicas: int = 1,
    distorted: bool = True,
    cropped: bool = True,
    labels: bool = False,
    keep_last: bool = False,
) -> tf.data.Dataset:
    """Random views of each image, epoch after epoch, without end.

    Every epoch has its own order, and no example occurs twice in it.

    Args:
      source: the images.
      specs: of the n views of each image: a `ViewPair`, one spec, or a user's two.
      image_size: side S of a view in pixels.
      batch_size: examples B in a batch.
      seed: of the order and of the views.
      start_epoch, start_step: where the stream begins, both from 0. What comes before
        is neither decoded nor augmented. `start_step` may exceed an epoch.
      share: (w, m): only the w-th of m equal parts of each batch. The m processes of a
        run together prepare what one of them would.
      micro_batches, replicas: the batch is divided over so many replicas in order, and
        each divides its rows into so many micro-batches. With more than one of both,
        rows are ordered such that each micro-batch holds the same examples, over all
        replicas, as it does on one.
      distorted: False leaves flip, colour and blur to `device_views`, on the device
        that trains.
      cropped: False, with `distorted` False: leaves the crops to it as well, of images
        of one size.
      labels: True adds the labels to each batch.
      keep_last: True ends an epoch with a smaller batch of the examples that fill none,
        which are left out otherwise. Only without `share`, `micro_batches` and
        `replicas`, which divide every batch.

    Returns:
      The n views, uint8 [B / m, S, S, 3] each. Not distorted, they are crops, and their
      n draws follow, float32 [B / m, NUM_DRAWS] each. Not cropped, what the source
      loads takes the place of the n crops. The labels, int64 [B / m], come last.

    Raises:
      Refused: see `steps_per_epoch`.
    """
    steps = steps_per_epoch(source, batch_size, keep_last)
    missing = max(steps * batch_size - source.num_examples, 0)
    part, parts = share
    own_size = batch_size // parts
    micro_size = batch_size // micro_batches
    piece = own_size // micro_batches // replicas
    # Row r of what a process yields is row rows[r] of what it reads.
    grid = np.arange(own_size).reshape(micro_batches, replicas, piece)
    rows = grid.swapaxes(0, 1).reshape(-1)
    start_epoch, start_step = start_epoch + start_step // steps, start_step % steps
    own, pair = (specs, ()) if isinstance(specs, OwnViews) else (None, specs)
    draws_of = _seeds if own else functools.partial(_draws, n=len(pair))

    def epoch_examples(epoch: tf.Tensor) -> tf.data.Dataset:
        order_seed, view_seed = _epoch_seeds(seed, epoch)
        begun = tf.where(epoch == start_epoch, start_step, 0)
        skip = tf.cast(begun * batch_size, tf.int64)
        examples = source.examples(order_seed[0], skip)
        if missing:
            # The last batch is filled, so that all are made alike, and cut off below.
            fillers = source.examples(order_seed[0]).repeat().take(missing)
            examples = examples.concatenate(fillers)
        drawn = draws_of(view_seed, skip, steps * batch_size)
        # The draws are fewer than the examples and end the epoch.
        both = tf.data.Dataset.zip(examples, drawn)
        if parts > 1:
            share_size = micro_size // parts
            both = both.enumerate(skip).filter(
                lambda position, _: position % micro_size // share_size == part
            )
            both = both.map(lambda _, example_and_draws: example_and_draws)
        return both

    def crops(load: Load, example: Example, draws: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image, label = load(example)
        if own:
            made = own(image, draws)
        elif cropped:
            images = random_views.random_crops(image, pair, image_size, draws)
            made = (*images, *tf.unstack(draws))
        else:
            made = (tf.ensure_shape(image, _shape_of(source)), *tf.unstack(draws))
        return (*made, *([label] if labels else []))

    def on_host(*parts: tf.Tensor) -> tuple[tf.Tensor, ...]:
        n = len(pair)
        images, draws, rest = parts[:n], parts[n : 2 * n], parts[2 * n :]
        made = (
            random_views.distort_each(spec)(image, drawn)
            for spec, image, drawn in zip(pair, images, draws, strict=True)
        )
        return (*made, *rest)

    def cut(number: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        is_last = number % steps == steps - 1
        size = tf.where(is_last, batch_size - missing, batch_size)
        return tuple(tensor[:size] for tensor in batch)

    def divided(*batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tuple(tf.gather(tensor, rows) for tensor in batch)

    parallel = {"num_parallel_calls": PARALLEL_CALLS, "deterministic": True}
    epochs = tf.data.Dataset.range(start_epoch, tf.int64.max)
    batches = epochs.flat_map(_as_it_is(epoch_examples))
    # Stored images are quickly decoded again.
    quick = source.attempt is None or isinstance(source.attempt, Stored)
    most = CHUNK_IMAGES if quick else ATTEMPTED_IMAGES
    chunk = chunk_size(own_size, image_size, most)
    loaded = functools.partial(crops, source.load)
    if source.attempt is None:
        batches = batches.map(_as_it_is(loaded), **parallel)
        batches = batches.batch(chunk, drop_remainder=True)
    else:
        # An attempt costs as much for one file as for a chunk of them.
        attempted = functools.partial(crops, source.attempt)

        def all_or_loaded(examples: Example, drawn: tf.Tensor) -> tuple[tf.Tensor, ...]:
            guarded = source.guard(examples) if source.guard else examples
            return attempts.map_or(attempted, loaded, guarded, drawn)

        batches = batches.batch(chunk, drop_remainder=True)
        batches = batches.map(_as_it_is(all_or_loaded), **parallel)
    if distorted and not own:
        batches = batches.map(_as_it_is(on_host), **parallel)
    batches = batches.rebatch(own_size, drop_remainder=True)
    if missing:
        batches = batches.enumerate(start_step).map(_as_it_is(cut))
    if micro_batches > 1 and replicas > 1:
        batches = batches.map(_as_it_is(divided))
    return batches.prefetch(PREFETCHED).with_options(_options())


def _shape_of(source: Source) -> list[int]:
    """Of what a source of images of one size, or of their indices, loads."""
    return [] if source.image_size is None else [*source.image_size, source.channels]


def first_images(
    source: Source,
    preprocessing: Preprocessing,
    image_size: int,
    count: int,
    *,
    seed: int,
) -> np.ndarray:
    """The first images of a training stream as evaluation sees them.

    Returns:
      uint8 [count, S, S, 3]: of the examples that `training_views` begins with.
    """
    order_seed, _ = _epoch_seeds(seed, tf.constant(0, tf.int64))
    images = (
        source.examples(order_seed[0])
        .take(count)
        .map(
            lambda example: preprocessing.evaluation_view(
                source.load(example)[0], image_size
            )
        )
    )
    return np.stack(list(images.as_numpy_iterator()))


def with_measured(config: Config, source: Source) -> Config:
    """`config` with the mean and std of the images where `--normalize=data` asks.

    They are those of the pixels of `MEASURED` images, as evaluation sees them.
    """
    data = config.data
    if data.normalize != "data" or None not in (data.mean, data.std):
        return config
    count = min(MEASURED, source.num_examples)
    images = first_images(
        source,
        Preprocessing.of(config),
        data.image_size,
        count,
        seed=config.training.seed,
    )
    pixels = images.reshape(-1, images.shape[-1]) / 255.0
    # A channel of one value has no deviation that could be divided by.
    found = {"mean": pixels.mean(axis=0), "std": pixels.std(axis=0).clip(1e-3)}
    texts = {
        name: getattr(data, name) or ",".join(f"{value:.4f}" for value in values)
        for name, values in found.items()
    }
    logging.info("--normalize=data: mean %s, std %s", texts["mean"], texts["std"])
    return Config.from_dict({**config.to_dict(), **texts})


def _epoch_seeds(seed: int, epoch: tf.Tensor) -> list[tf.Tensor]:
    """Seeds of an epoch's order and of its views."""
    return tf.unstack(tf.random.split(tf.random.fold_in([seed, 0], epoch), 2))


def _draws(seed: tf.Tensor, start: tf.Tensor, stop: int, n: int) -> tf.data.Dataset:
    """The random numbers of the examples from `start` to `stop`, in order.

    Each element, float32 [n, NUM_DRAWS] in [0, 1), depends on the seed and the place.
    """
    shape = [DRAWN_AT_ONCE, n, NUM_DRAWS]
    return _drawn(lambda s: tf.random.stateless_uniform(shape, s), seed, start, stop)


def _seeds(seed: tf.Tensor, start: tf.Tensor, stop: int) -> tf.data.Dataset:
    """As `_draws`: a seed of each example, int64 [2]."""
    options = {"minval": None, "maxval": None, "dtype": tf.int64}
    shape = [DRAWN_AT_ONCE, 2]
    draw = functools.partial(tf.random.stateless_uniform, shape, **options)
    return _drawn(draw, seed, start, stop)


def _drawn(
    draw: Callable[[tf.Tensor], tf.Tensor], seed: tf.Tensor, start: tf.Tensor, stop: int
) -> tf.data.Dataset:
    """What `draw` makes of a seed for each block, example after example."""
    first = start // DRAWN_AT_ONCE
    drawn = tf.data.Dataset.range(first, -(-stop // DRAWN_AT_ONCE)).map(
        lambda block: draw(tf.random.fold_in(seed, block))
    )
    before = first * DRAWN_AT_ONCE
    return drawn.unbatch().skip(start - before).take(stop - start)


def evaluation_images(
    source: Source, preprocessing: Preprocessing, image_size: int, batch_size: int
) -> tf.data.Dataset:
    """Clean images in stored order, once; the last batch may be smaller.

    Returns:
      (images, labels): uint8 [b, S, S, 3] and int64 [b], -1 without labels; b is at
      most `batch_size`.
    """

    def prepare(example: Example) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = source.load(example)
        return preprocessing.evaluation_view(image, image_size), label

    return (
        source.examples(None)
        .map(
            _as_it_is(prepare), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
        .with_options(_options())
    )


def chunk_size(batch_size: int, image_size: int, most: int) -> int:
    """The largest divisor of the batch size, at most `most`, within `CHUNK_PIXELS`.

    A divisor, so that a chunk holds the same examples wherever the stream starts.
    """
    most = max(1, min(most, CHUNK_PIXELS // image_size**2))
    return max(n for n in range(1, batch_size + 1) if batch_size % n == 0 and n <= most)


def _options() -> tf.data.Options:
    """Examples run in parallel, but each of their small operations on one thread."""
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    return options
