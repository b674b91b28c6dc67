"""The settings of a training in the units of the theory."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Levers:
    """Predictor rate, decay, EMA and the strength of the augmentation.

    Time is learning rate x steps, up to the factor of `from_training`.

    Args:
      predictor_rate: alpha_p > 0, the predictor's learning rate over the network's.
      decay: eta >= 0, weight decay of the network, and of the predictor unless
        `predictor_decay` says otherwise.
      predictor_decay: weight decay of the predictor; None: `decay`.
      ema_rate: beta > 0, the target's rate per unit of time; None: the target is the
        online network (SimSiam), tau = 1.
      variance: sigma^2 >= 0 of the augmentation, where X = I and X' = sigma^2 I. Flows
        with general X and X' do not read it.

    Raises:
      ValueError: a value out of range.
    """

    predictor_rate: float = 1.0
    decay: float = 0.0
    predictor_decay: float | None = None
    ema_rate: float | None = None
    variance: float = 0.0

    def __post_init__(self):
        for name in ("predictor_rate", "ema_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(
                    f"Invalid {name}: received {value}, accepted: above 0."
                )
        for name in ("decay", "predictor_decay", "variance"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(
                    f"Invalid {name}: received {value}, accepted: at least 0."
                )

    @property
    def decay_of_predictor(self) -> float:
        """eta_p: `predictor_decay`, or `decay` where that is None."""
        return self.decay if self.predictor_decay is None else self.predictor_decay

    @property
    def curvature(self) -> float:
        """1 + sigma^2, which the theory writes throughout."""
        return 1 + self.variance


def loss_factor(symmetric: bool) -> int:
    """k: how many times J of the flows the mse loss is; see `from_training`."""
    return 4 if symmetric else 2


def from_training(
    learning_rate: float,
    *,
    symmetric: bool = True,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    predictor_lr_multiplier: float = 1.0,
    predictor_weight_decay: float | None = None,
    tau_base: float | None = None,
    variance: float = 0.0,
) -> tuple[Levers, float]:
    """The levers that settings of training amount to, and the time of one step.

    The flows descend J = E|W_p W x1 - W_a x2|^2 / 2. `losses.mse` has no 1/2, and a
    symmetric loss is the sum of two such terms: k = 2 or 4 times J. One step of
    `optimizers.SGD`, w <- w - lr (k dJ/dw + wd w), is then one Euler step of length
    h = k lr with decay eta = wd/k. The decay of the predictor is not multiplied by
    alpha_p in the flow but is by its rate in SGD; the target moves by 1 - tau a step:

        h = k lr / (1 - momentum)   alpha_p = multiplier   eta = wd/k
        eta_p = multiplier wd_p/k   beta = (1 - tau_base)/h                    (derived)

    The cosine loss is this one, but for a constant, only where predictions and
    projections have norm 1: for it the levers are a guide.

    Args:
      learning_rate: of the network, above 0.
      symmetric: both directions of the loss are summed.
      momentum: in [0, 1); enters as an effective rate, which holds for slow changes.
      weight_decay: coupled, as in `optimizers.SGD`.
      predictor_lr_multiplier: rate of the predictor over that of the network.
      predictor_weight_decay: None: `weight_decay`.
      tau_base: momentum of the target in [0, 1); None: no separate target.
      variance: sigma^2.

    Returns:
      Levers, and h.

    Raises:
      ValueError: a value out of range.
    """
    if not learning_rate > 0:
        raise ValueError(
            f"Invalid learning_rate: received {learning_rate}, accepted: above 0."
        )
    for name, value in (("momentum", momentum), ("tau_base", tau_base)):
        if value is not None and not 0 <= value < 1:
            raise ValueError(
                f"Invalid {name}: received {value}, accepted: at least 0, below 1."
            )
    factor = loss_factor(symmetric)
    time = factor * learning_rate / (1 - momentum)
    if predictor_weight_decay is None:
        predictor_weight_decay = weight_decay
    levers = Levers(
        predictor_rate=predictor_lr_multiplier,
        decay=weight_decay / factor,
        predictor_decay=predictor_lr_multiplier * predictor_weight_decay / factor,
        ema_rate=None if tau_base is None else (1 - tau_base) / time,
        variance=variance,
    )
    return levers, time
