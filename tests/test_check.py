"""The list of the image files that a run could not use."""

import processes
import pytest
from images import write_bad, write_good

from tf_dpred.config import Config, FilesConfig
from tf_dpred.data import check
from tf_dpred.errors import Refused


def run(folder):
    return check.run(Config.from_dict({"data_dir": str(folder)}), FilesConfig())


def test_check_images__names_what_cannot_be_used(tmp_path, capsys, caplog):
    good, bad = write_good(tmp_path), write_bad(tmp_path)
    (tmp_path / "link.png").symlink_to("gone.png")
    bad["link.png"] = "may not be read"
    (tmp_path / "photo.heic").touch()
    caplog.set_level("INFO", logger="absl")
    assert run(tmp_path) == 1
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert sorted(name for name, _ in lines) == sorted(bad)
    assert all(bad[name] in reason for name, reason in lines)
    counts = f"{len(good)} images can be used, 8 cannot; not looked at: 1 .heic"
    assert caplog.messages == [counts]


def test_check_images__as_a_user_runs_it(tmp_path):
    good = write_good(tmp_path)
    flags = ["--mode=check_images", f"--data_dir={tmp_path}"]
    done = processes.run_module("tf_dpred.main", *flags)
    assert (done.returncode, done.stdout) == (0, "")
    (said,) = done.stderr.splitlines()
    assert said.endswith(f" {len(good)} images can be used, 0 cannot")


@pytest.mark.parametrize("data_dir", [None, "no/such/folder"])
def test_check_images__refuses(data_dir):
    config = Config.from_dict({"data_dir": data_dir})
    message = f"--data_dir: received {data_dir!r}, accepted: a folder with images"
    with pytest.raises(Refused, match=message):
        check.run(config, FilesConfig())
