"""Non-contrastive self-supervised image encoders in TensorFlow: DirectPred and kin."""

from tf_dpred.system import processor

__version__ = "0.1.0"

processor.ask_for_onednn()
