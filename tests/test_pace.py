"""The line that says how fast long work goes."""

from tf_dpred.system import pace


def test_logged__a_line_every_ten_seconds(monkeypatch, caplog):
    clock = iter([0.0, 6.0, 12.0, 18.0])
    monkeypatch.setattr(pace.time, "monotonic", lambda: next(clock))
    caplog.set_level("INFO", logger="absl")
    assert list(pace.logged("abc", 70, each=32)) == ["a", "b", "c"]
    assert caplog.messages == ["64/70 images, 5/s"]
