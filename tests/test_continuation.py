"""Whether workers that begin or continue together train one run."""

import numpy as np
import pytest

from tf_dpred.config import Config
from tf_dpred.data.source import from_arrays
from tf_dpred.errors import Refused
from tf_dpred.records import continuation
from tf_dpred.system import replicas
from tf_dpred.system.devices import Place

OWN = {"backbone": {"name": "mine", "layers": "ab"}, "callbacks": ["Watch"]}


def number_of(monkeypatch, step=4, own=OWN, value=0, **settings):
    """What a worker compares with the others."""
    seen = []
    monkeypatch.setattr(replicas, "agree", lambda strategy, x: seen.append(x) or True)
    source = from_arrays(np.full((8, 2, 2), value, np.uint8))
    config = Config.from_dict(settings)
    continuation.check_workers_agree(None, Place(0, 2), config, step, source, own)
    return seen[0]


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({}, True),
        ({"own": OWN | {"callbacks": []}}, True),
        ({"workdir": "elsewhere", "log_every": 7}, True),
        ({"step": 5}, False),
        ({"eps": 0.2}, False),
        ({"value": 1}, False),
        ({"own": OWN | {"backbone": {"name": "mine", "layers": "cd"}}}, False),
    ],
)
def test_check_workers_agree__on_what_decides_the_numbers(
    changes, is_same, monkeypatch
):
    same = number_of(monkeypatch) == number_of(monkeypatch, **changes)
    assert same == is_same


def test_check_workers_agree__refused(monkeypatch):
    monkeypatch.setattr(replicas, "agree", lambda strategy, numbers: False)
    source = from_arrays(np.zeros((8, 2, 2), np.uint8))
    with pytest.raises(Refused, match="at step 4 on worker 1, and another step"):
        continuation.check_workers_agree(None, Place(1, 2), Config(), 4, source, {})
