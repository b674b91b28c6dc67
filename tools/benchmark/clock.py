"""How long the workers that take the flags of `tf_dpred.main` measure."""

from absl import flags

SECONDS = flags.DEFINE_float("seconds", 5.0, "of one measurement")
