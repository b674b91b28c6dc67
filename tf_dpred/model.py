"""Online and target network, predictor, and the training step of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_dpred import quality, spectrum
from tf_dpred.losses import LOSSES, Loss
from tf_dpred.networks import encoder
from tf_dpred.predictors import PREDICTORS, Predictor
from tf_dpred.step import batch, metrics
from tf_dpred.step.finite import QUANTITIES, FiniteCheck
from tf_dpred.step.keras_model import KerasModel
from tf_dpred.step.loss_scale import LossScale
from tf_dpred.step.metrics import EqualMean, ViewMoments
from tf_dpred.step.stop import StopRequest
from tf_dpred.step.undo import Undo
from tf_dpred.system import keras_private, keras_settings, replicas


@keras.saving.register_keras_serializable("tf_dpred")
class DirectPred(KerasModel):
    """Self-supervised learning without contrastive pairs (arXiv 2102.06810).

    Two networks see two views of an image. The online network's projection f, through
    the predictor, learns to match the target network's projection z:

        L = mean[ l(W f1, sg(z2)) + l(W f2, sg(z1)) ]

    Each `train_step` follows the authors' order: predict with the W of earlier steps,
    step the optimizer, take this batch into the statistics F, set W from F, and move
    the target. The callback `TargetEMA` installs that last operation into the step.

    Args:
      online: built model, images [n, h, w, c] -> (representation, projection [n, d]).
      target: another one of the same structure; None: the target IS the online
        network (no EMA, as in SimSiam).
      predictor: maps projections to predictions.
      loss: `cosine`, `mse`, `iso`, or a function as in `losses`.
      symmetric: sum the loss over both directions; else predict view 2 from view 1
        only. With a separate target, half of the forward passes are then left out, and
        F is that of view 1.
      stop_gradient: False: the loss's gradient also goes through z. Only without a
        separate target, whose variables are never trained.
      accumulation_steps: micro-batches that a step's batch is split into. Gradients
        are averaged over them; optimizer, F, W and target advance once.
      skip_nonfinite: undo a step in which the loss, the gradient norm, F or W is not
        finite, except that it counts as a step. Costs a copy of all variables.
      make_views: the tensors of a batch -> its two views, where this device does the
        last part of the input; None: a batch is its two views.
      remat: keep the activations of a few places of the online network alone, and
        compute the others again for the gradient, see `step.remat`.
      **kwargs: of `keras.Model` (dtype, ...).

    Raises:
      ValueError: unknown loss, or a target that does not fit the other arguments.
    """

    def __init__(
        self,
        online: keras.Model,
        target: keras.Model | None,
        predictor: Predictor,
        loss: str | Loss = "cosine",
        symmetric: bool = True,
        stop_gradient: bool = True,
        accumulation_steps: int = 1,
        skip_nonfinite: bool = False,
        make_views: Callable[..., tuple[tf.Tensor, tf.Tensor]] | None = None,
        remat: bool = False,
        name: str = "direct_pred",
        **kwargs,
    ):
        keras_settings.check()
        super().__init__(name=name, **kwargs)
        if not callable(loss) and loss not in LOSSES:
            raise ValueError(
                f"Invalid loss: received {loss!r}, accepted: {', '.join(LOSSES)}."
            )
        if target is not None and not stop_gradient:
            raise ValueError(
                "Invalid stop_gradient: received False with a separate target, "
                "accepted: False only with target=None."
            )
        _check_networks(online, target, predictor)
        self.online = online
        self.target = online if target is None else target
        self.predictor = predictor
        self.distance = loss if callable(loss) else LOSSES[loss]
        self.symmetric = symmetric
        self.stop_gradient = stop_gradient
        self.accumulation_steps = accumulation_steps
        self.skip_nonfinite = skip_nonfinite
        self.make_views = make_views
        self.remat = remat
        self.finite = FiniteCheck()
        # A backbone may have a policy of its own.
        float16 = any(
            layer.compute_dtype == "float16"
            for layer in (self, *keras_private.all_layers(self))
        )
        self.loss_scale = LossScale() if float16 else None
        self.loss_tracker = EqualMean("loss")
        self.feature_std = EqualMean("feature_std")
        self.view_retrieval = EqualMean("view_retrieval")
        self.stop = StopRequest()
        self.view_moments = ViewMoments()
        # Everything is built now: a restore before the first step would miss a
        # sub-model that the step builds.
        if not predictor.built:
            predictor.build((None, online.output_shape[1][-1]))
        self.built = True

    @classmethod
    def from_backbone(
        cls,
        backbone: keras.Model,
        projector: Sequence[int] | keras.Model = (512, 128),
        predictor: str | Predictor = "direct",
        ema: bool = True,
        normalize: tuple[Sequence[float], Sequence[float]] | None = None,
        **settings: Any,
    ) -> DirectPred:
        """A model whose networks are copies of a backbone, each with a projector.

        The target starts equal to the online network. Keras' BatchNorms become this
        package's. What is trained is `encoder`; the given backbone stays as it is.

        Args:
          backbone: built model, views -> features [n, c], [n, h, w, c] or tokens
            [n, t, c], of which the mean is taken.
          projector: sizes of its layers, with BatchNorm and ReLU between them; or a
            model [n, c] -> [n, d].
          predictor: a name of `predictors.PREDICTORS` or a predictor.
          ema: whether there is a target network; False: `target=None`.
          normalize: mean and standard deviation per channel of images in [0, 1], by
            which views in [0, 255] are normalised; None: the backbone gets the views
            as they are.
          **settings: of `DirectPred` (loss, symmetric, ...).

        Raises:
          ValueError: an argument that is not accepted, see `encoder.of_backbone`.
        """
        known = isinstance(predictor, str) and predictor in PREDICTORS
        if not known and not isinstance(predictor, Predictor):
            raise ValueError(
                f"Invalid predictor: received {predictor!r}, accepted: a Predictor, "
                f"{', '.join(PREDICTORS)}."
            )
        online, target = (
            encoder.of_backbone(backbone, projector, name, normalize)
            for name in ("online", "target")
        )
        target.set_weights(online.get_weights())
        if isinstance(predictor, str):
            predictor = PREDICTORS[predictor]()
        return cls(online, target if ema else None, predictor, **settings)

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """One optimizer step on this replica's part of a batch.

        The order is that of the authors' code. f are the online network's projections
        of the two views, z the target's.

        Args:
          data: two views, images [n, h, w, c] each, or what `make_views` takes.

        Raises:
          ValueError: a batch is something else, or nothing would move the target.
        """
        self._check_target_moves()
        step = tf.convert_to_tensor(self.optimizer.iterations)
        undo = (
            Undo(*self._what_a_skipped_step_changes()) if self.skip_nonfinite else None
        )

        # Predict with the W of earlier steps: the loss and its gradients.
        gradients, loss, f1, f2, z1, z2 = self._gradients(data)

        # The optimizer moves the online network, and a predictor that is trained.
        gradient_norm = self._apply(gradients)

        # F <- rho F + (1 - rho) E[f f^T] (Eq. 19), then W from F (Eq. 18).
        self.predictor.observe(_rows(f1, f2), _rows(z2, z1))
        self.predictor.update_weights(step)

        # target <- tau target + (1 - tau) online.
        if self._update_target is not None:
            self._update_target(step)

        # Nothing below changes what is trained, except that a bad step is undone.
        loss = self._measure(loss, f1, f2, z1, z2)
        finite = self._check_finite(step, loss, gradient_norm)
        if undo is not None:
            undo.unless(finite)
        if replicas.are_on_several_workers(self.distribute_strategy):
            self.stop.exchange()
        return self.get_metrics_result()

    def test_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """Loss, feature std and view retrieval of a batch, by inference statistics.

        View retrieval is how often the nearest second view of the batch, of all
        replicas together, is that of the same image (`quality.view_ranks` of the
        representations). Nothing but these metrics is updated.

        Args:
          data: as for `train_step`.
        """
        both = self._views(*self._tensors(data))
        (r1, f1), (r2, f2) = (self._seen_by(self.online, view) for view in both)
        z1, z2 = f1, f2
        if self.has_separate_target:
            (_, z1), (_, z2) = (self._seen_by(self.target, view) for view in both)
        loss = self._compare(f1, f2, z1, z2, training=False)
        found = quality.view_ranks(r1, r2) == 0
        # Batches may differ in size: each image counts as much as any other.
        n = tf.shape(f1)[0]
        self.loss_tracker.update_state(tf.reduce_mean(loss), n)
        self.feature_std.update_state(spectrum.feature_std(f1), n)
        self.view_retrieval.update_state(tf.reduce_mean(tf.cast(found, f1.dtype)), n)
        view_retrieval = {"view_retrieval": self.view_retrieval.result()}
        return {**self.get_metrics_result(), **view_retrieval}

    def _seen_by(self, network, view) -> tuple[tf.Tensor, tf.Tensor]:
        """Representation and projection of a view, the rows of all replicas."""
        r, f = network(view, training=False)
        return replicas.gather(r), replicas.gather(f)

    def _tensors(self, data) -> tuple[tf.Tensor, ...]:
        """What `_views` takes of a batch."""
        given = batch.two_views if self.make_views is None else batch.tensors
        return given(data)

    def _views(self, *tensors) -> tuple[tf.Tensor, ...]:
        """The two views, made here if the input left that to this device."""
        return tensors if self.make_views is None else self.make_views(*tensors)

    def _what_a_skipped_step_changes(self):
        """(all variables, those of them that also count a skipped step)."""
        of_metrics = [v for metric in self.metrics for v in metric.variables]
        counters = [*self.finite.variables, self.optimizer.iterations]
        if self.loss_scale is not None:
            counters += self.loss_scale.variables
        return self.variables + of_metrics + self.optimizer.variables, counters

    def _gradients(self, data):
        """Gradients of the mean loss; the micro-batches run one after the other.

        Returns:
          The gradients of `learned_variables`, the loss, and the projections f1, f2,
          z1, z2, [n, d] each; f2 and z1 are None where the loss has one direction.
        """
        variables = self.learned_variables
        # The optimizer sums over replicas, and the micro-batches are summed here.
        parts = self.distribute_strategy.num_replicas_in_sync * self.accumulation_steps
        total: list[tf.Tensor] = []
        losses, projections = [], []
        tensors = batch.divisible(self._tensors(data), self.accumulation_steps)
        for micro_batch in zip(
            *(tf.split(x, self.accumulation_steps) for x in tensors), strict=True
        ):
            # Without this, they run side by side and take the memory of all of them.
            with tf.control_dependencies(total):
                tensors = tuple(tf.identity(tensor) for tensor in micro_batch)
            views = self._views(*tensors)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([v.value for v in variables])
                loss, projected = self._loss(*views)
                mean = tf.reduce_mean(loss) / parts
                if self.loss_scale is not None:
                    mean = self.loss_scale.multiply(mean)
            gradients = tape.gradient(mean, [v.value for v in variables])
            if total:
                gradients = [t + g for t, g in zip(total, gradients, strict=True)]
            total = gradients
            losses.append(tf.reduce_mean(loss))
            projections.append(projected)
        if self.loss_scale is not None:
            total = self.loss_scale.divide(total)
        f1, f2, z1, z2 = (_rows(*p) for p in zip(*projections, strict=True))
        return total, tf.reduce_mean(losses), f1, f2, z1, z2

    def _loss(self, view1, view2):
        """Per-example loss [n], and f1, f2, z1, z2, each [n, d] or None."""
        both = self.symmetric
        f1 = self._project_online(view1)
        f2 = (
            self._project_online(view2)
            if both or not self.has_separate_target
            else None
        )
        if self.has_separate_target:
            z1 = self._project_target(view1) if both else None
            z2 = self._project_target(view2)
        else:
            z1, z2 = f1, f2
        if self.stop_gradient:
            z1, z2 = (None if z is None else tf.stop_gradient(z) for z in (z1, z2))
        return self._compare(f1, f2, z1, z2, training=True), (f1, f2, z1, z2)

    def _compare(self, f1, f2, z1, z2, training: bool) -> tf.Tensor:
        """Per-example loss [n] of the projections: l(W f1, z2) + l(W f2, z1)."""
        loss = self.distance(self.predictor(f1, training=training), z2, f1)
        if self.symmetric:
            loss += self.distance(self.predictor(f2, training=training), z1, f2)
        return loss

    def _apply(self, gradients) -> tf.Tensor:
        """The optimizer's step -> the gradient norm, 0 where float16 overflowed.

        That is not an error: it lowers the loss scale, and the step is dropped.
        """
        norm = tf.linalg.global_norm(gradients)
        if self.loss_scale is None:
            self.optimizer.apply(gradients, self.learned_variables)
            return norm
        is_error = self.loss_scale.apply(
            self.optimizer, gradients, self.learned_variables
        )
        return tf.where(is_error, norm, tf.zeros_like(norm))

    def _measure(self, loss, f1, f2, z1, z2) -> tf.Tensor:
        """Updates the metrics -> the loss over all replicas."""
        # One all-reduce for everything that is only reported.
        moments = tf.cast(ViewMoments.of(f1, f2, z1, z2), loss.dtype)
        numbers = replicas.mean(tf.concat([loss[None], moments], axis=0))
        loss = numbers[0]
        self.view_moments.assign(numbers[1:])
        self.loss_tracker.update_state(loss)
        self.feature_std.update_state(metrics.feature_std(f1))
        return loss

    def _check_finite(self, step, loss, gradient_norm) -> tf.Tensor:
        """Whether all that is watched is finite: a bool, equal on all replicas."""
        matrix = getattr(self.predictor, "matrix", None)
        watched = {
            "loss": loss,
            "gradient norm": gradient_norm,
            "F": self.predictor.correlation,
            "W": None if matrix is None else tf.convert_to_tensor(matrix),
        }
        return self.finite.observe(step, [watched[name] for name in QUANTITIES])


def _check_networks(online, target, predictor) -> None:
    """Checks what a training step would fail on, or take without a word."""
    accepted = "a built model, images -> (representation [n, c], projection [n, d])"
    for name, network in (("online", online), ("target", target)):
        if network is None and name == "target":
            continue
        shapes = [tuple(x.shape) for x in getattr(network, "outputs", None) or ()]
        if len(shapes) != 2 or len(shapes[1]) != 2:
            received = f"outputs of shape {shapes}" if shapes else repr(network)
            raise ValueError(
                f"Invalid {name}: received {received}, accepted: {accepted}."
            )
    if target is not None:
        both = [[tuple(w.shape) for w in x.weights] for x in (online, target)]
        if both[0] != both[1]:
            raise ValueError(
                "Invalid target: received weights of other shapes than online has, "
                "accepted: a model of the same structure."
            )
    width = online.output_shape[1][-1]
    matrix = getattr(predictor, "correlation", None) if predictor.built else None
    if matrix is not None and matrix.shape[0] != width:
        raise ValueError(
            f"Invalid predictor: received one for projections of {matrix.shape[0]}, "
            f"accepted: a new one, or one for {width}."
        )


def _rows(*parts: tf.Tensor | None) -> tf.Tensor | None:
    """The rows of all parts that are not None, without gradients; else None."""
    present = [tf.stop_gradient(part) for part in parts if part is not None]
    return tf.concat(present, axis=0) if present else None
