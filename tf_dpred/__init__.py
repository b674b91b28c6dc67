"""Non-contrastive self-supervised image encoders in TensorFlow: DirectPred and kin."""

import os
import platform

__version__ = "0.1.0"

# TensorFlow reads this once, when it loads. By itself it takes oneDNN's kernels only
# where there are instructions for neural networks (VNNI, bfloat16, AMX); with AVX2
# alone they are up to twice as fast as its own.
if platform.machine() == "x86_64":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
