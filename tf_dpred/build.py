"""Builds the parts of a run from its Config; nothing is trained here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from tf_dpred import schedules
from tf_dpred.callbacks.checkpointing import Checkpointing
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
from tf_dpred.callbacks.quality_monitor import QualityMonitor
from tf_dpred.callbacks.target_ema import TargetEMA
from tf_dpred.callbacks.tensorboard import TensorBoard
from tf_dpred.callbacks.theory_monitor import TheoryMonitor
from tf_dpred.config import Config
from tf_dpred.data.device_views import ViewsFromCrops
from tf_dpred.data.own_views import OwnViews
from tf_dpred.data.source import Source
from tf_dpred.data.views import ViewPair
from tf_dpred.encoders import restore
from tf_dpred.encoders.initial import Weights
from tf_dpred.model import DirectPred
from tf_dpred.networks import encoder, parts
from tf_dpred.networks.given import Backbone
from tf_dpred.optimizers import LARS, SGD
from tf_dpred.predictors import make_predictor
from tf_dpred.records.provenance import MAY_CHANGE
from tf_dpred.records.workdir import Workdir
from tf_dpred.reports import preview


def model(
    config: Config,
    steps_per_epoch: int,
    pair: ViewPair | OwnViews,
    backbone: Backbone | None = None,
    start: Weights | None = None,
    *,
    make_views: Callable[..., tuple] | None = None,
) -> DirectPred:
    """A compiled model; call it under `strategy.scope()`.

    Args:
      config: of the run.
      steps_per_epoch: optimizer steps, for the schedules.
      pair: how the two views are made, for devices that make them from crops.
      backbone: a Keras model to use instead of `config.network.backbone`, or a function
        that makes one: images [n, s, s, 3] -> features, see `encoder.join`. It gets
        normalised images, or pixels if it normalises by itself.
      start: what both networks start from where it fits them.
      make_views: of `data.device_views.feed`; None: `config` says it, and from crops.
    """
    objective = config.objective
    online = _network("online", config, backbone)
    target = _network("target", config, backbone) if objective.ema else None
    for network in (online, target):
        if start is not None and network is not None:
            start.assign(network)
    if target is not None and objective.target_init == "copy":
        target.set_weights(online.get_weights())
    if make_views is None and isinstance(pair, ViewPair) and not config.data.on_host:
        make_views = ViewsFromCrops(pair)
    built = DirectPred(
        online,
        target,
        make_predictor(config.predictor),
        loss=objective.loss,
        symmetric=objective.symmetric_loss,
        stop_gradient=objective.stop_gradient,
        accumulation_steps=config.training.accumulation_steps,
        skip_nonfinite=config.training.on_nonfinite == "skip",
        make_views=make_views,
        remat=config.training.remat,
    )
    rates = optimizer(config, learning_rate(config, steps_per_epoch))
    _set_rates_of_parts(rates, online, config, steps_per_epoch)
    built.compile(
        rates,
        predictor_weight_decay=config.optimizer.predictor_weight_decay,
        predictor_learning_rate=predictor_learning_rate(config, steps_per_epoch),
        jit_compile=config.training.jit_compile,
        run_eagerly=config.training.run_eagerly,
        steps_per_execution=config.training.steps_per_execution,
    )
    return built


def _network(name: str, config: Config, backbone: Backbone | None) -> keras.Model:
    network = restore.new_network(config, name, backbone)
    if config.network.freeze is not None:
        parts.freeze(network, config.network.freeze)
    return network


def learning_rate(
    config: Config, steps_per_epoch: int, *, multiplier: float = 1.0
) -> float | LearningRateSchedule:
    """The schedule of a config: linear scaling, warm-up, then constant or cosine."""
    peak = schedules.peak_learning_rate(
        config.optimizer.base_lr * multiplier, config.training.batch_size
    )
    total = config.training.epochs * steps_per_epoch
    # A warm-up that is shorter than the run may still round to all of its steps.
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total - 1)
    return schedules.learning_rate(config.optimizer.lr_schedule, peak, warmup, total)


def predictor_learning_rate(
    config: Config, steps_per_epoch: int
) -> float | LearningRateSchedule | None:
    """The predictor's own rate, or None where it shares the network's."""
    multiplier = config.optimizer.predictor_lr_multiplier
    if config.optimizer.predictor_lr_schedule == "constant":
        base_lr = config.optimizer.base_lr * multiplier
        return schedules.peak_learning_rate(base_lr, config.training.batch_size)
    if multiplier == 1.0:
        return None
    return learning_rate(config, steps_per_epoch, multiplier=multiplier)


def optimizer(
    config: Config, rate: float | LearningRateSchedule
) -> keras.optimizers.Optimizer:
    """The optimizer of a config at a learning rate."""
    momentum, decay = config.optimizer.momentum, config.optimizer.weight_decay
    if config.optimizer.optimizer == "lars":
        return LARS(rate, momentum=momentum, weight_decay=decay)
    if config.optimizer.optimizer == "sgd":
        return SGD(rate, momentum=momentum, weight_decay=decay)
    return keras.optimizers.AdamW(rate, weight_decay=decay)


def _set_rates_of_parts(
    rates: keras.optimizers.Optimizer,
    online: keras.Model,
    config: Config,
    steps_per_epoch: int,
) -> None:
    """Gives the parts of the backbone the learning rates of a warm start."""
    decay = config.optimizer.layer_lr_decay
    rest = round(config.optimizer.projector_only_epochs * steps_per_epoch)
    if decay == 1.0 and rest == 0:
        return
    found = [
        [weight for layer in layers for weight in layer.weights]
        for layers in parts.of_network(online).values()
    ]
    if decay == 1.0:
        found = [list(encoder.backbone_weights(online).values())]
    for behind, weights in enumerate(reversed(found), start=1):
        rate = learning_rate(config, steps_per_epoch, multiplier=decay**behind)
        rate = schedules.Resting(rate, rest) if rest else rate
        rates.set_group(weights, learning_rate=rate)


@dataclasses.dataclass(frozen=True)
class Callbacks:
    """The callbacks of a run.

    Attributes:
      in_order: all of them, in the order in which Keras calls them.
      epoch_log, theory, checkpoints, preemption: those that `train` also calls itself;
        `theory` is None on all workers but the chief.
    """

    in_order: Sequence[keras.callbacks.Callback]
    epoch_log: EpochLog
    theory: TheoryMonitor | None
    checkpoints: Checkpointing
    preemption: Preemption


def callbacks(
    config: Config,
    workdir: Workdir,
    model: DirectPred,
    source: Source,
    steps_per_epoch: int,
    *,
    knn: KNNMonitor | None = None,
    quality: QualityMonitor | None = None,
    extra: Sequence[keras.callbacks.Callback] = (),
    is_chief: bool = True,
    run: str | None = None,
    pair: ViewPair | OwnViews | None = None,
) -> Callbacks:
    """All callbacks of a run, and why they run in this order.

    Args:
      config: of the run.
      workdir: where they write.
      model: compiled.
      source: of the training images, for the picture of their views.
      steps_per_epoch: optimizer steps.
      knn: the monitor; None without labelled images.
      quality: the monitor; None: no label-free measures.
      extra: the user's callbacks; they see what `first` adds to the logs.
      is_chief: False for the workers that write no files.
      run: identity of the run.
    """
    training, objective = config.training, config.objective
    epoch_log = EpochLog(workdir.epochs, write=is_chief)

    # First those that add to the logs: tau, skipped steps, the loss scale, kNN and the
    # label-free measures. A step that is not finite ends the run here, before anything
    # about it is written.
    first: list[keras.callbacks.Callback] = []
    if objective.ema:
        total = training.epochs * steps_per_epoch
        momentum = (objective.tau_schedule, objective.tau_base, total)
        first.append(TargetEMA(schedules.ema_momentum(*momentum)))
    skip = training.on_nonfinite == "skip"
    first.append(ReportSkipped() if skip else StopOnNonFinite())
    if model.loss_scale is not None:
        first.append(ReportLossScale())
    first += [monitor for monitor in (knn, quality) if monitor is not None]

    # Then those that show the logs. Pictures need the features of the kNN monitor, and
    # the theory's curves go through TensorBoard.
    shown: list[keras.callbacks.Callback] = []
    theory = None
    if is_chief:
        tensorboard = TensorBoard(
            str(workdir.tensorboard),
            training.batch_size,
            training.log_every,
            compared_settings(config),
        )
        theory = TheoryMonitor(
            workdir.theory, config.evaluation.theory_every, tensorboard
        )
        shown = [
            CollapseWarning(),
            Progress(training.batch_size, steps_per_epoch, training.epochs),
            tensorboard,
            theory,
            Pictures(
                tensorboard,
                lambda: preview.picture(config, source, pair),
                knn,
                training.log_every,
            ),
        ]
        if training.profiled_steps:
            shown.append(Profile(str(workdir.tensorboard), *training.profiled_steps))

    checkpoints = Checkpointing(
        model,
        workdir.checkpoints,
        steps_per_epoch=steps_per_epoch,
        every=training.checkpoint_every,
        keep=training.keep_checkpoints,
        best=training.keep_best,
        background=training.background_checkpoints,
        write=is_chief,
        run=run,
        records=[epoch_log] if theory is None else [epoch_log, theory],
    )

    # Last those that save: an epoch's line before its checkpoint. Preemption ends the
    # run.
    preemption = Preemption(checkpoints)
    saved = [epoch_log, checkpoints, preemption]
    return Callbacks(
        [*first, *extra, *shown, *saved], epoch_log, theory, checkpoints, preemption
    )


def compared_settings(config: Config) -> dict[str, Any]:
    """The settings that decide a result; those that are not defaults come first."""
    usual = Config().to_dict()
    # What a continued run may change does not decide its result, except `epochs`.
    settings = {
        name: value
        for name, value in config.to_dict().items()
        if name not in MAY_CHANGE - {"epochs"}
    }
    return dict(sorted(settings.items(), key=lambda item: item[1] == usual[item[0]]))
