"""Images in, pairs of augmented views out: sources, image operations, pipeline."""
