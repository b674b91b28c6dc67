"""What a program gives a run beside its settings: images, a backbone, views."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from absl import logging

from tf_dpred.callbacks.target_ema import TargetEMA
from tf_dpred.config import Config, DataConfig, NetworkConfig, refuse
from tf_dpred.data.own_views import OwnViews, Views
from tf_dpred.data.source import Source
from tf_dpred.data.views import ViewPair, of_config
from tf_dpred.evaluation.labelled import Labelled
from tf_dpred.networks import given
from tf_dpred.networks.given import Backbone
from tf_dpred.records import own
from tf_dpred.records.workdir import Workdir
from tf_dpred.views import TwoViews

# Settings that mean nothing for images, and for a backbone, that a program gives.
_OF_IMAGES = ("data_dir", "columns", "train_size")
_OF_NAMED = ("width", "stem", "zero_init_last_gamma", "patch_size", "pooling")


class Supplied:
    """The arguments of `Pretraining`, and what a work directory holds in their place.

    Args:
      config: of the run.
      workdir: of the run.
      source, backbone, views, labelled, callbacks: see `Pretraining`.

    Attributes:
      config: with the names of the images and of the backbone.
      backbone: given, or that of the work directory; None: the settings'.

    Raises:
      Refused: an argument of another type, or the run in the work directory needs one
        that is not given.
    """

    def __init__(
        self,
        config: Config,
        workdir: Workdir,
        source: Source | None,
        backbone: Backbone | None,
        views: Views | tuple[Views, Views] | str | None,
        labelled: Labelled | None,
        callbacks: Sequence[keras.callbacks.Callback],
    ):
        _check_types(source, backbone, labelled, callbacks)
        before = own.recorded(workdir)
        if source is None and "source" in before:
            _refuse_without(workdir, "images", before["source"], "source")
        self.workdir = workdir
        self.source, self.labelled, self.callbacks = source, labelled, callbacks
        self.backbone, self._made = backbone, None
        self._name = None if backbone is None else own.name_of(backbone)
        if backbone is None and "backbone" in before:
            self.backbone = lambda: own.stored_backbone(workdir)
            self._name = before["backbone"]["name"]
        elif backbone is not None and not isinstance(backbone, keras.layers.Layer):
            self.backbone = self._make_and_keep
            self._make = backbone
        if source is not None:
            config = _replaced(
                config, "data", _OF_IMAGES, dataset=source.name, split=source.split
            )
        if self._name is not None:
            config = _replaced(config, "network", _OF_NAMED, backbone=self._name)
        if isinstance(views, str):
            strength = config.data.view_strength if views == "simclr" else 1.0
            config = _with(config, "data", views=views, view_strength=strength)
            views = None
        if isinstance(views, TwoViews):
            _check_size(views, config.data.image_size)
            if isinstance(views.recipe, str):
                named = {"views": views.recipe, "view_strength": views.strength}
                config = _with(config, "data", **named)
            if of_config(config) == views.pair:
                views = None  # the settings say it all
        if views is not None and not config.data.on_host:
            accepted = "host with views that a program gives"
            refuse("augment_on", config.data.augment_on, accepted)
        self.config, self._views = config, views

    @functools.cached_property
    def pair(self) -> ViewPair | OwnViews:
        """How the two views are made; not before devices are set up."""
        data = self.config.data
        if self._views is None:
            stored = own.stored_views(self.workdir, data.image_size)
            return stored or of_config(self.config)
        return OwnViews(self._views, data.image_size)

    def _make_and_keep(self) -> keras.layers.Layer:
        """What a user's function makes; the first one is kept, to be stored."""
        made = self._make()
        if self._made is None:
            self._made = made
        return made

    def record(self, online: keras.Model, seen: np.ndarray | None) -> dict[str, Any]:
        """What flags.json says of all this, see `records.own`.

        Args:
          online: the built network.
          seen: some of the views, where a program gave them.
        """
        record: dict[str, Any] = {}
        if self.source is not None:
            record["source"] = self.source.name
        if self._name is not None:
            record["backbone"] = {"name": self._name, "layers": own.digest(online)}
        if isinstance(self.pair, OwnViews) and seen is not None:
            record["views"] = {"name": self.pair.name, "seen": own.quarters(seen)}
        if self.callbacks:
            record["callbacks"] = [type(c).__name__ for c in self.callbacks]
        return record

    def store(self, *, begins: bool) -> None:
        """Stores backbone and views; a warning says what cannot be.

        Args:
          begins: nothing was trained yet. Later, the model that a function made is not
            any more what it was.
        """
        model = self.backbone if isinstance(self.backbone, keras.layers.Layer) else None
        if model is None and begins:
            model = self._made
        if model is not None:
            model = given.prepared(
                model, self.config.data.image_size, self.config.pixels.count
            )
        own.store(
            self.workdir,
            model,
            self.pair if isinstance(self.pair, OwnViews) else None,
        )


def _check_types(source, backbone, labelled, callbacks) -> None:
    if source is not None and not isinstance(source, Source):
        accepted = "a Source: data.source.from_arrays(images), indexed(...)"
        refuse("source", type(source).__name__, accepted)
    sources = labelled if isinstance(labelled, (tuple, list)) else (labelled,)
    if labelled is not None and (
        len(sources) > 2 or not all(isinstance(s, Source) for s in sources)
    ):
        accepted = "a Source with labels, or two, searched and classified"
        refuse("labelled", type(labelled).__name__, accepted)
    if backbone is not None and not callable(backbone):
        accepted = "a Keras model, or a function that makes one; names: --backbone"
        refuse("backbone", backbone, accepted)
    for callback in callbacks:
        if isinstance(callback, TargetEMA):
            refuse("callbacks", "TargetEMA", "others; --tau_base sets the run's own")
        if not isinstance(callback, keras.callbacks.Callback):
            accepted = "a list of keras.callbacks.Callback"
            refuse("callbacks", type(callback).__name__, accepted)


def _check_size(views: TwoViews, image_size: int) -> None:
    if views.image_size != image_size:
        accepted = f"TwoViews of --image_size={image_size}"
        refuse("views", f"TwoViews(image_size={views.image_size})", accepted)


def _refuse_without(workdir: Workdir, what: str, name: str, argument: str) -> None:
    refuse(
        "workdir",
        str(workdir.path),
        f"Pretraining(..., {argument}=...) with the same {what}, or a new workdir",
        detail=f", which holds a run on {what} that a program gave it ({name})",
    )


def _with(config: Config, section: str, **values: Any) -> Config:
    """A Config with other values in one of its sections."""
    changed = dataclasses.replace(getattr(config, section), **values)
    return dataclasses.replace(config, **{section: changed})


def _replaced(
    config: Config, section: str, meaningless: Sequence[str], **values: Any
) -> Config:
    """As `_with`; what means nothing then has its default, which a warning says."""
    kind = {"data": DataConfig, "network": NetworkConfig}[section]
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(kind)
        if field.name in meaningless
    }
    now = getattr(config, section)
    for name, default in defaults.items():
        if getattr(now, name) != default:
            logging.warning(
                "--%s=%s means nothing for a %s that a program gives",
                name,
                getattr(now, name),
                "source" if section == "data" else "backbone",
            )
    return _with(config, section, **defaults, **values)
