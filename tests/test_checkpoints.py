"""The checkpoint file: whole or refused, never half or wrong."""

import errno
import os

import numpy as np
import pytest

from tf_dpred.errors import Refused
from tf_dpred.records import checkpoints


def state(value=0.0):
    generator = np.random.default_rng(7)
    return {
        "online/0000/conv/kernel": generator.normal(size=(3, 3, 2)) + value,
        "online/0001/bn/gamma": generator.normal(size=4).astype(np.float32),
        "optimizer/0000/iterations": np.int64(12),
    }


def equal(a, b):
    return a.keys() == b.keys() and all(
        np.asarray(a[k]).tobytes() == np.asarray(b[k]).tobytes() for k in a
    )


def test_save__round_trip_and_nothing_beside_it(tmp_path):
    path = checkpoints.path_of(tmp_path / "checkpoints", 12)
    checkpoints.save(path, state())
    assert equal(checkpoints.load(path), state())
    assert [p.name for p in path.parent.iterdir()] == ["step-00000012.npz"]


def test_load__every_flipped_byte_is_noticed_or_harmless(tmp_path):
    path = checkpoints.path_of(tmp_path, 1)
    checkpoints.save(path, state())
    good = path.read_bytes()
    noticed = 0
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            loaded = checkpoints.load(path)
        except checkpoints.DamagedError as error:
            assert str(path) in str(error)
            noticed += 1
        else:
            # Time stamps and the like: what they hold is not what was saved.
            assert equal(loaded, state()), position
    values = sum(np.asarray(v).nbytes for v in state().values())
    assert noticed > values


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_load__cut_short(tmp_path, part):
    path = checkpoints.path_of(tmp_path, 1)
    checkpoints.save(path, state())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(checkpoints.DamagedError, match="damaged"):
        checkpoints.load(path)


def test_load__pickled_objects_are_refused(tmp_path):
    path = checkpoints.path_of(tmp_path, 1)
    np.savez(
        path, format_version=1, names=["bad"], bad=np.array([{"code": 1}], dtype=object)
    )
    with pytest.raises(checkpoints.DamagedError, match="allow_pickle"):
        checkpoints.load(path)


def test_load__other_version(tmp_path):
    path = checkpoints.path_of(tmp_path, 1)
    np.savez(path, format_version=99)
    with pytest.raises(Refused, match="of format version 99, accepted"):
        checkpoints.load(path)


def test_load_latest__falls_back_to_the_one_before(tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(checkpoints.path_of(tmp_path, step), state(step))
    newest = checkpoints.path_of(tmp_path, 3)
    newest.write_bytes(newest.read_bytes()[:-100])
    path, loaded = checkpoints.load_latest(tmp_path)
    assert path == checkpoints.path_of(tmp_path, 2)
    assert equal(loaded, state(2))


def test_load_latest__none_and_none_whole(tmp_path):
    assert checkpoints.load_latest(tmp_path) is None
    checkpoints.path_of(tmp_path, 3).write_bytes(b"")
    with pytest.raises(Refused, match="whose checkpoints are all damaged"):
        checkpoints.load_latest(tmp_path)


def test_save__full_disk_leaves_the_last_one_alone(tmp_path, monkeypatch):
    path = checkpoints.path_of(tmp_path, 1)
    checkpoints.save(path, state())

    def full(file, **arrays):
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(checkpoints.path_of(tmp_path, 2), state())
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001.npz"]


COPIES = (
    "step-best.npz",
    "step-5.npz",
    "step-000000005.npz",
    "step-00000099-best.npz",
    "step-00000099 (1).npz",
    "step-\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661.npz",  # Arabic digits
    "best.npz",
    ".step-best.npz.tmp",
)


def test_list_all__only_names_that_a_run_gives(tmp_path):
    steps = (99_999_999, 5, 123_456_789)
    for name in (*COPIES, *(checkpoints.path_of(tmp_path, s).name for s in steps)):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "step-00000007.npz").mkdir()
    found = checkpoints.list_all(tmp_path)
    assert [checkpoints.step_of(path) for path in found] == sorted(steps)
    others = {path.name for path in checkpoints.others(tmp_path)}
    assert others == {"step-00000007.npz", *COPIES} - {".step-best.npz.tmp"}


