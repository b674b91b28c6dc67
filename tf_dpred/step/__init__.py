"""What a training step needs beside the method."""

from tf_dpred.system import keras_settings

keras_settings.check()
