"""What a program that calls `tf_dpred.main` can tell from how it ended."""

REFUSED = 2  # bad input: nothing was done
FAILED = 1  # a number was not finite, a file not written, a worker lost
PREEMPTED = 75  # SIGTERM or SIGINT; a checkpoint was written (EX_TEMPFAIL)
