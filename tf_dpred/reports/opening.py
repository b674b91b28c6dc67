"""What a run says about itself before its first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import logging

from tf_dpred import schedules
from tf_dpred.optimizers import LARS
from tf_dpred.system import devices

if TYPE_CHECKING:
    from tf_dpred.train import Pretraining


def log(run: Pretraining) -> None:
    """Logs devices, images, networks, optimizer and where the run continues."""
    config, model, place = run.config, run.model, run.place
    devices.log_devices(run.strategy, config.training)
    if not place.is_chief:
        logging.info(
            "worker %d of %d: worker 0 logs and writes", place.index, place.workers
        )
        return
    logging.info(
        "%s %s: %d images, %d steps per epoch, %d epochs",
        run.source.name,
        run.source.split,
        run.source.num_examples,
        run.steps_per_epoch,
        config.training.epochs,
    )
    objective, optimizer = config.objective, config.optimizer
    logging.info(
        "%s + projector %d: %s weights; predictor %s, loss %s, %s",
        config.network.backbone,
        config.network.projector_dim,
        f"{model.online.count_params():,}",
        config.predictor.predictor,
        objective.loss,
        f"EMA {objective.tau_base:g} ({objective.tau_schedule})"
        if objective.ema
        else "no EMA: the target is the online network",
    )
    logging.info(
        "%s: peak learning rate %g (%g x %d/256), %s, warm-up %g epochs",
        optimizer.optimizer,
        schedules.peak_learning_rate(optimizer.base_lr, config.training.batch_size),
        optimizer.base_lr,
        config.training.batch_size,
        optimizer.lr_schedule,
        config.warmup_epochs,
    )
    if config.warmup_epochs != optimizer.warmup_epochs:
        logging.info(
            "--warmup_epochs: %g is not less than --epochs=%d and is shortened to %g",
            optimizer.warmup_epochs,
            config.training.epochs,
            config.warmup_epochs,
        )
    if isinstance(model.optimizer, LARS):
        learned = model.learned_variables
        excluded = [v.path for v in learned if model.optimizer.is_excluded(v)]
        logging.info(
            "LARS: %d of %d variables without decay and trust ratio: %s",
            len(excluded),
            len(learned),
            ", ".join(excluded),
        )
    if run.restored and model.steps_done < run.steps_per_epoch * config.training.epochs:
        epoch, step = divmod(model.steps_done, run.steps_per_epoch)
        logging.info(
            "continuing from %s, epoch %d, step %d of it", run.restored, epoch + 1, step
        )
