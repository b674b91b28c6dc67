"""Files that are whole, whatever the file system can do, and how they are named."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tf_dpred.errors import Refused
from tf_dpred.records import checkpoints
from tf_dpred.system import files, quiet
from tf_dpred.system.files import printable


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("a b/c-1.jpg", "a b/c-1.jpg"),
        ("Fotos/\u732b\u3000\xe9.jpg", "Fotos/\u732b\u3000\xe9.jpg"),
        ("back\\slash", "back\\slash"),
        ("\udcfe.jpg", r"\udcfe.jpg"),
        ("a\tb\nc\rd\x1b[1m\x85", r"a\tb\nc\rd\x1b[1m\x85"),
        ("\u2028\u2029", r"\u2028\u2029"),
    ],
)
def test_printable__one_line_of_text(path, shown):
    assert printable(path) == shown


@pytest.fixture(autouse=True)
def warned():
    """Each test is a process of its own, as far as warnings that come once go."""
    files._warn_once.cache_clear()


def refusing(real, code, when=lambda *arguments: True):
    """A system call that a file system does not offer."""

    def call(*arguments, **keywords):
        if when(*arguments):
            raise OSError(code, os.strerror(code))
        return real(*arguments, **keywords)

    return call


def is_directory(descriptor):
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


NOT_OFFERED = [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP]
name = errno.errorcode.get


@pytest.mark.parametrize("code", [*NOT_OFFERED, errno.EBADF, errno.EACCES], ids=name)
def test_whole__a_directory_that_cannot_be_flushed(code, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(os, "fsync", refusing(os.fsync, code, is_directory))
    files.write_whole(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"
    assert caplog.text == ""


def test_whole__a_directory_that_may_not_be_read(tmp_path, monkeypatch):
    def of_directory(path, flags, *mode):
        return os.path.isdir(path)

    monkeypatch.setattr(os, "open", refusing(os.open, errno.EACCES, of_directory))
    files.write_whole(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"


@pytest.mark.parametrize("code", NOT_OFFERED, ids=name)
def test_whole__files_that_cannot_be_flushed(code, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(os, "fsync", refusing(os.fsync, code))
    for text in ("first", "second"):
        files.write_whole(tmp_path / "a", text)
        assert (tmp_path / "a").read_text() == text
    assert caplog.text.count("files are not flushed to the disk") == 1


@pytest.mark.parametrize(
    "code", [*NOT_OFFERED, errno.EPERM, errno.EEXIST, errno.EXDEV], ids=name
)
def test_whole__a_file_system_that_does_not_rename(code, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(os, "replace", refusing(os.replace, code))
    for text in ("first", "2"):
        files.write_whole(tmp_path / "a", text)
        assert (tmp_path / "a").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert caplog.text.count("files are copied and not renamed") == 1


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT], ids=name)
def test_whole__a_disk_that_fails_is_an_error(call, code, tmp_path, monkeypatch):
    (tmp_path / "a").write_text("before")
    monkeypatch.setattr(os, call, refusing(getattr(os, call), code))
    with pytest.raises(OSError, match=os.strerror(code)) as failed:
        files.write_whole(tmp_path / "a", "text")
    assert failed.value.filename == str(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_whole__a_directory_that_fails_is_named(tmp_path, monkeypatch):
    """The second flush is that of the rename."""
    real, calls = os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as failed:
        files.write_whole(tmp_path / "a", "text")
    assert failed.value.filename == str(tmp_path / "a")


def test_whole__a_disk_on_which_nothing_can_be_removed(tmp_path, monkeypatch):
    """What failed first is what is said."""

    def unlink(*arguments, **keywords):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "fsync", refusing(os.fsync, errno.EIO))
    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        files.write_whole(tmp_path / "a", "text")


def test_set_aside__a_file_system_that_does_not_rename(tmp_path, monkeypatch):
    paths = [checkpoints.path_of(tmp_path, step) for step in (1, 2)]
    for path in paths:
        path.write_text(path.name)
    monkeypatch.setattr(os, "replace", refusing(os.replace, errno.ENOSYS))
    checkpoints.set_aside(tmp_path, after=paths[0])
    damaged = tmp_path / "step-00000002.npz.damaged"
    assert sorted(tmp_path.iterdir()) == [paths[0], damaged]
    assert damaged.read_text() == "step-00000002.npz"


@pytest.mark.parametrize("renames", [True, False])
def test_replace_directory__puts_the_new_one_in_place(renames, tmp_path, monkeypatch):
    old, new = tmp_path / "7", tmp_path / ".7.tmp"
    for folder in (old, new):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / folder.name).write_text("")
    if not renames:
        monkeypatch.setattr(os, "rename", refusing(os.rename, errno.EXDEV))
    files.replace_directory(new, old)
    found = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))]
    assert found == ["7", "7/deep", "7/deep/.7.tmp"]


def test_replace_directory__what_was_there_stays_where_it_fails(tmp_path, monkeypatch):
    old, new = tmp_path / "7", tmp_path / ".7.tmp"
    for folder in (old, new):
        folder.mkdir()
        (folder / folder.name).write_text("")

    def of_new(source, *target):
        return Path(source) == new

    monkeypatch.setattr(files.shutil, "move", refusing(files.shutil.move, 5, of_new))
    with pytest.raises(OSError, match="Input/output"):
        files.replace_directory(new, old)
    assert (old / "7").exists()


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("none/a.npz", "in a directory that exists"),
        ("folder", "in a directory that exists"),
        ("file/a.npz", "in a directory that exists"),
        (255 * "a", r"that can be written \(File name too long\)"),
    ],
)
def test_output_file__refuses_beforehand(output, reason, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Refused, match=f"^--output: received .*{reason}"):
        files.output_file(str(tmp_path / output), "an npz file")
    assert sorted(tmp_path.iterdir()) == before


def test_output_file__a_directory_that_cannot_be_written(tmp_path, monkeypatch):
    """Root may write everywhere, but not on a disk that is read-only."""

    def open(path, mode="r", *rest):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "open", open)
    with pytest.raises(Refused, match=r"can be written \(Read-only file system\)"):
        files.output_file(str(tmp_path / "a.npz"), "an npz file")


def test_output_file__leaves_what_is_there(tmp_path):
    (tmp_path / "a").write_text("before")
    assert files.output_file(str(tmp_path / "a"), "a file") == tmp_path / "a"
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_quiet__without_a_directory_for_temporary_files(monkeypatch):
    monkeypatch.delenv(quiet.LOG_LEVEL, raising=False)
    monkeypatch.setattr(quiet.tempfile, "TemporaryFile", refusing(None, errno.ENOENT))
    with quiet._silence():
        os.write(2, b"")
