"""Pre-training: from a Config to a trained pair of networks."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from tf_dpred import schedules
from tf_dpred.callbacks.checkpointing import Checkpoints
from tf_dpred.callbacks.health import (
    CollapseWarning,
    ReportLossScale,
    ReportSkipped,
    StopOnNonFinite,
)
from tf_dpred.callbacks.json_lines import EpochLog
from tf_dpred.callbacks.knn_monitor import KNNMonitor
from tf_dpred.callbacks.pictures import Pictures
from tf_dpred.callbacks.preemption import Preemption
from tf_dpred.callbacks.profile import Profile
from tf_dpred.callbacks.progress import Progress
from tf_dpred.callbacks.target_ema import TargetEMA
from tf_dpred.callbacks.tensorboard import TensorBoard
from tf_dpred.callbacks.theory_monitor import TheoryMonitor
from tf_dpred.config import Config, refuse
from tf_dpred.data import datasets, pipeline
from tf_dpred.data.bad_images import BadImages, named_errors
from tf_dpred.data.datasets import Source
from tf_dpred.data.preprocessing import Preprocessing
from tf_dpred.data.views import ViewPair, view_pair
from tf_dpred.errors import WorkerLost
from tf_dpred.model import DirectPred
from tf_dpred.networks import encoder
from tf_dpred.optimizers import LARS, SGD
from tf_dpred.predictors import make_predictor
from tf_dpred.records.workdir import MAY_CHANGE, Workdir
from tf_dpred.reports import preview
from tf_dpred.system import devices, replicas

EVALUATION_BATCH = 256
# Settings that TensorBoard does not show: they change no result.
UNCOMPARED = MAY_CHANGE - {"epochs"}


def training_source(config: Config, bad_images: BadImages | None = None) -> Source:
    """The images to train on; `bad_images` counts what cannot be used.

    Raises:
      ValueError: see `data.sources.open_source`.
    """
    data = config.data
    split = data.split
    if split is None:
        split, _ = datasets.default_splits(data.dataset, data.data_dir)
    return datasets.open_source(
        data.dataset,
        split,
        data.data_dir,
        shuffle_buffer=data.shuffle_buffer,
        limit=data.train_size,
        bad_images=bad_images,
    )


def labelled_sources(
    config: Config, bad_images: BadImages | None = None
) -> tuple[Source, Source] | None:
    """The kNN monitor's searched and classified images; None without labels."""
    data, evaluation = config.data, config.evaluation
    train, test = datasets.default_splits(data.dataset, data.data_dir)
    train = evaluation.eval_train_split or train
    test = evaluation.eval_test_split or test
    if test is None:
        return None
    bank, queries = (
        datasets.open_source(
            data.dataset, split, data.data_dir, limit=limit, bad_images=bad_images
        )
        for split, limit in (
            (train, evaluation.knn_train_size),
            (test, evaluation.knn_test_size),
        )
    )
    return (bank, queries) if bank.num_classes and queries.num_classes else None


def build_model(
    config: Config,
    steps_per_epoch: int,
    pair: ViewPair,
    backbone: keras.Model | Callable[[], keras.Model] | None = None,
) -> DirectPred:
    """A compiled model; call it under `strategy.scope()`.

    Args:
      config: of networks, predictor, objective and optimizer.
      steps_per_epoch: optimizer steps, for the schedules.
      pair: of views, for devices that make them from crops.
      backbone: a built model, normalised images [n, s, s, 3] -> features [n, c], to
        use instead of the one that `config.network.backbone` names; or what makes one.
    """
    if backbone is not None and not isinstance(backbone, keras.Model):
        backbone = backbone()
    size = config.data.image_size
    objective = config.objective

    def new_backbone() -> keras.Model:
        if backbone is None:
            return encoder.backbone(config.network, size)
        return encoder.with_own_batch_norm(backbone)

    preprocessing = Preprocessing.of_views(config.data.views)

    def new_network(name: str) -> keras.Model:
        return encoder.network(
            new_backbone(),
            config.network,
            preprocessing.mean,
            preprocessing.std,
            name,
        )

    online = new_network("online")
    target = new_network("target") if objective.ema else None
    if target is not None and objective.target_init == "copy":
        target.set_weights(online.get_weights())
    model = DirectPred(
        online,
        target,
        make_predictor(config.predictor),
        loss=objective.loss,
        symmetric=objective.symmetric_loss,
        stop_gradient=objective.stop_gradient,
        accumulation_steps=config.training.accumulation_steps,
        skip_nonfinite=config.training.on_nonfinite == "skip",
        make_views=None if config.data.on_host else pipeline.views_from_crops(pair),
    )
    rate = learning_rate(config, steps_per_epoch)
    model.compile(
        make_optimizer(config, rate),
        predictor_weight_decay=config.optimizer.predictor_weight_decay,
        predictor_learning_rate=predictor_learning_rate(config, steps_per_epoch),
        jit_compile=config.training.jit_compile,
        run_eagerly=config.training.run_eagerly,
        steps_per_execution=config.training.steps_per_execution,
    )
    return model


