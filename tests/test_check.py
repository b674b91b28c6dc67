"""The list of the image files that a run could not use."""

import errno
import os

import processes
import pytest
import tensorflow as tf
from images import write_bad, write_good

from tf_dpred.config import Config, FilesConfig
from tf_dpred.data import check, image_files
from tf_dpred.data.bad_images import named_errors
from tf_dpred.errors import Refused, UnreadableImage


def run(folder):
    return check.run(Config.from_dict({"data_dir": str(folder)}), FilesConfig())


def test_check_images__names_what_cannot_be_used(tmp_path, capsys, caplog):
    good, bad = write_good(tmp_path), write_bad(tmp_path)
    (tmp_path / "link.png").symlink_to("gone.png")
    bad["link.png"] = "may not be read"
    (tmp_path / "photo.jxl").touch()
    caplog.set_level("INFO", logger="absl")
    assert run(tmp_path) == 1
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert sorted(name for name, _ in lines) == sorted(bad)
    assert all(bad[name] in reason for name, reason in lines)
    counts = f"{len(good)} images can be used, 8 cannot; not looked at: 1 .jxl"
    assert "2 of 12 PNG files that were looked at have opacity" in caplog.messages[0]
    assert caplog.messages[-1] == counts


def test_unusable__a_file_that_the_disk_does_not_give(tmp_path, monkeypatch):
    """Its error comes from the system, in the middle of the others."""
    good = write_good(tmp_path)
    read_file = tf.io.read_file

    def failing(path):
        fails = tf.strings.regex_full_match(path, ".*/gray.png")
        # The system's error when a directory is read.
        return read_file(tf.where(fails, str(tmp_path), path))

    monkeypatch.setattr(tf.io, "read_file", failing)
    ((name, reason),) = check.unusable(tmp_path, sorted(good))
    assert name == "gray.png" and reason.endswith("; Is a directory")


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.EIO, tf.errors.UnknownError),
        (errno.ESTALE, tf.errors.UnknownError),
        (errno.EISDIR, tf.errors.FailedPreconditionError),
        (errno.ENOENT, tf.errors.NotFoundError),
        (errno.EACCES, tf.errors.PermissionDeniedError),
    ],
)
def test_is_of_the_system__in_words_of_tensorflow(number, error):
    said = f"{{{{function_node f}}}} /x/a.png; {os.strerror(number)} [Op:ReadFile]"
    assert image_files.is_of_the_system(error(None, None, said))
    with pytest.raises(UnreadableImage, match=r"/x/a\.png; "), named_errors():
        raise error(None, None, said)
    bug = tf.errors.UnknownError(None, None, "{{node f}} TypeError: a bug")
    assert not image_files.is_of_the_system(bug)


def test_check_images__as_a_user_runs_it(tmp_path):
    good = write_good(tmp_path)
    flags = ["--mode=check_images", f"--data_dir={tmp_path}"]
    done = processes.run_module("tf_dpred.main", *flags)
    assert (done.returncode, done.stdout) == (0, "")
    opacity, deep, said = done.stderr.splitlines()
    assert "PNG files that were looked at have opacity (gray_alpha.png)" in opacity
    assert "--value_range=auto: 0 to 65535 become 0 to 255" in deep
    assert said.endswith(f" {len(good)} images can be used, 0 cannot")


@pytest.mark.parametrize("data_dir", [None, "no/such/folder"])
def test_check_images__refuses(data_dir):
    config = Config.from_dict({"data_dir": data_dir})
    message = f"--data_dir: received {data_dir!r}, accepted: a folder with images"
    with pytest.raises(Refused, match=message):
        check.run(config, FilesConfig())
