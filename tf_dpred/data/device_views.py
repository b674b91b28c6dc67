"""The last part of making two views, on the device that trains."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_dpred.data.random_views import distort_together
from tf_dpred.data.views import ViewPair


@keras.saving.register_keras_serializable("tf_dpred")
class ViewsFromCrops:
    """The rest of `pipeline.training_views` with `distorted` False, for any device.

    A class, so that a model that has it can be saved and copied.

    Args:
      pair: the distributions of the two views.
    """

    def __init__(self, pair: ViewPair):
        self.pair = pair

    def __call__(self, first, second, draws1, draws2) -> tuple[tf.Tensor, tf.Tensor]:
        """Crops and draws of n examples -> two views, uint8 [n, S, S, 3]."""
        return (
            distort_together(self.pair.first)(first, draws1),
            distort_together(self.pair.second)(second, draws2),
        )

    def get_config(self) -> dict[str, Any]:
        return {"pair": self.pair.to_list()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ViewsFromCrops:
        return cls(ViewPair.from_list(config["pair"]))
