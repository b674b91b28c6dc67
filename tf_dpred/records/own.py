"""What a program gave a run beside its settings: images, backbone, views, callbacks.

flags.json names them under `own`. The backbone, as it was given, is stored beside it as
backbone.keras, layers that make views as views.json; so the run can be evaluated,
exported and continued by programs that do not have them.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import logging

from tf_dpred.config import refuse
from tf_dpred.data.own_views import OwnViews
from tf_dpred.networks import given
from tf_dpred.records import flags_json
from tf_dpred.records.workdir import Workdir
from tf_dpred.system import files, json_files, keras_private

# The means of the quarters of some views, 0 to 255, are compared. They may differ by so
# much where another version or processor rounds in another way.
NEAR = 3
# Packages whose objects every program of this package can load.
KNOWN = re.compile(r"keras(\.|$)|builtins$|tf_dpred(\.|$)")


def recorded(workdir: Workdir) -> dict[str, Any]:
    """`own` of flags.json; empty where no program gave anything."""
    return (flags_json.read(workdir) or {}).get("own", {})


def name_of(backbone: given.Backbone) -> str:
    """What to call a user's backbone: its name without Keras' number."""
    name: str = getattr(backbone, "__name__", "backbone")
    if isinstance(backbone, keras.layers.Layer):
        name = backbone.name
    return re.sub(r"_\d+$", "", name)


def digest(model: keras.Model) -> str:
    """Tells models of other layers apart, whatever Keras called these."""
    layers = []
    for layer in keras_private.all_layers(model):
        try:
            config = layer.get_config()
        except Exception:  # whatever a user's layer raises; its class is known
            config = {}
        settings = {
            name: value
            for name, value in config.items()
            if isinstance(value, _PLAIN) and name not in _OF_USE
        }
        shapes = [tuple(weight.shape) for weight in layer.weights]
        layers.append([type(layer).__name__, settings, shapes])
    text = json.dumps(layers, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# What a layer's config says of what it is, and not of where and how it is used.
_PLAIN = (bool, int, float, str, tuple, type(None))
_OF_USE = ("name", "trainable", "synchronized", "batch_shape")


def quarters(views: np.ndarray) -> str:
    """Mean colours of the quarters of views, uint8 [n, 2, S, S, 3], as hex digits."""
    half = views.shape[2] // 2
    parts = [
        views[:, :, top : top + half, left : left + half].mean(axis=(2, 3))
        for top in (0, half)
        for left in (0, half)
    ]
    return np.rint(np.stack(parts)).astype(np.uint8).tobytes().hex()


def check(workdir: Workdir, now: dict[str, Any]) -> None:
    """Refuses to continue a run with another backbone or other views than its own.

    Args:
      workdir: of the run.
      now: as `recorded`, of the program that continues it.

    Raises:
      Refused: says which.
    """
    if flags_json.read(workdir) is None:
        return
    before = recorded(workdir)
    same = {"backbone": _are_equal, "views": _are_near}
    for what, are_same in same.items():
        old, new = before.get(what), now.get(what)
        if old is None and new is None:
            continue
        if old is None or new is None or not are_same(old, new):
            names = [
                "its settings'" if each is None else each["name"] for each in (old, new)
            ]
            refuse(
                "workdir",
                str(workdir.path),
                f"Pretraining(..., {what}=...) as it began, or a new workdir",
                detail=f", which holds a run on other {what} ({' -> '.join(names)})",
            )


def _are_equal(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return old["layers"] == new["layers"]


def _are_near(old: dict[str, Any], new: dict[str, Any]) -> bool:
    a, b = (np.frombuffer(bytes.fromhex(x["seen"]), np.uint8) for x in (old, new))
    return a.shape == b.shape and bool(np.all(np.abs(a.astype(int) - b) <= NEAR))


def store(
    workdir: Workdir, backbone: keras.Model | None, views: OwnViews | None
) -> None:
    """Stores what is not stored yet; says what cannot be, and what that means."""
    if backbone is not None and not workdir.backbone.exists():
        if reason := _store_backbone(workdir.backbone, backbone):
            logging.warning(
                "the backbone cannot be stored (%s): evaluation, export and embed of "
                "%s need Python, restore.open_encoder(config, backbone=...)",
                reason,
                workdir.path,
            )
    if views is not None and not workdir.views.exists():
        if reason := _store_views(workdir.views, views):
            logging.warning(
                "the views %s cannot be stored (%s): to continue %s, "
                "Pretraining(..., views=...) needs them again",
                views.name,
                reason,
                workdir.path,
            )


def _store_backbone(path: Path, model: keras.Model) -> str | None:
    """Writes a model, or says why other programs could not load it."""
    unfinished = path.with_name(f".{path.name}")  # Keras asks for this suffix
    try:
        with files.errors_named(path):
            model.save(unfinished)
        with zipfile.ZipFile(unfinished) as archive:
            config = json.loads(archive.read("config.json"))
        if strange := sorted(set(_strange(config))):
            return f"other programs do not know {', '.join(strange)}"
        keras.saving.load_model(unfinished, safe_mode=True, compile=False)
        unfinished.replace(path)
    except OSError:
        raise
    except Exception as error:  # whatever a user's layer raises
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        unfinished.unlink(missing_ok=True)
    return None


def _store_views(path: Path, views: OwnViews) -> str | None:
    parts = views.views if isinstance(views.views, tuple) else (views.views,)
    if not all(isinstance(part, keras.layers.Layer) for part in parts):
        return "a function"
    try:
        stored = [keras.saving.serialize_keras_object(part) for part in parts]
        text = json.dumps(stored)
        for part in json.loads(text):
            keras.saving.deserialize_keras_object(part, safe_mode=True)
    except Exception as error:  # whatever a user's layer raises
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if strange := sorted(set(_strange(stored))):
        return f"other programs do not know {', '.join(strange)}"
    files.write_whole(path, json.dumps({"views": stored}, indent=2) + "\n")
    return None


def _strange(config: Any) -> Iterator[str]:
    """Classes in a Keras config that only the program knows that made them."""
    if isinstance(config, dict):
        package = (config.get("registered_name") or "").partition(">")[0]
        if "class_name" in config and "module" in config:
            known = KNOWN.match(config["module"] or "") or package == "tf_dpred"
            if not known:
                yield config["class_name"]
        for value in config.values():
            yield from _strange(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from _strange(value)


def stored_backbone(workdir: Workdir) -> keras.Model:
    """A new copy of the backbone that a run was given, as it was then.

    Raises:
      Refused: it was not stored, or its file is damaged.
    """
    accepted = "one with its backbone.keras; from Python, the backbone can be given"
    detail = ", whose run has a backbone of its own"
    if not workdir.backbone.exists():
        refuse("workdir", str(workdir.path), accepted, detail=detail)
    try:
        return keras.saving.load_model(workdir.backbone, safe_mode=True, compile=False)
    except (ValueError, TypeError, OSError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        refuse("workdir", str(workdir.path), accepted, detail=f"{detail} ({reason})")


def stored_views(workdir: Workdir, image_size: int) -> OwnViews | None:
    """The views that a run was given; None where it was given none.

    Raises:
      Refused: they were not stored, or their file is damaged.
    """
    record = recorded(workdir).get("views")
    if record is None:
        return None
    found = json_files.read(workdir.views, {"views": [{str: Any}]})
    if found is None:
        refuse(
            "workdir",
            str(workdir.path),
            "Pretraining(..., views=...) with these",
            detail=f", whose run has views of its own ({record['name']})",
        )
    parts: Sequence[Any] = [
        keras.saving.deserialize_keras_object(part, safe_mode=True)
        for part in found["views"]
    ]
    return OwnViews(parts[0] if len(parts) == 1 else tuple(parts), image_size)
