"""Settings of the method: predictor and objective, and what is known of predictors."""

from __future__ import annotations

import dataclasses
from typing import Any

from tf_dpred.config.setting import Section, refuse, setting

# The parts a method name stands for; each stays a flag of its own.
METHODS: dict[str, dict[str, Any]] = {
    "directpred": {"predictor": "direct", "ema": True},
    "byol": {"predictor": "mlp", "ema": True},
    "simsiam": {"predictor": "mlp", "ema": False},
    "linear": {"predictor": "linear", "ema": True},
}


@dataclasses.dataclass(frozen=True)
class PredictorFacts:
    """What other parts have to know about a predictor.

    Attributes:
      trained: every step trains it by gradients.
      symmetric: W is symmetric and has no negative eigenvalue.
      set_from_f: W is computed from F alone, and so has F's eigenvectors.
      matrix: it is p = W f.
    """

    trained: bool = False
    symmetric: bool = False
    set_from_f: bool = False
    matrix: bool = True


# `predictors.PREDICTORS` holds the class of each.
PREDICTOR_FACTS = {
    "direct": PredictorFacts(symmetric=True, set_from_f=True),
    "direct_copy": PredictorFacts(symmetric=True, set_from_f=True),
    "direct_set": PredictorFacts(symmetric=True, set_from_f=True),
    "optimal": PredictorFacts(),
    "linear": PredictorFacts(trained=True),
    "symmetric": PredictorFacts(trained=True),
    "mlp": PredictorFacts(trained=True, matrix=False),
    "symmetric_mlp": PredictorFacts(trained=True, matrix=False),
    "none": PredictorFacts(symmetric=True),
}
SOLVERS = ("eigh", "newton_schulz")
OPTIMAL_FORMS = ("symmetric", "right", "left")
PREDICTOR_BN = ("affine", "plain", "none")


@dataclasses.dataclass(frozen=True)
class PredictorConfig(Section):
    predictor: str = setting("direct", "the predictor", choices=tuple(PREDICTOR_FACTS))
    rho: float | None = setting(
        0.3,
        "weight of the OLD correlation estimate (Eq. 19); none: running average",
        at_least=0.0,
        below=1.0,
    )
    eps: float = setting(
        0.1, "boost of small eigenvalues (direct*), ridge (optimal)", at_most=100.0
    )
    freq: int = setting(
        1, "set W from F every this many steps, gradients in between", at_least=1
    )
    exponent: float = setting(0.5, "p = s^exponent (direct, direct_set)", above=0.0)
    eigenvalue_map: str = setting(
        "reference",
        "s -> p of the direct predictor; only inside_root takes eps below 0",
        choices=("reference", "eq18", "inside_root"),
    )
    centered: bool = setting(False, "subtract the mean's outer product from F")
    solver: str = setting(
        "eigh",
        "how the direct predictor's W is computed: newton_schulz by matrix products "
        "alone, for devices that are slow at eigh; needs --exponent=0.5",
        choices=SOLVERS,
    )
    optimal_form: str = setting(
        "symmetric",
        "W of the optimal predictor, R = E[f f^T] + ridge, C = E[z f^T]: the best "
        "symmetric one, C R^-1 (right), or R^-1 C (left)",
        choices=OPTIMAL_FORMS,
    )
    predictor_hidden: int = setting(
        4096, "hidden units of the mlp predictors", at_least=1
    )
    predictor_bias: bool = setting(
        False, "bias of the linear predictor, or of the mlps' last layer"
    )
    predictor_bn: str = setting(
        "affine",
        "BatchNorm of the mlps' hidden layer: with gamma and beta, without, or none",
        choices=PREDICTOR_BN,
    )
    predictor_shrinkage: float = setting(
        0.0,
        "W <- (1 - this) W after every step, and after W was set",
        at_least=0.0,
        below=1.0,
    )

    @property
    def facts(self) -> PredictorFacts:
        """Those of the chosen predictor."""
        return PREDICTOR_FACTS[self.predictor]

    def check(self) -> None:
        may_be_negative = (
            self.predictor == "direct" and self.eigenvalue_map == "inside_root"
        )
        # `not >=`, so that NaN is refused.
        if not self.eps >= (-1.0 if may_be_negative else 0.0):
            accepted = (
                "at least -1"
                if may_be_negative
                else "at least 0 (below 0 only with --eigenvalue_map=inside_root)"
            )
            refuse("eps", self.eps, accepted)
        if self.predictor == "optimal" and self.eps == 0:
            refuse(
                "eps", self.eps, "above 0 for --predictor=optimal, whose ridge it is"
            )
        if self.solver == "newton_schulz":
            self._check_newton_schulz()

    def _check_newton_schulz(self) -> None:
        """W must be F^(1/2) + c I or (F + c I)^(1/2), up to a factor.

        The floor of 1e-4 under the eigenvalues of W is not such a W; only eps lifts all
        of them over it. A centred F can have eigenvalues far below 0.
        """
        least = 0.0 if self.eigenvalue_map == "eq18" else 1e-4
        accepted = {
            "predictor": self.predictor == "direct",
            "exponent": self.exponent == 0.5,
            "centered": not self.centered,
            "eps": self.eps >= least,
        }
        wrong = [name for name, fits in accepted.items() if not fits]
        if wrong:
            given = ", ".join(f"--{name}={getattr(self, name)}" for name in wrong)
            refuse(
                "solver",
                self.solver,
                f"eigh with {given}; newton_schulz with --predictor=direct, "
                f"--exponent=0.5, --nocentered and --eps of at least {least:g} "
                f"(--eigenvalue_map={self.eigenvalue_map})",
            )


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig(Section):
    loss: str = setting(
        "cosine", "distance of prediction and target", choices=("cosine", "mse", "iso")
    )
    symmetric_loss: bool = setting(True, "sum both directions, or only view1 -> view2")
    stop_gradient: bool = setting(
        True, "no gradient through the target branch (only --noema can turn it off)"
    )
    ema: bool = setting(
        True, "the target is a moving average of the online network, not itself"
    )
    tau_base: float = setting(
        0.996, "EMA momentum of the target", at_least=0.0, at_most=1.0
    )
    tau_schedule: str = setting(
        "constant",
        "tau over the run: tau_base, or a cosine to 1",
        choices=("constant", "cosine"),
    )
    target_init: str = setting(
        "copy", "first weights of the target", choices=("copy", "independent")
    )

    def check(self) -> None:
        if self.ema and not self.stop_gradient:
            refuse(
                "stop_gradient",
                self.stop_gradient,
                "true with --ema (a separate target is never trained); "
                "use --noema --nostop_gradient",
            )
