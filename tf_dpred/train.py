"""Pre-training: open what a Config names, continue where it stopped, train, finish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from absl import logging

from tf_dpred import build, errors, monitors
from tf_dpred.config import Config, FilesConfig
from tf_dpred.data import balance, datasets, device_views, pipeline, value_range
from tf_dpred.data.bad_images import BadImages, named_errors
from tf_dpred.data.own_views import OwnViews, Views
from tf_dpred.data.source import Source
from tf_dpred.data.views import ViewPair, check_channels
from tf_dpred.encoders import initial
from tf_dpred.evaluation.labelled import Labelled
from tf_dpred.networks import backbones
from tf_dpred.records import continuation, flags_json, own, provenance
from tf_dpred.records.lock import Lock
from tf_dpred.records.workdir import Workdir
from tf_dpred.reports import opening
from tf_dpred.step.multi_worker import lost_workers_named
from tf_dpred.supplied import Supplied
from tf_dpred.system import devices, json_files, memory, replicas

# What to do where the memory does not suffice.
ADVICE = (
    "lower --batch_size, or raise --accumulation_steps, which splits it; set --remat; "
    "lower --image_size or --width"
)


class Pretraining:
    """A checked and built run; making one does everything but train.

    Args:
      config: of the run.
      source: images to train on; None: those that `config.data` names. From Python,
        `data.source.from_arrays`.
      backbone: see `build.model`. For several workers it has to be a function: no
        variable may be made before the workers are set up.
      callbacks: Keras callbacks beside the run's own; see `build.callbacks`.
      views: makes the two views of an image in place of `config.data.views`, which
        still says how images are normalised and evaluated: a `TwoViews`, the name of a
        recipe, Keras layers or functions, see `data.own_views.OwnViews`.
      labelled: images of the kNN monitor where `source` is given: a source to be
        searched and one to be classified, or one for both; None: `source`, if it has
        labels. No label is seen in training.

    What is given is recorded in flags.json. The backbone, and views of layers, are
    stored in the work directory, from which they are taken if a continued run is not
    given them; training begins with a warning where that cannot be done.

    Attributes:
      config: of the run, with the names of what was given.
      model: the `DirectPred` that is trained.
      restored: the checkpoint that the run continues from, or None.

    Raises:
      Refused: a setting, data set, work directory or device that cannot be used, in
        one line. Nothing stays locked.
    """

    def __init__(
        self,
        config: Config,
        source: Source | None = None,
        backbone: build.Backbone | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        *,
        views: Views | tuple[Views, Views] | str | None = None,
        labelled: Labelled | None = None,
    ):
        # One of several workers writes the files; the others only train.
        self.place = devices.place(config.training)
        self.workdir = Workdir(config.training.workdir)
        made = self.workdir.create()
        self.lock = Lock(self.workdir.lock)
        try:
            if self.place.is_chief:
                self.lock.acquire()
            config = provenance.settled(self.workdir, config)
            self.supplied = Supplied(
                config, self.workdir, source, backbone, views, labelled, callbacks
            )
            self.config = config = self.supplied.config
            provenance.check_settings(self.workdir, config)
            # Before any tensor is made: devices cannot be set up once they are used.
            self.strategy = devices.setup(config.training)
            with lost_workers_named(self.place), memory.shortage_named(ADVICE):
                self._open()
                self._restore()
        except BaseException:
            # Nothing is left of a run that has not begun.
            if made:
                self.lock.remove()
            self.lock.release()
            self.workdir.remove(made)
            raise

    def _open(self) -> None:
        """Opens the images, and builds the model and the callbacks."""
        config, given = self.config, self.supplied
        self.pair = given.pair
        if given.backbone is None:
            backbones.check_name(config.network.backbone)
        record = self.workdir.bad_images if self.place.is_chief else None
        self.bad_images = BadImages(config.data.max_bad_images, record)
        found = None
        if given.source is None:
            found = datasets.of_config(config)
            config = datasets.settled(config, found)
        else:
            config = value_range.of_source(config, given.source)
        if isinstance(self.pair, ViewPair):
            check_channels(config, self.pair)
        self.source = given.source or datasets.training_source(
            config, self.bad_images, found
        )
        self.source = balance.of_config(config, self.source)
        self.config = config = pipeline.with_measured(config, self.source)
        pipeline.check_last_batch(config, self.strategy.num_replicas_in_sync)
        self.steps_per_epoch = pipeline.steps_per_epoch(
            self.source, config.training.batch_size, config.data.keep_last_batch
        )
        provenance.check_images(self.workdir, self.source)
        seen = None
        if isinstance(self.pair, OwnViews):
            with named_errors():
                seen = self.pair.check(self.source)
        knn = quality = None
        if self.place.is_chief:
            knn, quality = monitors.of_config(config, self.bad_images, found, given)
        has_backbone = given.backbone is not None
        start = initial.of_run(config, self.workdir, has_backbone=has_backbone)
        with self.strategy.scope():
            self.feed = device_views.feed(config.data, self.pair, self.source)
            self.model = build.model(
                config,
                self.steps_per_epoch,
                self.pair,
                given.backbone,
                start,
                make_views=self.feed.make_views,
            )
        self.own = given.record(self.model.online, seen)
        own.check(self.workdir, self.own)
        self.callbacks = build.callbacks(
            config,
            self.workdir,
            self.model,
            self.source,
            self.steps_per_epoch,
            knn=knn,
            quality=quality,
            extra=given.callbacks,
            is_chief=self.place.is_chief,
            run=flags_json.identity(self.workdir),
            pair=self.pair,
        )

    def _restore(self) -> None:
        """Restores the last checkpoint, and the curves up to its step."""
        saved = self.callbacks.checkpoints
        self.restored = saved.restore()
        saved.run = saved.run or flags_json.new_identity(self.workdir)
        if self.restored is None:
            continuation.check_nothing_is_lost(self.workdir)
        step = self.model.steps_done
        continuation.check_workers_agree(
            self.strategy, self.place, self.config, step, self.source, self.own
        )
        self.callbacks.epoch_log.resume(step)
        self.callbacks.checkpoints.resume_best(self.callbacks.epoch_log.entries)
        if self.place.is_chief:
            entries = self.callbacks.epoch_log.entries
            continuation.name_lost_epochs(
                self.workdir, entries, step // self.steps_per_epoch
            )
        if self.callbacks.theory is not None:
            self.callbacks.theory.resume(step)
        continuation.check_steps_per_execution(self.config, step, self.steps_per_epoch)

    def train(self) -> dict[str, Any]:
        """Trains from the latest checkpoint, or the start, to the last epoch.

        Returns:
          What `result.json` holds: epoch, step, the last metrics, and kNN by epoch.

        Raises:
          FloatingPointError: a number is not finite and `on_nonfinite` is `stop`.
          errors.Preempted: a signal ended the run; a checkpoint was written.
          errors.RunFailed: images cannot be used, another worker ended, or the memory
            does not suffice.
          OSError: the last checkpoint could not be written.
          Refused: another run has taken the work directory since this one was made.
        """
        try:
            if self.place.is_chief:
                self.lock.start_training()
                continuation.check_is_latest(self.workdir, self.model.steps_done)
            with (
                memory.shortage_named(ADVICE),
                named_errors(),
                lost_workers_named(self.place),
            ):
                opening.log(self)
                self._fit()
                return self._finish()
        finally:
            self.lock.release()

    def _fit(self) -> None:
        """Trains the rest of an epoch that was begun, then the whole epochs."""
        epochs = self.config.training.epochs
        epoch, step_in_epoch = divmod(self.model.steps_done, self.steps_per_epoch)
        if epoch >= epochs:
            logging.info("nothing to do: all %d epochs are done", epochs)
            return
        if self.place.is_chief:
            found = provenance.changes(self.workdir, self.config)
            for change in found if self.restored else ():
                logging.warning("the numbers may differ from here on: %s", change)
            run = self.callbacks.checkpoints.run
            provenance.write(self.workdir, self.config, self.source, run, self.own)
            self.supplied.store(begins=not self.model.steps_done)
        with self.callbacks.preemption:
            if step_in_epoch:
                self._fit_epochs(epoch, epoch + 1, step_in_epoch)
                epoch += 1
            if epoch < epochs:
                self._fit_epochs(epoch, epochs)
        self.callbacks.checkpoints.save()
        self.callbacks.checkpoints.wait()

    def _fit_epochs(self, first: int, stop: int, step_in_epoch: int = 0) -> None:
        """Trains epochs first, ..., stop - 1; the first one from `step_in_epoch` on."""
        training = self.config.training
        stream = pipeline.training_views(
            self.feed.source,
            self.pair,
            self.config.data.image_size,
            training.batch_size,
            seed=training.seed,
            start_epoch=first,
            start_step=step_in_epoch,
            share=(self.place.index, self.place.workers),
            micro_batches=training.accumulation_steps,
            replicas=self.strategy.num_replicas_in_sync // self.place.workers,
            distorted=self.feed.distorted,
            cropped=self.feed.cropped,
            keep_last=self.config.data.keep_last_batch,
        )
        if self.place.workers > 1:
            each = training.batch_size // self.strategy.num_replicas_in_sync
            parts = stream.rebatch(each, drop_remainder=True)
            stream = self.strategy.distribute_datasets_from_function(lambda _: parts)
        self.model.fit(
            stream,
            initial_epoch=first,
            epochs=stop,
            steps_per_epoch=self.steps_per_epoch - step_in_epoch,
            callbacks=list(self.callbacks.in_order),
            shuffle=False,  # the pipeline shuffles
            verbose=0,
        )

    def _finish(self) -> dict[str, Any]:
        """Writes the result, once all workers are here -> what result.json holds."""
        self.bad_images.warn_of_all()
        result = self.callbacks.epoch_log.result()
        if self.place.is_chief:
            self.callbacks.epoch_log.write()
            json_files.write(self.workdir.result, result)
        # A worker that ended earlier would look like a lost one.
        replicas.meet(self.strategy)
        return result


def run(config: Config, files: FilesConfig) -> int | None:
    """Runs `--mode=pretrain`."""
    try:
        Pretraining(config).train()
    except errors.Preempted as stop:
        logging.info("%s", stop)
        return errors.PREEMPTED
    return None
