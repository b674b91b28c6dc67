"""Callbacks of a run."""

from tf_dpred.system import keras_settings

keras_settings.check()