def test_save__carries_the_identity_of_its_run(tmp_path):
    path, old = (checkpoints.path_of(tmp_path, step) for step in (1, 2))
    checkpoints.save(path, state(), "mine-12ab34cd")
    checkpoints.save(old, state())
    assert equal(checkpoints.load(path), state())
    assert checkpoints.run_of(path) == "mine-12ab34cd"
    assert checkpoints.run_of(old) is None
    checkpoints.check_is_of(path, "mine-12ab34cd")
    for run in ("mine-12ab34cd", None):
        checkpoints.check_is_of(old, run)
    for run in ("other-00000000", None):
        with pytest.raises(Refused, match="a checkpoint of the run mine-12ab34cd") as e:
            checkpoints.check_is_of(path, run)
        assert (run or "the run of an early version") in str(e.value)


def test_remove_old__keeps_the_newest(tmp_path):
    for step in (5, 10, 100):
        checkpoints.save(checkpoints.path_of(tmp_path, step), state())
    (tmp_path / ".step-00000099.npz.tmp").write_bytes(b"left by a crash")
    for name in COPIES:
        (tmp_path / name).write_bytes(b"a user's")
    checkpoints.remove_old(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name not in COPIES) == [
        "step-00000010.npz",
        "step-00000100.npz",
    ]


def test_load_latest__a_newer_format_is_not_passed_over(tmp_path, monkeypatch):
    checkpoints.save(checkpoints.path_of(tmp_path, 1), state())
    monkeypatch.setattr(checkpoints, "CHECKPOINT_VERSION", 2)
    checkpoints.save(checkpoints.path_of(tmp_path, 2), state())
    monkeypatch.setattr(checkpoints, "CHECKPOINT_VERSION", 1)
    with pytest.raises(Refused, match="of format version 2, accepted"):
        checkpoints.load_latest(tmp_path)


def test_load__pickles_are_not_read(tmp_path):
    """An array of objects would run code when it is read."""
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return open, (str(ran), "w")

    path = checkpoints.path_of(tmp_path, 1)
    objects = np.array([Payload()], dtype=object)
    np.savez(path, format_version=1, names=["x"], x=objects, allow_pickle=True)
    with pytest.raises(checkpoints.DamagedError, match="allow_pickle=False"):
        checkpoints.load(path)
    assert not ran.exists()


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_save_best__takes_the_place_of_the_one_before(tmp_path):
    (tmp_path / "best-mine.npz").write_bytes(b"a user's copy")
    for step in (5, 3):
        checkpoints.save_best(tmp_path, step, state(step))
    assert names(tmp_path) == ["best-00000003.npz", "best-mine.npz"]
    assert checkpoints.list_all(tmp_path) == []
    (tmp_path / ".best-00000099.npz.tmp").write_bytes(b"left by a crash")
    checkpoints.remove_old(tmp_path, 1)
    assert names(tmp_path) == ["best-00000003.npz", "best-mine.npz"]


@pytest.mark.parametrize(
    ("which", "name", "value"),
    [
        ("last", "step-00000008.npz", 8),
        ("best", "best-00000003.npz", 3),
        ("7", "step-00000007.npz", 7),
        ("3", "best-00000003.npz", 3),
    ],
)
def test_find(tmp_path, which, name, value):
    for step in (7, 8):
        checkpoints.save(checkpoints.path_of(tmp_path, step), state(step))
    checkpoints.save_best(tmp_path, 3, state(3))
    path, found = checkpoints.find(tmp_path, which)
    assert path.name == name and equal(found, state(value))


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("best", r"^--checkpoint: received 'best', accepted: last, or a step of .*: 7; "
                 r"--keep_best kept none\.$"),
        ("8", "^--checkpoint: received '8', accepted: last, or a step of .*: 7; "),
    ],
)  # fmt: skip
def test_find__no_such_checkpoint(tmp_path, which, message):
    checkpoints.save(checkpoints.path_of(tmp_path, 7), state())
    with pytest.raises(Refused, match=message):
        checkpoints.find(tmp_path, which)


def test_find__none_at_all_and_a_damaged_one(tmp_path):
    with pytest.raises(Refused, match="a work directory that holds a checkpoint"):
        checkpoints.find(tmp_path, "last")
    with pytest.raises(Refused, match=r"a step of .*: none; --keep_best kept none"):
        checkpoints.find(tmp_path, "7")
    checkpoints.save_best(tmp_path, 3, state())
    checkpoints.best_path_of(tmp_path, 3).write_bytes(b"cut")
    with pytest.raises(Refused, match=r"'best' \(.* is damaged .*one that is whole"):
        checkpoints.find(tmp_path, "best")


def test_list_all__a_pipe_is_no_checkpoint(tmp_path):
    """To read from it would wait for ever."""
    path = checkpoints.path_of(tmp_path, 3)
    os.mkfifo(path)
    assert checkpoints.list_all(tmp_path) == []
    assert checkpoints.others(tmp_path) == [path]
