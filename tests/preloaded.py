"""What the processes of processes.py begin with: imports, as the program does them."""

import sys

import pytest  # noqa: F401

from tf_dpred.system import quiet

# Not `quiet.start`, which looks at the devices: a process that did may not be forked.
with quiet._without(quiet.UNUSED_BY_KERAS):
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

BEFORE_OUR_OWN = set(sys.modules)

import tf_dpred.train  # noqa: E402, F401