def learning_rate(
    config: Config, steps_per_epoch: int, *, multiplier: float = 1.0
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The schedule of a config: linear scaling, warm-up, then constant or cosine."""
    peak = schedules.peak_learning_rate(
        config.optimizer.base_lr * multiplier, config.training.batch_size
    )
    return schedules.learning_rate(
        config.optimizer.lr_schedule,
        peak,
        round(config.optimizer.warmup_epochs * steps_per_epoch),
        config.training.epochs * steps_per_epoch,
    )


def predictor_learning_rate(config: Config, steps_per_epoch: int):
    """The predictor's own rate, or None where it shares the network's."""
    multiplier = config.optimizer.predictor_lr_multiplier
    if config.optimizer.predictor_lr_schedule == "constant":
        base_lr = config.optimizer.base_lr * multiplier
        return schedules.peak_learning_rate(base_lr, config.training.batch_size)
    if multiplier == 1.0:
        return None
    return learning_rate(config, steps_per_epoch, multiplier=multiplier)


def make_optimizer(config: Config, rate) -> keras.optimizers.Optimizer:
    """The optimizer of a config at a learning rate (number or schedule)."""
    momentum, decay = config.optimizer.momentum, config.optimizer.weight_decay
    if config.optimizer.optimizer == "lars":
        return LARS(rate, momentum=momentum, weight_decay=decay)
    if config.optimizer.optimizer == "sgd":
        return SGD(rate, momentum=momentum, weight_decay=decay)
    return keras.optimizers.AdamW(rate, weight_decay=decay)


# What TensorFlow raises in a worker whose partner is gone.
LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


def _reason(error: tf.errors.OpError) -> str:
    """The line of TensorFlow's message that says what happened."""
    lines = [line.strip() for line in error.message.splitlines() if line.strip()]
    return next((x for x in lines if "Error reported from" in x), lines[0])


class Pretraining:
    """A checked and built run; making one does everything but train.

    Args:
      config: of the run.
      source: images to train on; None: those that `config.data` names. From Python,
        `data.sources.from_arrays`.
      backbone: see `build_model`. For several workers it has to be a function: they
        are set up before the first variable is made.

    Raises:
      ValueError: a setting, data set, work directory or device that does not do, in
        one line.
    """

    def __init__(
        self,
        config: Config,
        source: Source | None = None,
        backbone: keras.Model | Callable[[], keras.Model] | None = None,
    ):
        self.config = config
        training = config.training
        # Of several workers one writes the files; the others only train.
        self.share = devices.place(training)
        self.is_chief = self.share[0] == 0
        self.workdir = Workdir(training.workdir)
        self.workdir.check_unchanged(config)
        if self.is_chief:
            self.workdir.lock()
        # Before any tensor is made: devices can only be set up before they are used.
        self.strategy = devices.setup(training)
        with self._lost_workers():
            self._open(source, backbone)

    def _open(self, source: Source | None, backbone) -> None:
        """Data, model and checkpoint, under the strategy."""
        config = self.config
        data, training = config.data, config.training
        if backbone is None:
            encoder.check_name(config.network.backbone)
        self.pair = view_pair(data.views, data.view_strength)
        self.bad_images = BadImages(
            data.max_bad_images, self.workdir.bad_images if self.is_chief else None
        )
        evaluate = self.is_chief and source is None and config.evaluation.knn_every > 0
        self.source = source or training_source(config, self.bad_images)
        self.steps_per_epoch = pipeline.steps_per_epoch(
            self.source, training.batch_size
        )
        self.workdir.check_same_data(self.source)
        evaluation_sources = None
        if evaluate:
            evaluation_sources = labelled_sources(config, self.bad_images)
        with self.strategy.scope():
            self.model = build_model(config, self.steps_per_epoch, self.pair, backbone)
        self.knn = self._knn_monitor(evaluation_sources)
        self.epoch_log = EpochLog(self.workdir.epochs, write=self.is_chief)
        self.tensorboard = TensorBoard(
            str(self.workdir.tensorboard),
            training.batch_size,
            training.log_every,
            self._compared_settings(),
        )
        self.theory = TheoryMonitor(
            self.workdir.theory, config.evaluation.theory_every, self.tensorboard
        )
        self.checkpoints = Checkpoints(
            self.model,
            self.workdir.checkpoints,
            steps_per_epoch=self.steps_per_epoch,
            every=training.checkpoint_every,
            keep=training.keep_checkpoints,
            background=training.background_checkpoints,
            write=self.is_chief,
        )
        self.restored = self.checkpoints.restore()
        self._check_workers_agree()
        self.epoch_log.resume(self.model.steps_done)
        self.theory.resume(self.model.steps_done)
        self._check_steps_per_execution()

    def _compared_settings(self) -> dict[str, Any]:
        """What decides a result; first what is not as by default."""
        usual = Config().to_dict()
        settings = {
            name: value
            for name, value in self.config.to_dict().items()
            if name not in UNCOMPARED
        }
        return dict(
            sorted(settings.items(), key=lambda item: item[1] == usual[item[0]])
        )

    def _check_workers_agree(self) -> None:
        """All workers must train one run: from one step, with the same settings."""
        settings = self.config.to_dict()
        shared = {name: settings[name] for name in settings.keys() - MAY_CHANGE}
        text = json.dumps([shared, self.source.fingerprint], sort_keys=True)
        known = int(hashlib.sha256(text.encode()).hexdigest()[:10], 16)
        if not replicas.agree(self.strategy, [self.model.steps_done, known]):
            raise ValueError(
                f"--workdir: received {str(self.workdir.path)!r} at step "
                f"{self.model.steps_done} on worker {self.share[0]}, and another step, "
                "other settings or other images on another worker, accepted: one "
                "directory that all of them share, and the same flags."
            )

    @contextlib.contextmanager
    def _lost_workers(self) -> Iterator[None]:
        """Says in one line what TensorFlow raises when another worker is gone."""
        try:
            yield
        except LOST as error:
            reason = _reason(error)
            ours = isinstance(error, tf.errors.InternalError) and not (
                "ollective" in error.message or "Error reported from" in error.message
            )
            if self.share[1] == 1 or ours:
                raise
            raise WorkerLost(
                f"worker {self.share[0]} of {self.share[1]} lost another one "
                f"({reason}). Start all of them again: they continue from the last "
                "checkpoint."
            ) from error

    def _check_steps_per_execution(self) -> None:
        """A call of several steps must not run over the end of an epoch."""
        steps = self.config.training.steps_per_execution
        left = -self.model.steps_done % self.steps_per_epoch
        if self.steps_per_epoch % steps or left % steps:
            refuse(
                "steps_per_execution",
                steps,
                f"a divisor of the {self.steps_per_epoch} steps of an epoch"
                + (f", and of the {left} that are left of this one" if left else ""),
            )

    def _knn_monitor(self, labelled: tuple[Source, Source] | None):
        if labelled is None:
            if self.is_chief and self.config.evaluation.knn_every:
                logging.info("no kNN monitor: there is no labelled test split")
            return None
        bank, test = (
            pipeline.evaluation_images(
                source,
                Preprocessing.of_views(self.config.data.views),
                self.config.data.image_size,
                EVALUATION_BATCH,
            )
            for source in labelled
        )
        num_classes = labelled[0].num_classes
        assert num_classes is not None  # `labelled_sources` saw to it
        return KNNMonitor(
            bank,
            test,
            num_classes,
            self.config.evaluation,
            self.config.training.epochs,
        )

    def run(self) -> dict[str, Any]:
        """Trains from the latest checkpoint, or the start, to the last epoch.

        Returns:
          What `result.json` holds: epoch, step, the last metrics, and kNN by epoch.

        Raises:
          FloatingPointError: a number is not finite and `on_nonfinite` is `stop`.
          errors.Preempted: a signal ended the run; a checkpoint was written.
          errors.RunFailed: images cannot be used, or another worker ended.
          OSError: the last checkpoint could not be written.
        """
        try:
            with named_errors(), self._lost_workers():
                return self._run()
        finally:
            self.workdir.unlock()

    def _run(self) -> dict[str, Any]:
        epochs = self.config.training.epochs
        self._log_start()
        step = self.model.steps_done
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        if self.restored:
            logging.info(
                "continuing from %s, epoch %d, step %d of it",
                self.restored,
                epoch + 1,
                step_in_epoch,
            )
        if epoch < epochs:
            if self.is_chief:
                for change in self.workdir.changes() if self.restored else ():
                    logging.warning("the numbers may differ from here on: %s", change)
                self.workdir.write_flags(self.config, self.source)
            with Preemption(self.checkpoints) as preemption:
                callbacks = [*self._callbacks(), preemption]
                if step_in_epoch:
                    self._fit(callbacks, epoch, epoch + 1, step_in_epoch)
                    epoch += 1
                if epoch < epochs:
                    self._fit(callbacks, epoch, epochs)
            self.checkpoints.save()
            self.checkpoints.wait()
        else:
            logging.info("nothing to do: all %d epochs are done", epochs)
        if self.bad_images:
            logging.warning(
                "%d image files could not be used since the start, and were replaced "
                "by their neighbours (see %s)",
                len(self.bad_images),
                self.bad_images.record or "the log",
            )
        result = self._result()
        if self.is_chief:
            self.epoch_log.write()
            self.workdir.write_result(result)
        # A worker that ended earlier would look like a lost one.
        replicas.meet(self.strategy)
        return result

    def _fit(
        self, callbacks: list, start: int, end: int, step_in_epoch: int = 0
    ) -> None:
        """Trains epochs start, ..., end - 1; the first from a step of it on."""
        training = self.config.training
        views = pipeline.training_views(
            self.source,
            self.pair,
            self.config.data.image_size,
            training.batch_size,
            seed=training.seed,
            start_epoch=start,
            start_step=step_in_epoch,
            share=self.share,
            micro_batches=training.accumulation_steps,
            replicas=self.strategy.num_replicas_in_sync // self.share[1],
            distorted=self.config.data.on_host,
        )
        if self.share[1] > 1:
            each = training.batch_size // self.strategy.num_replicas_in_sync
            parts = views.rebatch(each, drop_remainder=True)
            views = self.strategy.distribute_datasets_from_function(lambda _: parts)
        self.model.fit(
            views,
            initial_epoch=start,
            epochs=end,
            steps_per_epoch=self.steps_per_epoch - step_in_epoch,
            callbacks=callbacks,
            shuffle=False,  # the pipeline does
            verbose=0,
        )

    def _result(self) -> dict[str, Any]:
        """The last epoch's metrics, and kNN by epoch."""
        entries = self.epoch_log.entries
        by_epoch = {e["epoch"]: e["knn"] for e in entries if "knn" in e}
        last = entries[-1] if entries else {}
        return {**last, "knn_by_epoch": by_epoch}

    def _callbacks(self) -> list[keras.callbacks.Callback]:
        """In order: those that add to the logs come before those that read them."""
        training, objective = self.config.training, self.config.objective
        logs, profiled = str(self.workdir.tensorboard), training.profiled_steps
        callbacks: list[keras.callbacks.Callback] = []
        if objective.ema:
            total = training.epochs * self.steps_per_epoch
            callbacks.append(
                TargetEMA(
                    schedules.ema_momentum(
                        objective.tau_schedule, objective.tau_base, total
                    )
                )
            )
        skip = training.on_nonfinite == "skip"
        callbacks.append(ReportSkipped() if skip else StopOnNonFinite())
        if self.model.loss_scale is not None:
            callbacks.append(ReportLossScale())
        if not self.is_chief:
            return [*callbacks, self.epoch_log, self.checkpoints]
        if self.knn is not None:
            callbacks.append(self.knn)
        return [
            *callbacks,
            CollapseWarning(),
            Progress(training.batch_size, self.steps_per_epoch, training.epochs),
            self.tensorboard,
            self.theory,
            Pictures(
                self.tensorboard,
                lambda: preview.picture(self.config, self.source),
                self.knn,
                training.log_every,
            ),
            *([Profile(logs, *profiled)] if profiled else []),
            self.epoch_log,
            self.checkpoints,
        ]

    def _log_start(self) -> None:
        config = self.config
        devices.log_devices(self.strategy, config.training)
        if not self.is_chief:
            index, workers = self.share
            logging.info("worker %d of %d: worker 0 logs and writes", index, workers)
            return
        logging.info(
            "%s %s: %d images, %d steps per epoch, %d epochs",
            self.source.name,
            self.source.split,
            self.source.num_examples,
            self.steps_per_epoch,
            config.training.epochs,
        )
        logging.info(
            "%s + projector %d: %s weights; predictor %s, loss %s, %s",
            config.network.backbone,
            config.network.projector_dim,
            f"{self.model.online.count_params():,}",
            config.predictor.predictor,
            config.objective.loss,
            f"EMA {config.objective.tau_base:g} ({config.objective.tau_schedule})"
            if config.objective.ema
            else "no EMA: the target is the online network",
        )
        logging.info(
            "%s: peak learning rate %g (%g x %d/256), %s, warm-up %g epochs",
            config.optimizer.optimizer,
            schedules.peak_learning_rate(
                config.optimizer.base_lr, config.training.batch_size
            ),
            config.optimizer.base_lr,
            config.training.batch_size,
            config.optimizer.lr_schedule,
            config.optimizer.warmup_epochs,
        )
        optimizer = self.model.optimizer
        if isinstance(optimizer, LARS):
            excluded = [
                v.path for v in self.model.learned_variables if optimizer.is_excluded(v)
            ]
            logging.info(
                "LARS: %d of %d variables without decay and trust ratio: %s",
                len(excluded),
                len(self.model.learned_variables),
                ", ".join(excluded),
            )
