"""`import tf_dpred`: quick, and everything public is there."""

import subprocess
import sys
import types

import pytest

import tf_dpred


def test_import__needs_no_tensorflow_and_is_quick():
    code = (
        "import sys, time; start = time.process_time(); import tf_dpred; "
        "print(time.process_time() - start, dir(tf_dpred), "
        "{'tensorflow', 'keras', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    seconds, _, rest = done.stdout.partition(" ")
    assert float(seconds) < 0.1
    assert "'DirectPred'" in rest and rest.rstrip().endswith("set()")


@pytest.mark.parametrize("name", tf_dpred.__all__)
def test_names__are_what_they_say(name):
    found = getattr(tf_dpred, name)
    module = isinstance(found, types.ModuleType)
    assert found.__name__ == (f"tf_dpred.{name}" if module else name)


def test_names__others_are_not_there():
    with pytest.raises(AttributeError, match="no attribute 'DirectPredd'"):
        tf_dpred.DirectPredd  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from tf_dpred import nothing  # noqa: F401
