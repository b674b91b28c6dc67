"""Zip archives: read in place, as the folder that they were made of."""

import os
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import processes
import pytest
import tensorflow as tf
from images import write_good, write_pngs
from test_recovery import pretraining

from tf_dpred.config import Config, FilesConfig
from tf_dpred.data import check, contents, pipeline, places, shrink, views, zipped
from tf_dpred.data.bad_images import BadImages, named_errors
from tf_dpred.data.folder import Folder
from tf_dpred.encoders import embed, search, settings
from tf_dpred.errors import Refused, UnreadableImage
from tf_dpred.evaluation import evaluate, labelled

PNG = tf.io.encode_png(tf.zeros([8, 9, 3], tf.uint8)).numpy()


def pack(path, files, method=zipfile.ZIP_DEFLATED):
    """Writes an archive of names and contents, or of a folder."""
    if not isinstance(files, dict):
        found = [p for p in sorted(files.rglob("*")) if p.is_file()]
        files = {str(p.relative_to(files)): p.read_bytes() for p in found}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def source_of(path, split=None, **bad):
    return Folder(str(path)).open(split, None, BadImages(**bad), "split")


def pixels(source):
    return [source.load(example)[0].numpy() for example in source.examples(None)]


@pytest.mark.parametrize(
    "method",
    [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA],
)  # fmt: skip
def test_archive__every_format_to_the_bit(method, tmp_path):
    folder = tmp_path / "photos"
    good = write_good(folder)
    archive = pack(tmp_path / "photos.ZIP", folder, method)
    one, other = source_of(folder), source_of(archive)
    assert other.fingerprint == one.fingerprint and other.num_examples == len(good)
    for ours, theirs in zip(pixels(other), pixels(one), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", "photos.ZIP"]


def test_archive__splits_and_labels_of_the_folder(tmp_path):
    paths = [
        f"{s}/{c}/{i}.png" for s in ("train", "val") for c in "ab" for i in range(2)
    ]
    archive = pack(
        tmp_path / "x.zip", dict.fromkeys(["D/", *(f"D/{p}" for p in paths)], PNG)
    )
    found = Folder(str(archive))
    assert found.default_splits() == ("train", "val")
    train = found.open(None, None, BadImages(), "split")
    files = [e["file"].numpy().decode() for e in train.examples(None)]
    assert files == [f"{archive}/D/{p}" for p in paths[:4]]
    assert labelled.labels_of(train).tolist() == [0, 0, 1, 1]
    # A directory of it.
    inside = source_of(f"{archive}/D/val")
    files = [e["file"].numpy().decode() for e in inside.examples(None)]
    assert files == [f"{archive}/D/{p}" for p in paths[4:]]
    # An empty one for training is no reason to train on another.
    empty = pack(
        tmp_path / "e.zip", {"train/": b"", "val/a/1.png": PNG, "val/b/2.png": PNG}
    )
    with pytest.raises(Refused, match="with no images in"):
        source_of(empty)


def test_archive__leaves_out_what_a_folder_does(tmp_path, caplog):
    used = ("a/1.png", "b/2.PNG")
    names = [*used, "__MACOSX/._1.png", ".x/3.png", "a/.4.png", "5.psd", "r/flags.json",
             "r/preview.png", "notes.txt", "train.zip"]  # fmt: skip
    found = places.open_places(str(pack(tmp_path / "x.zip", dict.fromkeys(names, PNG))))
    assert found.files == list(used)
    found.log_losses()
    assert caplog.messages == [
        f"left out in {tmp_path}/x.zip: 1 .psd, which are not read; "
        "directories of other programs: 1 (__MACOSX); hidden: 2 (.x); work "
        "directories: 1 (r)"
    ]


def named(name, **attributes):
    info = zipfile.ZipInfo(name)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


def test_archive__names_and_kinds_that_are_not_read(tmp_path, caplog):
    path = tmp_path / "x.zip"
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"no picture")
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning):
        for info in (
            named("a.png"),
            named("../outside.png"),
            named(str(outside)),
            named("b/../../outside.png"),
            named("link.png", external_attr=0o120777 << 16),
            named("c.png"),
            named("c.png"),
            named("strange.png"),
            named("secret.png"),
            named("win\\dir\\1.png", create_system=0),
        ):
            archive.writestr(info, PNG)
    content = bytearray(path.read_bytes())
    for name, offset, value in ((b"secret", 8, 1), (b"strange", 10, 99)):
        place = content.rindex(name) - 46  # its entry in the directory at the end
        assert content[place : place + 4] == b"PK\x01\x02"
        struct.pack_into("<H", content, place + offset, value)
    path.write_bytes(content)
    found = places.open_places(str(path))
    assert found.files == ["a.png", "c.png", "win/dir/1.png"]
    assert found.left_out() == (
        "compressed in a way that is not known: 1 (strange.png); encrypted: 1 "
        "(secret.png); links: 1 (link.png); listed twice: 1 (c.png); names that lead "
        "out of the archive: 3 (../outside.png)"
    )
    assert len(pixels(source_of(path))) == 3
    # That of the archive, and never the one on the disk.
    assert contents.read_file(f"{path}/../outside.png") == PNG
    small = tmp_path / "small"
    config = Config.from_dict({"data_dir": str(path)})
    assert shrink.run(config, FilesConfig(output=str(small))) == 0
    copies = [str(p.relative_to(small)) for p in small.rglob("*.jpg")]
    assert sorted(copies) == ["a.png.jpg", "c.png.jpg", "win/dir/1.png.jpg"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "File is not a zip file"),
        (b"no archive at all", "File is not a zip file"),
        ("cut", "File is not a zip file"),
        ("directory", "Bad magic number for central directory"),
    ],
)
def test_archive__that_is_none_is_one_line(content, reason, tmp_path):
    path = pack(tmp_path / "x.zip", {"a.png": PNG, "b.png": PNG})
    whole = path.read_bytes()
    if content == "cut":
        content = whole[: len(whole) // 2]
    elif content == "directory":
        content = whole.replace(b"PK\x01\x02", b"PK\x09\x09")
    path.write_bytes(content)
    message = rf"^--data_dir: .*x.zip', accepted: a zip archive .* \({reason}"
    with pytest.raises(Refused, match=message) as refused:
        Folder(str(path))
    assert "\n" not in str(refused.value)
    with pytest.raises(
        Refused, match=r"^--data_dir: .*none.zip', accepted: an existin"
    ):
        Folder(str(tmp_path / "none.zip"))


def damage(path, name, at=5):
    """Changes a byte of a file in an archive."""
    content = bytearray(path.read_bytes())
    start = content.index(name.encode()) + len(name)
    content[start + at] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]
)
def test_archive__a_damaged_file_is_named_and_replaced(
    method, tmp_path, capsys, caplog
):  # fmt: skip
    folder = tmp_path / "D"
    write_pngs(folder, 6)
    archive = pack(tmp_path / "x.zip", folder, method)
    damage(archive, "a/002.png")
    found = pixels(source_of(archive, most=1))
    expected = pixels(source_of(folder))
    # The next one takes its place.
    for ours, theirs in zip(
        found, [expected[i] for i in (0, 2, 2, 3, 4, 5)], strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    said = [m for m in caplog.messages if "left out" in m]
    assert len(said) == 1 and said[0].startswith(
        f"left out {archive}/a/002.png: damaged"
    )
    assert check.run(Config.from_dict({"data_dir": str(archive)}), FilesConfig()) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("a/002.png\tdamaged in its archive")


def test_read__no_more_than_was_promised(tmp_path):
    """An archive that unpacks to much more than its directory says."""
    path = pack(tmp_path / "x.zip", {"a.png": bytes(10**6)})
    content = bytearray(path.read_bytes())
    place = content.rindex(b"a.png") - 46
    struct.pack_into("<I", content, place + 24, 1000)
    path.write_bytes(content)
    with pytest.raises(zipped.Damaged, match="its checksum is another"):
        contents.read_file(f"{path}/a.png")


def test_read__by_many_threads(tmp_path):
    made = {f"{i}.png": os.urandom(5000) for i in range(40)}
    path = pack(tmp_path / "x.zip", made)
    with ThreadPoolExecutor(8) as pool:
        names = list(made) * 20
        read = list(pool.map(lambda name: contents.read_file(f"{path}/{name}"), names))
    assert read == [made[name] for name in names]


def test_read__an_archive_that_was_replaced_or_vanished(tmp_path):
    path = pack(tmp_path / "x.zip", {"a.png": PNG})
    assert contents.read_file(f"{path}/a.png") == PNG
    source = source_of(path)
    pack(tmp_path / "y.zip", {"a.png": PNG + b"."}).replace(path)
    assert contents.read_file(f"{path}/a.png") == PNG + b"."
    path.unlink()
    with pytest.raises(UnreadableImage, match="No such file"), named_errors():
        pixels(source)


def test_read__a_directory_that_is_called_as_an_archive(tmp_path):
    write_pngs(tmp_path / "x.zip", 4)
    assert len(pixels(source_of(tmp_path / "x.zip"))) == 4
    archive = pack(tmp_path / "x.zip" / "y.zip", {"b.png": PNG})
    assert contents.read_file(f"{archive}/b.png") == PNG


def test_training_views__of_an_archive_are_those_of_the_folder(tmp_path):
    """To the bit; also of two directories of it."""
    write_pngs(tmp_path / "D", 24)
    archive = pack(tmp_path / "x.zip", tmp_path / "D")
    pair = views.of_config(Config.from_dict({"views": "cifar"}))
    batches = [
        next(iter(pipeline.training_views(source_of(data_dir), pair, 16, 8, seed=3)))
        for data_dir in (tmp_path / "D", archive, f"{archive}/a,{archive}/b")
    ]
    for batch in batches[1:]:
        assert all(map(np.array_equal, batch, batches[0]))


def test_pretraining__on_an_archive_goes_on(tmp_path):
    write_pngs(tmp_path / "D", 24)
    archive = pack(tmp_path / "x.zip", tmp_path / "D")
    given = {"dataset": "folder", "views": "cifar", "train_size": None, "batch_size": 8}
    given["data_dir"] = str(archive)
    pretraining(str(tmp_path / "w"), epochs=1, **given).train()
    assert pretraining(str(tmp_path / "w"), epochs=2, **given).train()["step"] == 6


def test_modes__take_an_archive(exported, tmp_path, capsys):
    made = write_pngs(tmp_path / "D" / "train", 8) and write_pngs(
        tmp_path / "D" / "val", 8
    )
    archive = pack(tmp_path / "x.zip", tmp_path / "D")
    given = {"data_dir": str(archive), "dataset": "folder", "export_dir": str(exported)}
    config = settings.of_encoder(given)
    assert check.run(config, FilesConfig()) == 0
    output = tmp_path / "out.npz"
    embed.run(config, FilesConfig(output=str(output)))
    names = [f"{split}/{name}" for split in ("train", "val") for name in made]
    assert np.load(output)["files"].tolist() == names
    files = {"output": str(tmp_path / "n.png"), "features": str(output)}
    query = str(archive / "train" / "a" / "000.png")
    search.run(config, FilesConfig(**files, query=query))
    assert "1.0000  train/a/000.png\n" in capsys.readouterr().out
    evaluate.knn(config, FilesConfig())
    assert "| online, step 7 |" in capsys.readouterr().out
    text = "".join(f"x.zip/{name}\n" for name in names) + "x.zip/gone.png\n"
    (tmp_path / "list.txt").write_text(text)
    listed = places.open_places(str(tmp_path / "list.txt"))
    assert (len(listed.files), listed.broken) == (16, ["x.zip/gone.png"])
    assert len(pixels(source_of(tmp_path / "list.txt"))) == 16


def test_archive__as_a_user_runs_it(tmp_path):
    write_pngs(tmp_path / "D", 8)
    archive = pack(tmp_path / "x.zip", tmp_path / "D")
    damage(archive, "a/000.png")
    done = processes.run_module(
        "tf_dpred.main", "--mode=check_images", f"--data_dir={archive}"
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stdout.startswith("a/000.png\tdamaged in its archive")
