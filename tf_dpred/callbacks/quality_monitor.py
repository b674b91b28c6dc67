"""Label-free measures of both networks while training."""

from __future__ import annotations

from collections.abc import Callable

import keras
from absl import logging

from tf_dpred.evaluation.features import Outputs
from tf_dpred.evaluation.verdict import Rate
from tf_dpred.evaluation.views import HeldOutViews, ViewMeasures


class QualityMonitor(keras.callbacks.Callback):
    """Adds `quality.MEASURES` to the logs: before training, every N epochs, at the end.

    A name without prefix is of the online network's representation; `projection_`,
    `target_` and `target_projection_` say which other features it is of.
    `view_images` is how many images were measured, and `view_held_out` whether they are
    no training images. The networks run in inference mode: nothing that trains changes.

    Args:
      views: makes the views, when they are needed for the first time.
      every: epochs between measurements.
      epochs: of the whole run.
      outputs: makes `Outputs` of a network; monitors that share it trace once.
    """

    def __init__(
        self,
        views: Callable[[], HeldOutViews],
        every: int,
        epochs: int,
        outputs: Callable[[keras.Model], Outputs] = Outputs,
    ):
        super().__init__()
        self._outputs = outputs
        self._make_views = views
        self._views: HeldOutViews | None = None
        self.every = every
        self.epochs = epochs

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._networks = {"": ViewMeasures(self._outputs(model.online))}
        if model.has_separate_target:
            self._networks["target_"] = ViewMeasures(self._outputs(model.target))

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self.model.steps_done == 0:
            self._measure(0, logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        done = epoch + 1
        if done % self.every == 0 or done == self.epochs:
            self._measure(done, logs)

    def _measure(self, epoch: int, logs: dict | None) -> None:
        if self._views is None:
            self._views = self._make_views()
        found: dict[str, float] = {}
        try:
            for prefix, measures in self._networks.items():
                numbers = measures(self._views)
                found |= {f"{prefix}{name}": value for name, value in numbers.items()}
        except ValueError as error:
            logging.warning("epoch %d: no view retrieval: %s", epoch, error)
            return
        count = len(self._views.first)
        logging.info(
            "epoch %d: view retrieval %s, %d %s",
            epoch,
            Rate(found["view_top1"], count),
            count,
            "held-out images" if self._views.held_out else "training images",
        )
        if logs is not None:
            logs.update(found, view_images=count, view_held_out=self._views.held_out)
