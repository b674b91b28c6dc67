"""Online and target network, predictor, and the training step of the paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from tf_dpred.losses import LOSSES
from tf_dpred.predictors import Predictor
from tf_dpred.step import metrics, multi_worker
from tf_dpred.step.finite import QUANTITIES, FiniteCheck
from tf_dpred.step.loss_scale import LossScale
from tf_dpred.step.metrics import EqualMean, ViewMoments
from tf_dpred.step.stop import StopRequest
from tf_dpred.step.trace_once import TraceOnce
from tf_dpred.step.undo import Undo
from tf_dpred.system import replicas
from tf_dpred.system.keras_private import BuiltModel


class DirectPred(BuiltModel):
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
      loss: `cosine`, `mse` or `iso`.
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

    Raises:
      ValueError: unknown loss, or a target that does not fit the other arguments.
    """

    def __init__(
        self,
        online: keras.Model,
        target: keras.Model | None,
        predictor: Predictor,
        loss: str = "cosine",
        symmetric: bool = True,
        stop_gradient: bool = True,
        accumulation_steps: int = 1,
        skip_nonfinite: bool = False,
        make_views: Callable[..., tuple[tf.Tensor, tf.Tensor]] | None = None,
        name: str = "direct_pred",
    ):
        super().__init__(name=name)
        if loss not in LOSSES:
            raise ValueError(
                f"Invalid loss: received {loss!r}, accepted: {', '.join(LOSSES)}."
            )
        if target is not None and not stop_gradient:
            raise ValueError(
                "Invalid stop_gradient: received False with a separate target, "
                "accepted: False only with target=None."
            )
        self.online = online
        self.target = online if target is None else target
        self.predictor = predictor
        self.distance = LOSSES[loss]
        self.symmetric = symmetric
        self.stop_gradient = stop_gradient
        self.accumulation_steps = accumulation_steps
        self.skip_nonfinite = skip_nonfinite
        self.make_views = make_views
        self.finite = FiniteCheck()
        float16 = self.dtype_policy.compute_dtype == "float16"
        self.loss_scale = LossScale() if float16 else None
        self.loss_tracker = EqualMean("loss")
        self.feature_std = EqualMean("feature_std")
        self.stop = StopRequest()
        self.view_moments = ViewMoments()
        self._update_target: Callable[[tf.Tensor], None] | None = None
        # Everything is built now: a restore before the first step would miss a
        # sub-model that the step builds.
        predictor.build((None, online.output_shape[1][-1]))
        self.built = True

    @property
    def has_separate_target(self) -> bool:
        """False where the target is the online network itself."""
        return self.target is not self.online

    @property
    def learned_variables(self) -> list[keras.Variable]:
        """What the optimizer trains: never the target's variables."""
        return self.online.trainable_variables + self.predictor.trainable_variables

    @property
    def steps_done(self) -> int:
        """Optimizer steps so far."""
        # Not int(variable): a variable of several replicas has no __int__.
        return int(self.optimizer.iterations.numpy())

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.loss_tracker, self.feature_std]

    def call(self, images, training: bool | None = None):
        """Images [n, h, w, c] in [0, 255] -> the online representation [n, r]."""
        return self.online(images, training=training)[0]

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer,
        *,
        predictor_weight_decay: float | None = None,
        predictor_learning_rate: float | LearningRateSchedule | None = None,
        **kwargs,
    ) -> None:
        """Builds the optimizer for the online network and the predictor.

        Args:
          optimizer: any Keras optimizer.
          predictor_weight_decay, predictor_learning_rate: for the predictor alone;
            None: the optimizer's. They need an optimizer of `tf_dpred.optimizers`.
          **kwargs: `jit_compile` (default False), `steps_per_execution`,
            `run_eagerly`, as in `keras.Model.compile`.

        Raises:
          ValueError: a LossScaleOptimizer.
        """
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "compile: received a LossScaleOptimizer, accepted: the optimizer "
                "inside it; under mixed_float16 the step scales the loss itself."
            )
        if predictor_weight_decay is not None or predictor_learning_rate is not None:
            optimizer.set_group(
                self.predictor.trainable_variables,
                weight_decay=predictor_weight_decay,
                learning_rate=predictor_learning_rate,
            )
        # Anew, since compiling also takes account of layers that were frozen.
        self._project_online = TraceOnce(self.online)
        self._project_target = TraceOnce(self.target)
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, auto_scale_loss=False, **kwargs)
        self.optimizer.build(self.learned_variables)

    def install_target_update(self, update: Callable[[tf.Tensor], None]) -> None:
        """Makes `update(step)` the last operation of every training step.

        Args:
          update: called in the step's graph, in replica context, with the number of
            optimizer steps before this one.

        Raises:
          ValueError: there is no separate target to update.
        """
        if not self.has_separate_target:
            raise ValueError(
                "install_target_update: received a model whose target is its online "
                "network, accepted: a model with a separate target."
            )
        if update == self._update_target:
            return
        self._update_target = update
        # A step that was traced before does not contain this update.
        self.train_function: Callable[..., Any] | None = None

    def make_train_function(self, force: bool = False):
        """As in Keras, but also for several workers."""
        if not replicas.are_on_several_workers(self.distribute_strategy):
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = multi_worker.train_function(self)
        return self.train_function

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """One optimizer step on this replica's part of a batch.

        The order is that of the authors' code. f are the online network's projections
        of the two views, z the target's.

        Args:
          data: two views, images [n, h, w, c] each, or what `make_views` takes.
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

    def _check_target_moves(self) -> None:
        if self.has_separate_target and self._update_target is None:
            raise ValueError(
                "A separate target needs an update: received no TargetEMA, accepted: "
                "fit(..., callbacks=[TargetEMA(schedule), ...])."
            )

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
        for micro_batch in zip(
            *(tf.split(tensor, self.accumulation_steps) for tensor in data), strict=True
        ):
            # Without this, they run side by side and take the memory of all of them.
            with tf.control_dependencies(total):
                views = tuple(tf.identity(tensor) for tensor in micro_batch)
            if self.make_views is not None:
                views = self.make_views(*views)
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
        loss = self.distance(self.predictor(f1, training=True), z2, f1)
        if both:
            loss += self.distance(self.predictor(f2, training=True), z1, f2)
        return loss, (f1, f2, z1, z2)

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


def _rows(*parts: tf.Tensor | None) -> tf.Tensor | None:
    """The rows of all parts that are not None, without gradients; else None."""
    present = [tf.stop_gradient(part) for part in parts if part is not None]
    return tf.concat(present, axis=0) if present else None
