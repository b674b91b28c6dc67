"""Views that the training step finishes are those that the host would have made."""

import numpy as np
import pytest
import toys
from test_recovery import pretraining

SETTINGS = {"views": "cifar", "train_size": 24, "epochs": 1, "accumulation_steps": 2}


def trained(workdir, augment_on):
    run = pretraining(str(workdir), augment_on=augment_on, **SETTINGS)
    assert (run.model.make_views is not None) == (augment_on == "device")
    result = run.train()
    return result["loss"], toys.arrays(run.model.variables)


def test_augment_on_device__trains_as_on_the_host(tmp_path):
    loss, expected = trained(tmp_path / "host", "host")
    on_device, found = trained(tmp_path / "device", "device")
    # A pixel in a thousand differs by one level.
    assert on_device == pytest.approx(loss, rel=1e-3)
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            value, other, rtol=0, atol=2e-3 * np.abs(other).max()
        )
