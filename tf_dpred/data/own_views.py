"""Views that a user makes: seeded for each example, whoever draws the numbers.

The views of an example are a function of its seed alone, so that a run that was stopped
goes on with the same views, whichever thread or worker makes them. A function can take
the seed. Keras' layers draw from `keras.random.SeedGenerator`, whose state is a
variable: inside of `ExampleSeeds` its value comes from the seed of the example.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.config import refuse
from tf_dpred.data import image_ops
from tf_dpred.data.source import Source
from tf_dpred.errors import Refused
from tf_dpred.system import keras_private

Views: TypeAlias = Callable[..., Any]

ACCEPTED = (
    "TwoViews, a Keras layer or model, a function of (image) or (image, seed), or a "
    "tuple of two of these, one for each view"
)
# Operations with a state of their own: what they give depends on what ran before.
STATEFUL = re.compile(
    r"Random|Stateful(Uniform|Standard|Truncated|Random)|TruncatedNormal|Parameterized|"
    r"Multinomial|SampleDistorted|Rng|Assign|\w+CandidateSampler"
)
# Views are tried before a run: so many images, again and again with other seeds.
IMAGES, SEEDS = 4, 8
# Values up to this are not those of pixels in [0, 255].
NORMALISED = 3.0

_as_it_is = tf.autograph.experimental.do_not_convert


class ExampleSeeds(keras.StatelessScope):
    """Gives every number that Keras draws inside of it a seed made from `seed`.

    Args:
      seed: int64 [2].

    Attributes:
      changed: paths of variables that something inside wanted to change.
    """

    def __init__(self, seed: tf.Tensor):
        super().__init__(initialize_variables=False)
        self.changed: list[str] = []
        self._seed = seed
        self._draws = 0

    def get_current_value(self, variable):
        """The value of a variable; of a generator's state a new seed each time."""
        if not _is_seed(variable):
            return super().get_current_value(variable)
        self._draws += 1
        return _fold(self._seed, self._draws)

    def add_update(self, update) -> None:
        """Keras' call where a variable would change; generators may."""
        if not _is_seed(update[0]):
            self.changed.append(update[0].path)


def _is_seed(variable: keras.Variable) -> bool:
    return variable.name == "seed_generator_state" and tuple(variable.shape) == (2,)


def _fold(seed: tf.Tensor, number: int) -> tf.Tensor:
    return tf.random.fold_in(seed, tf.constant(number, tf.int64))


