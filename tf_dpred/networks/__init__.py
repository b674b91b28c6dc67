"""The networks: normalisation, backbone, projector."""

from tf_dpred.system import keras_settings

keras_settings.check()
