"""Online and target network, predictor, and the training step of the paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from tf_dpred import spectrum
from tf_dpred.losses import LOSSES
from tf_dpred.predictors import Predictor
from tf_dpred.step.finite import FiniteGuard
from tf_dpred.step.loss_scale import LossScale
from tf_dpred.step.metrics import EqualMean, ViewMoments
from tf_dpred.step.stop import StopRequest
from tf_dpred.system import replicas


class DirectPred(keras.Model):
    """Self-supervised learning without contrastive pairs (arXiv 2102.06810).

    Two networks see two views of an image. The online network's projection f, through
    the predictor, learns to match the target network's projection z:

        L = mean[ l(W f1, sg(z2)) + l(W f2, sg(z1)) ]

    Each `train_step` follows the authors' order: predict with the W of earlier steps;
    step the optimizer; take this batch into the statistics F; set W from F; move the
    target. The target moves by the callback `TargetEMA`, which installs itself as the
    last operation of the step.

    Args:
      online: built model, images [n, h, w, c] -> (representation, projection [n, d]).
      target: another one of the same structure; None: the target IS the online
        network (no EMA, as in SimSiam).
      predictor: maps projections to predictions.
      loss: `cosine`, `mse` or `iso`.
      symmetric: sum the loss over both directions; else predict view 2 from view 1.
      stop_gradient: off, the loss's gradient also goes through z. Only without a
        separate target, whose variables are never trained.
      accumulation_steps: micro-batches that a step's batch is split into. Gradients
        are averaged over them; optimizer, F, W and target advance once.
      skip_nonfinite: undo a step in which the loss, the gradient norm, F or W is not
        finite, except that it counts as a step. Costs a copy of all variables.
      make_views: the tensors of a batch -> its two views, the last part of the input
        that this device does itself; None: a batch is its two views.

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
        self.guard = FiniteGuard()
        float16 = self.dtype_policy.compute_dtype == "float16"
        self.loss_scale = LossScale() if float16 else None
        self.loss_tracker = EqualMean("loss")
        self.feature_std = EqualMean("feature_std")
        self.stop = StopRequest()
        self.view_moments = ViewMoments()
        self._update_target: Callable[[tf.Tensor], None] | None = None
        # Everything is built here and now: a sub-model first built inside a step
        # would be missed by a restore before it.
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
          predictor_weight_decay, predictor_learning_rate: of the predictor alone;
            None: the optimizer's. Need an optimizer of `tf_dpred.optimizers`.
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
        """As in Keras, which cannot do it for several workers (keras#20585)."""
        strategy = self.distribute_strategy
        if not replicas.are_on_several_workers(strategy):
            return super().make_train_function(force)
        if self.train_function is not None and not force:
            return self.train_function

        @tf.autograph.experimental.do_not_convert
        def one_step(data) -> dict[str, tf.Tensor]:
            logs = strategy.run(self.train_step, args=(data,))
            # Equal on all replicas.
            return {
                name: strategy.experimental_local_results(value)[0]
                for name, value in logs.items()
            }

        if not self.run_eagerly:
            one_step = tf.function(one_step, jit_compile=self.jit_compile)

        def train_function(iterator) -> dict[str, tf.Tensor]:
            for _ in range(self.steps_per_execution):
                logs = one_step(next(iterator))
            return logs

        self.train_function = train_function
        return train_function

    def _maybe_symbolic_build(self, iterator=None, data_batch=None) -> None:
        """Nothing: all is built. Keras' own fails with several workers."""

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """One optimizer step on this replica's share of a batch."""
        if self.has_separate_target and self._update_target is None:
            raise ValueError(
                "A separate target needs an update: received no TargetEMA, accepted: "
                "fit(..., callbacks=[TargetEMA(schedule), ...])."
            )
        step = tf.convert_to_tensor(self.optimizer.iterations)
        before = self._copies(self._all_variables()) if self.skip_nonfinite else []
        finite = self._step(data, step)
        _restore(before, unless=finite)
        return self.get_metrics_result()

    def _all_variables(self) -> list[keras.Variable]:
        metrics = [v for metric in self.metrics for v in metric.variables]
        return self.variables + metrics + self.optimizer.variables

    def _copies(self, variables) -> list[tuple[keras.Variable, tf.Tensor]]:
        """The variables that an undone step must not change, and their values.

        It counts as a step, and what counts such steps goes on.
        """
        counters = [*self.guard.variables, self.optimizer.iterations]
        if self.loss_scale is not None:
            counters += self.loss_scale.variables
        kept = {id(v) for v in counters}
        return [(v, tf.identity(v.value)) for v in variables if id(v) not in kept]

    def _step(self, data, step: tf.Tensor) -> tf.Tensor:
        """The step of the paper -> whether everything in it was finite."""
        variables = self.learned_variables
        gradients, loss, projections = self._accumulate(data, variables)
        # At its lowest an overflow is not the loss scale's.
        lowest = self.loss_scale is None or self.loss_scale.is_lowest()
        self._apply(gradients, variables)
        f1, f2, z1, z2 = (tf.concat(p, axis=0) for p in zip(*projections, strict=True))
        self.predictor.observe(f1, f2, z1, z2)
        self.predictor.reset(step)
        if self._update_target is not None:
            self._update_target(step)
        if replicas.are_on_several_workers(self.distribute_strategy):
            self.stop.exchange()
        # One all-reduce for what is only looked at.
        moments = tf.cast(ViewMoments.of(f1, f2, z1, z2), loss.dtype)
        numbers = replicas.mean(tf.concat([loss[None], moments], axis=0))
        loss = numbers[0]
        self.view_moments.assign(numbers[1:])
        self.loss_tracker.update_state(loss)
        self.feature_std.update_state(spectrum.feature_std(f1))
        return self.guard.observe(step, self._watched(loss, gradients, lowest))

    def _apply(self, gradients, variables) -> None:
        """One step of the optimizer; where float16 overflowed, it only counts."""
        if self.loss_scale is None:
            self.optimizer.apply(gradients, variables)
            return
        fits = self.loss_scale.observe(gradients)
        before = self._copies(variables + self.optimizer.variables)
        self.optimizer.apply(gradients, variables)
        _restore(before, unless=fits)

    def _watched(self, loss, gradients, lowest) -> list[tf.Tensor | None]:
        """In the order of `guard.QUANTITIES`."""
        norm = tf.linalg.global_norm(gradients)
        norm = tf.where(lowest, norm, tf.zeros_like(norm))
        matrix = getattr(self.predictor, "matrix", None)
        return [
            loss,
            norm,
            self.predictor.correlation,
            None if matrix is None else tf.convert_to_tensor(matrix),
        ]

    def _accumulate(self, data, variables):
        """Gradients of the mean loss, that loss, and each micro-batch's projections."""
        micro_batches = zip(
            *(tf.split(tensor, self.accumulation_steps) for tensor in data), strict=True
        )
        projections, losses = [], []
        total: list[tf.Tensor] = []
        for micro_batch in micro_batches:
            # One after the other: side by side they would need the memory of all.
            with tf.control_dependencies(total):
                micro_batch = tuple(tf.identity(tensor) for tensor in micro_batch)
            if self.make_views is not None:
                micro_batch = self.make_views(*micro_batch)
            view1, view2 = micro_batch
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([v.value for v in variables])
                loss, projected = self._loss(view1, view2)
                # The optimizer sums over replicas; micro-batches are summed below.
                share = self.distribute_strategy.num_replicas_in_sync
                mean = tf.reduce_mean(loss) / (share * self.accumulation_steps)
                if self.loss_scale is not None:
                    mean = self.loss_scale.multiply(mean)
            gradients = tape.gradient(mean, [v.value for v in variables])
            if total:
                total = [t + g for t, g in zip(total, gradients, strict=True)]
            else:
                total = gradients
            losses.append(tf.reduce_mean(loss))
            projections.append([tf.stop_gradient(p) for p in projected])
        if self.loss_scale is not None:
            total = self.loss_scale.divide(total)
        return total, tf.reduce_mean(losses), projections

    def _loss(self, view1, view2):
        """Per-example loss [n], and f1, f2, z1, z2, each [n, d]."""
        f1, f2 = (self.online(v, training=True)[1] for v in (view1, view2))
        if self.has_separate_target:
            z1, z2 = (self.target(v, training=True)[1] for v in (view1, view2))
        else:
            z1, z2 = f1, f2
        if self.stop_gradient:
            z1, z2 = tf.stop_gradient(z1), tf.stop_gradient(z2)
        loss = self.distance(self.predictor(f1, training=True), z2, f1)
        if self.symmetric:
            loss += self.distance(self.predictor(f2, training=True), z1, f2)
        return loss, (f1, f2, z1, z2)


def _restore(before: list[tuple[keras.Variable, tf.Tensor]], *, unless) -> None:
    """Gives variables their earlier values back where the bool scalar is False."""
    for variable, value in before:
        variable.assign(tf.where(unless, variable, value))