class OwnViews:
    """Two views of an image by a user's layers or functions.

    Layers get the image as a batch of one, float32, and `training=True`. Functions get
    it as it is stored, uint8 [H, W, 3], and are converted by AutoGraph; those of two
    arguments get a seed, int64 [2], for TensorFlow's stateless operations. What gives
    one view is called twice. A view is uint8, or float in [0, 255] and then rounded, of
    one channel or three. Its central square is resized where it has another size.

    Args:
      views: see `ACCEPTED`.
      image_size: side S of a view in pixels.

    Attributes:
      name: what the views are, for messages.

    Raises:
      Refused: `views` is something else, or mixes the images of a batch.
    """

    def __init__(self, views: Views | tuple[Views, Views], image_size: int):
        self.views = views
        self.image_size = image_size
        parts = views if isinstance(views, tuple) else (views,)
        if not 1 <= len(parts) <= 2 or not all(map(callable, parts)):
            refuse("views", type(views).__name__, ACCEPTED)
        self.name = ", ".join(map(_described, parts))
        self._makers = tuple(map(self._maker, parts))

    def _maker(self, part: Views) -> Callable[[tf.Tensor, tf.Tensor], Any]:
        """(image, seed) -> what `part` gives, a view or two."""
        if isinstance(part, keras.layers.Layer):
            for layer in (part, *keras_private.all_layers(part)):
                if isinstance(layer, (keras.layers.MixUp, keras.layers.CutMix)):
                    accepted = "layers of which each image goes its own way"
                    refuse("views", f"{layer.name} ({type(layer).__name__})", accepted)

            def by_layer(image: tf.Tensor, seed: tf.Tensor):
                batch = tf.cast(image, tf.float32)[tf.newaxis]
                outputs = part(batch, training=True)
                return tf.nest.map_structure(lambda view: view[0], outputs)

            return by_layer
        # A traced function would keep the seeds of its first call.
        function = getattr(part, "python_function", part)
        seed_name = _seed_name(function)

        def by_function(image: tf.Tensor, seed: tf.Tensor):
            def call(image):
                return function(image, **({seed_name: seed} if seed_name else {}))

            # What is traced is converted by AutoGraph.
            return (call if tf.executing_eagerly() else tf.function(call))(image)

        return by_function

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """(uint8 [H, W, 3], int64 [2]) -> two views, uint8 [S, S, 3] each."""
        found = [self._made(0, image, seed)]
        if isinstance(found[0], (tuple, list)):
            found = list(found[0])
        else:
            found.append(self._made(1, image, seed))
        if len(found) != 2:
            detail = f", which gives {len(found)} views"
            refuse("views", self.name, "one view or two", detail=detail)
        return tuple(self._finished(view, image) for view in found)

    def _made(self, place: int, image: tf.Tensor, seed: tf.Tensor):
        # Both numbers are new, should a function use but one of them.
        seed = tf.random.stateless_uniform(
            [2], _fold(seed, place), minval=None, maxval=None, dtype=tf.int64
        )
        with ExampleSeeds(seed) as scope:
            made = self._makers[place % len(self._makers)](image, seed)
        if scope.changed:
            self._refuse_state(scope.changed[0])
        return made

    def _refuse_state(self, what: str) -> NoReturn:
        refuse(
            "views",
            self.name,
            "views that depend on their image and seed alone: a function of (image, "
            "seed) with tf.random.stateless_... and tf.image.stateless_..., or Keras' "
            "layers",
            detail=f", which uses {what}: a run that was stopped could not go on with "
            "the same views",
        )

    def _finished(self, view: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        """A view, float or integer [h, w, 1 or C], as uint8 [S, S, C]."""
        channels = image.shape[-1]
        view = tf.convert_to_tensor(view)
        if view.shape.rank is None:  # of tf.numpy_function
            view = tf.ensure_shape(view, [None, None, channels])
        if view.shape.rank != 3 or view.shape[-1] not in (1, channels):
            accepted = f"views [height, width, {channels}] or [height, width, 1]"
            refuse("views", self.name, accepted, detail=f" with views {view.shape}")
        if view.dtype != tf.uint8:
            view = image_ops.to_uint8(tf.cast(view, tf.float32))
        if view.shape[-1] == 1:
            view = tf.repeat(view, channels, axis=-1)
        size = self.image_size
        if tuple(view.shape[:2]) != (size, size):
            shape = tf.shape(view)
            box = image_ops.center_box(shape[0], shape[1], 1.0)
            view = image_ops.crop_and_resize(view, box, size, "bilinear")
        view.set_shape([size, size, channels])
        return view

    def check(self, source: Source) -> np.ndarray:
        """Tries the views on the first images of a source.

        Returns:
          Their views, uint8 [n, 2, S, S, 3]: by these they can be told from others.

        Raises:
          Refused: they fail, are no views of such images, or are no function of image
            and seed alone.
        """
        first = source.examples(None).take(IMAGES).repeat().take(SEEDS)
        images = [source.load(example)[0] for example in first]
        seeds = [tf.constant([place, 1], tf.int64) for place in range(SEEDS)]
        spec = source.examples(None).map(_as_it_is(source.load)).element_spec[0]
        try:
            # Eagerly first: layers make weights and generators outside of any graph.
            raw = [
                [view.numpy() for view in tf.nest.flatten(maker(image, seed))]
                for image, seed in zip(images[:IMAGES], seeds, strict=False)
                for maker in self._makers
            ]
            # Traced twice: what Python draws is drawn once for each.
            traced, again = self._traced(spec), self._traced(spec)
        except Refused:
            raise
        except Exception as error:  # whatever a user's layer raises
            reason = " ".join(str(error).split())[:300]
            refuse(
                "views",
                self.name,
                f"views of images {spec.shape} (keras.layers.Resizing in front of "
                "other layers gives images one size)",
                detail=f" ({type(error).__name__}: {reason})",
            )
        self._check_values(images, raw)

        def all_views(traced, seeds) -> np.ndarray:
            return np.stack(
                [np.stack(traced(*x)) for x in zip(images, seeds, strict=True)]
            )

        found = all_views(traced, seeds)
        for repeated in (traced, again):
            if not np.array_equal(found, all_views(repeated, seeds)):
                self._refuse_state("numbers of NumPy, Python or the time")
        if np.array_equal(found[:, 0], found[:, 1]):
            refuse("views", self.name, "views that differ", detail=", two equal views")
        if np.array_equal(found, all_views(traced, [seed + 100 for seed in seeds])):
            logging.warning("views of %s: they are the same in every epoch", self.name)
        return found

    def _traced(self, spec: tf.TensorSpec):
        """The views as a graph.

        Raises:
          Refused: it holds an operation with a state of its own.
        """
        function = tf.function(self.__call__, autograph=False)
        traced = function.get_concrete_function(spec, tf.TensorSpec([2], tf.int64))
        graph = traced.graph.as_graph_def()
        inner = [node for each in graph.library.function for node in each.node_def]
        for node in (*graph.node, *inner):
            if STATEFUL.match(node.op):
                self._refuse_state(f"{node.op}, which has a state of its own")
        return traced

    def _check_values(self, images: list[tf.Tensor], raw: list[list[np.ndarray]]):
        """Checks sizes and range of views before they are made uint8 [S, S, 3]."""
        flat = [view for views in raw for view in views]
        sizes = {view.shape[:2] for view in flat}
        size = (self.image_size, self.image_size)
        if len(sizes) == 1 and size not in sizes:
            if not sizes <= {tuple(image.shape[:2]) for image in images}:
                height, width = sizes.pop()
                refuse(
                    "views",
                    self.name,
                    "views of the size of --image_size, or of that of their image",
                    detail=f" of {height} x {width} with --image_size={size[0]}",
                )
        values = np.concatenate([view.astype(np.float64).ravel() for view in flat])
        bright = max(int(tf.reduce_max(image)) for image in images)
        if not np.all(np.isfinite(values)) or (
            bright > 16 and np.max(np.abs(values)) <= NORMALISED
        ):
            refuse(
                "views",
                self.name,
                "values in [0, 255]; the network normalises",
                detail=f" of values from {values.min():.3g} to {values.max():.3g}",
            )


def _described(part: Views) -> str:
    """A layer's class, with those inside of it, or a function's name."""
    if isinstance(part, keras.layers.Layer):
        inside = [type(x).__name__ for x in keras_private.all_layers(part)]
        inside = [name for name in inside if name != "InputLayer"]
        return type(part).__name__ + (f" ({', '.join(inside)})" if inside else "")
    return getattr(part, "__qualname__", type(part).__qualname__)


def _seed_name(part: Views) -> str | None:
    """The argument of a function of (image, seed); None of one of (image).

    Raises:
      Refused: it is none of the two.
    """
    parameters = list(inspect.signature(part).parameters.values())
    if any(p.name == "seed" for p in parameters):
        return "seed"
    needed = [
        p for p in parameters if p.default is p.empty and p.kind < p.VAR_POSITIONAL
    ]
    if len(needed) > 2:
        detail = f" of {len(needed)} arguments"
        refuse("views", _described(part), ACCEPTED, detail=detail)
    return needed[1].name if len(needed) == 2 else None
