"""The quantities of the theory, measured on the F and W of a real network."""

from __future__ import annotations

import numpy as np

SMALLEST = 1e-4  # as a fraction of the largest eigenvalue; smaller ones are rounding


def spectrum(f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues s of F, [d], largest first, and eigenvectors u in columns, [d, d]."""
    s, u = np.linalg.eigh(np.asarray(f, np.float64))
    return s[::-1], u[:, ::-1]


def effective_rank(s: np.ndarray) -> float:
    """exp of the entropy of the normalised spectrum (Roy and Vetterli, 2007).

    Args:
      s: [d] eigenvalues; negative ones count as zero.

    Returns:
      1 (one direction) to d; 0 for a zero spectrum.
    """
    s = np.maximum(s, 0)
    q = s[s > 0] / s.sum() if s.any() else s[:0]
    return float(np.exp(-np.sum(q * np.log(q)))) if q.size else 0.0


def leading_modes(s: np.ndarray) -> int:
    """How many eigenvalues s, largest first, are above `SMALLEST` of the largest."""
    return int(np.sum((s > 0) & (s > SMALLEST * np.max(s))))


def of_predictor(w: np.ndarray, s: np.ndarray, u: np.ndarray) -> dict[str, object]:
    """How W_p and F = U diag(s) U^T are related (section 3.1 and Figure 2).

    | name | what |
    |---|---|
    | p | u_j^T W u_j, [d] |
    | cosine | between u_j and W u_j, [d]; 1 or -1: u_j is an eigenvector of W as well |
    | eigenvalues_w | of (W + W^T)/2, [d], largest first |
    | alignment | mean |cosine| over the leading modes, 0 to 1 |
    | commutator | |FW - WF| / (sqrt(2) |F| |W|), 0 to 1, Frobenius norms (Theorem 3) |
    | asymmetry | |W - W^T| / (2 |W|), 0 (symmetric) to 1 (antisymmetric) |
    | exponent | e of p_j = c s_j^e, by least squares of the logarithms; None with |
    |          | less than three modes of p > 0 and s above 1e-4 of the largest |

    Args:
      w: [d, d].
      s, u: of `spectrum`.
    """
    w = np.asarray(w, np.float64)
    # W in the basis of F's eigenvectors, where F is diag(s); norms are the same there.
    m = u.T @ w @ u
    p = np.diag(m)
    lengths = np.linalg.norm(m, axis=0)
    cosine = np.divide(p, lengths, out=np.zeros_like(p), where=lengths > 0)
    commutator = (s[:, None] - s) * m
    size = np.linalg.norm(w)
    scale = np.sqrt(2) * np.linalg.norm(s) * size
    count = leading_modes(s)
    return {
        "p": p,
        "cosine": cosine,
        "eigenvalues_w": np.linalg.eigvalsh((w + w.T) / 2)[::-1],
        "alignment": float(np.mean(np.abs(cosine[:count]))) if count else 0.0,
        "commutator": _ratio(np.linalg.norm(commutator), scale),
        "asymmetry": _ratio(np.linalg.norm(w - w.T), 2 * size),
        "exponent": exponent(s, p),
    }


def _ratio(a: np.floating, b: np.floating) -> float:
    return float(a / b) if b > 0 else 0.0


def exponent(s: np.ndarray, p: np.ndarray) -> float | None:
    """See `of_predictor`; s has the largest first. In theory 1/2 (Theorem 1)."""
    used = (p > 0) & (np.arange(s.size) < leading_modes(s))
    logs = np.log(s[used])
    if used.sum() < 3 or np.ptp(logs) == 0:
        return None
    return float(np.polyfit(logs, np.log(p[used]), 1)[0])


def of_views(own: float, across: float, target: float) -> dict[str, float | None]:
    """tau and sigma^2 of the isotropic theory, from one batch (derived).

    With f = W x, z = tau W x and x = xbar + noise of variance sigma^2: E f1.f1 =
    (1 + sigma^2) |W|^2, E f1.f2 = |W|^2 and E z1.f1 = tau E f1.f1.

    Args:
      own: E f.f of projections of the same view.
      across: E f1.f2 of the two views of an image.
      target: E z.f of target and online projection of the same view.

    Returns:
      `tau` and `variance`; None where they are not defined.
    """
    return {
        "tau": target / own if own > 0 else None,
        "variance": own / across - 1 if across > 0 else None,
    }
