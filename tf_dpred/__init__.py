"""Non-contrastive self-supervised image encoders in TensorFlow: DirectPred and kin."""

__version__ = "0.1.0"
