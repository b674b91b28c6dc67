"""How fast the parts of a run are, beside the machine's limits and other programs."""
