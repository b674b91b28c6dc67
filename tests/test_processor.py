"""The processor's instructions, and the kernels that TensorFlow takes for it."""

import os
import platform
import subprocess
import sys

import pytest

from tf_dpred.config import TrainingConfig
from tf_dpred.system import devices, processor

AVX2 = "model name\t: Some CPU\nflags\t\t: fpu avx avx2\n\nflags\t: avx512f\n"
AVX512 = "flags\t: avx2 avx512f"


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    """Writes /proc/cpuinfo of an x86-64 machine."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "CPUINFO", path)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    processor.described.cache_clear()
    yield path.write_text
    processor.described.cache_clear()


def test_described__the_first_processor(cpuinfo):
    cpuinfo(AVX2)
    assert processor.described("model name") == "Some CPU"
    assert processor.described("flags") == "fpu avx avx2"
    assert processor.described("features") == ""


@pytest.mark.parametrize(
    ("content", "precision", "expected"),
    [
        (AVX2, "float32", False),
        (AVX2, "float64", False),
        (AVX2, "mixed_bfloat16", True),
        (AVX2, "mixed_float16", True),
        (AVX512, "mixed_bfloat16", False),
        (AVX512, "mixed_float16", True),
        ("", "mixed_bfloat16", False),
    ],
)
def test_emulates(content, precision, expected, cpuinfo):
    cpuinfo(content)
    assert processor.emulates(precision) is expected


def test_emulates__not_known(cpuinfo, monkeypatch):
    assert not processor.emulates("mixed_bfloat16")  # no such file
    cpuinfo("Features\t: fp asimd")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not processor.emulates("mixed_bfloat16")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (AVX2, False),
        (AVX512, False),
        (AVX512 + " avx512_bf16", True),
        (AVX512 + " amx_bf16", True),
        ("", False),
    ],
)
def test_computes_bfloat16(content, expected, cpuinfo):
    cpuinfo(content)
    assert processor.computes_bfloat16() is expected


@pytest.mark.parametrize(("on_accelerator", "said"), [(False, True), (True, False)])
def test_setup__says_what_is_emulated(
    on_accelerator, said, cpuinfo, monkeypatch, caplog, policy
):
    cpuinfo(AVX2)
    monkeypatch.setattr(devices, "trains_on_accelerator", lambda config: on_accelerator)
    devices.setup(TrainingConfig(precision="mixed_bfloat16"))
    assert ("--precision: mixed_bfloat16 is slow" in caplog.text) == said


@pytest.mark.parametrize(
    ("content", "loaded", "warns", "expected"),
    [
        (AVX2, False, False, "1"),
        (AVX2, True, True, None),
        (AVX512 + " avx512_vnni", True, False, None),
        ("", True, False, None),
    ],
)
def test_onednn__tensorflow_is_loaded_already(
    content, loaded, warns, expected, cpuinfo, monkeypatch, recwarn
):
    cpuinfo(content)
    monkeypatch.setenv(processor.ONEDNN, "")  # so that it is what it was afterwards
    monkeypatch.delenv(processor.ONEDNN)
    if not loaded:
        monkeypatch.delitem(sys.modules, "tensorflow")
    processor.ask_for_onednn()
    found = [w for w in recwarn if str(w.message).startswith("tf_dpred was imp")]
    assert len(found) == warns
    assert os.environ.get(processor.ONEDNN) == expected


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN is for x86-64")
@pytest.mark.slow
@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_onednn__is_asked_for_unless_chosen(given, expected):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"}
    environment.pop(processor.ONEDNN, None)
    if given is not None:
        environment[processor.ONEDNN] = given
    program = "import os, tf_dpred, tensorflow; print(os.environ[%r])"
    done = subprocess.run(
        [sys.executable, "-c", program % processor.ONEDNN],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == expected
    # TensorFlow obeys.
    on = "oneDNN custom operations are on" in done.stderr
    assert on == (expected == "1")
