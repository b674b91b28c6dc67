"""What a line of epochs.jsonl and one of theory.jsonl hold, as far as they are read."""

EPOCH = {
    "epoch": int,
    "step": int,
    "loss?": float,
    "feature_std?": float,
    "knn?": float,
    **{
        f"{name}?": float
        for name in (
            "view_top1",
            "view_top5",
            "rankme",
            "lidar",
            "alpha_req",
            "view_alignment",
            "uniformity",
            "view_images",
        )
    },
}
_MEASURED = {
    "step": int,
    "eigenvalues": [float, ...],
    "effective_rank": float,
    "centered_rank": float,
    "feature_std?": float,
    "tau?": (float, None),
    "variance?": (float, None),
}
_OF_A_MATRIX = {
    "eigenvalues_w": [float, ...],
    "p": [float, ...],
    "cosine": [float, ...],
    "alignment": float,
    "commutator": float,
    "asymmetry": float,
    "exponent": (float, None),
}
# Some predictors are no matrix.
THEORY = (
    _MEASURED | _OF_A_MATRIX,
    _MEASURED | {f"{name}?": None for name in _OF_A_MATRIX},
)
