"""Images in buckets: of fsspec and of TensorFlow, both in memory."""

import sys

import fsspec
import numpy as np
import pytest
import tensorflow as tf
from images import write_good, write_pngs
from test_recovery import pretraining

from tf_dpred.config import Config, FilesConfig
from tf_dpred.data import check, contents, image_files, places, remote, shrink
from tf_dpred.data.bad_images import BadImages, named_errors
from tf_dpred.data.folder import Folder
from tf_dpred.encoders import embed, search, settings
from tf_dpred.errors import Refused, UnreadableImage
from tf_dpred.evaluation import evaluate

PNG = tf.io.encode_png(tf.zeros([8, 9, 3], tf.uint8)).numpy()
SCHEMES = pytest.mark.parametrize("scheme", ["memory", "ram"])


def put(address, content):
    """Writes into a bucket, as nothing in the package does."""
    if address.startswith("ram://"):
        tf.io.gfile.makedirs(address.rpartition("/")[0])
        with tf.io.gfile.GFile(address, "wb") as file:
            file.write(content)
    else:
        fsspec.filesystem("memory").pipe_file(address, content)


@pytest.fixture
def bucket(request, tmp_path):
    """A directory of a bucket that no other test has."""
    name = request.node.name.translate(str.maketrans("[]-,/ ", "______"))
    return lambda scheme: f"{scheme}://bucket-{name}/photos"


def upload(folder, address):
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            put(f"{address}/{path.relative_to(folder)}", path.read_bytes())
    return address


def source_of(data_dir, split=None):
    return Folder(data_dir).open(split, None, BadImages(), "split")


def pixels(source):
    return [source.load(example)[0].numpy() for example in source.examples(None)]


@SCHEMES
def test_bucket__every_format_to_the_bit(scheme, bucket, tmp_path):
    good = write_good(tmp_path / "D")
    address = upload(tmp_path / "D", bucket(scheme))
    one, other = source_of(str(tmp_path / "D")), source_of(address)
    assert other.fingerprint == one.fingerprint and other.num_examples == len(good)
    for ours, theirs in zip(pixels(other), pixels(one), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@SCHEMES
def test_bucket__splits_and_what_is_left_out(scheme, bucket, caplog):
    address = bucket(scheme)
    paths = [
        f"{s}/{c}/{i}.png" for s in ("train", "val") for c in "ab" for i in range(2)
    ]
    for name in (*paths, "val/.x/1.png", "__MACOSX/1.png", "train/2.psd", "readme.txt"):
        put(f"{address}/{name}", PNG)
    found = Folder(address)
    assert found.default_splits() == ("train", "val")
    files = [
        e["file"].numpy().decode()
        for e in found.open("train", None, BadImages(), "split").examples(None)
    ]
    assert files == [f"{address}/{path}" for path in paths[:4]]
    assert caplog.messages == [
        f"left out in {address}: 1 .psd, which are not read; directories of "
        "other programs: 1 (__MACOSX); hidden: 1 (val/.x)"
    ]


@SCHEMES
def test_list__in_a_bucket_and_of_files_in_one(scheme, bucket, tmp_path):
    address = bucket(scheme)
    for name in ("a.png", "d/b.png"):
        put(f"{address}/{name}", PNG)
    put(f"{address}/list.csv", b"path,label\na.png,0\nd/b.png,1\ngone.png,1\n")
    found = places.open_places(f"{address}/list.csv")
    assert (found.files, found.broken) == (["a.png", "d/b.png"], ["gone.png"])
    assert len(pixels(source_of(f"{address}/list.csv"))) == 2
    (tmp_path / "own.png").write_bytes(PNG)
    (tmp_path / "list.txt").write_text(f"own.png\n{address}/a.png\n{address}/z.png\n")
    listed = str(tmp_path / "list.txt")
    found = places.open_places(listed)
    assert found.files == ["own.png", f"{address}/a.png"]
    assert found.broken == [f"{address}/z.png"]
    assert len(pixels(source_of(listed))) == 2
    several = source_of(f"{listed},{address}")
    files = [e["file"].numpy().decode() for e in several.examples(None)]
    here = str(tmp_path / "own.png")
    assert files == [here, f"{address}/a.png", f"{address}/d/b.png"]
    assert len(pixels(several)) == 3


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memory://nowhere/photos", "a directory of a bucket that can be read"),
        ("ram://nowhere/photos", "a directory of a bucket that can be read"),
        ("memory://nowhere/list.csv", r"a list that can be read \(No such file"),
        ("memory://bucket/x.zip", "of a bucket, a directory or a list of files"),
        ("strange://bucket/x", "an address that fsspec can open .*strange.*buckets"),
    ],
)
def test_bucket__that_cannot_be_read_is_one_line(address, message):
    with pytest.raises(Refused, match=f"^--data_dir: .*accepted: {message}") as refused:
        Folder(address)
    assert "\n" not in str(refused.value)


def test_bucket__without_fsspec_or_what_it_needs(monkeypatch):
    def missing(path):
        raise ImportError("Install s3fs to access S3\nand more")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    message = (
        r"^--data_dir: received 's3://b/x', accepted: .*Install s3fs to access S3; "
    )
    with pytest.raises(Refused, match=message):
        Folder("s3://b/x")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    message = r"accepted: gs:// or, with fsspec, other buckets: pip install 'tf-dpred\["
    with pytest.raises(Refused, match=message):
        Folder("s3://b/x")


class NoCredentials(Exception):
    """An error as the libraries of buckets have them."""


@pytest.fixture
def failing(monkeypatch):
    """A file system of which everything fails -> how."""
    system = type(fsspec.filesystem("memory"))

    def fail_with(error):
        def fail(*args, **kwargs):
            raise error

        for name in ("find", "info", "cat_file"):
            monkeypatch.setattr(system, name, fail)

    return fail_with


def test_bucket__errors_of_its_library(failing, bucket, tmp_path):
    address = bucket("memory")
    put(f"{address}/a.png", PNG)
    source = source_of(address)
    (tmp_path / "list.txt").write_text(f"{address}/a.png\n")
    failing(NoCredentials("Unable to locate credentials\nat all"))
    message = r"^--data_dir: .* that can be read \(Unable to locate credentials\)"
    with pytest.raises(Refused, match=message):
        Folder(address)
    with pytest.raises(Refused, match=r"^--data_dir: .*Unable to locate credentials"):
        Folder(str(tmp_path / "list.txt"))
    said = rf"{address}/a.png; Unable to locate credentials; Input/output error"
    with pytest.raises(UnreadableImage, match=said), named_errors():
        pixels(source)
    assert image_files.problem(f"{address}/a.png").endswith(said)
    failing(PermissionError(13, "Forbidden"))
    with pytest.raises(UnreadableImage, match="Permission denied"), named_errors():
        pixels(source)
    failing(TypeError("a bug"))
    with pytest.raises(tf.errors.OpError, match="TypeError: a bug"), named_errors():
        pixels(source)


@SCHEMES
def test_bucket__a_file_that_is_gone_or_broken(scheme, bucket, tmp_path, caplog):
    address = bucket(scheme)
    for name in ("a.png", "b.png"):
        put(f"{address}/{name}", PNG)
    put(f"{address}/c.png", b"no picture")
    source = source_of(address)
    assert len(pixels(source)) == 3
    assert any(
        m.startswith(f"left out {address}/c.png: not a") for m in caplog.messages
    )
    remove = tf.io.gfile.remove if scheme == "ram" else fsspec.filesystem("memory").rm
    remove(f"{address}/a.png")
    with pytest.raises(UnreadableImage, match="No such file"), named_errors():
        pixels(source)


def test_modes__take_a_bucket(exported, bucket, tmp_path, capsys):
    for split in ("train", "val"):
        made = write_pngs(tmp_path / "D" / split, 8)
    address = upload(tmp_path / "D", bucket("memory"))
    put(f"{address}/val/a/bad.png", b"no picture")
    given = {"data_dir": address, "dataset": "folder", "export_dir": str(exported)}
    config = settings.of_encoder(given)
    assert check.run(config, FilesConfig()) == 1
    assert capsys.readouterr().out.startswith("val/a/bad.png\tnot a file of one of")
    small = tmp_path / "small"
    assert shrink.run(config, FilesConfig(output=str(small), short_side=8)) == 1
    assert len(list(small.rglob("*.jpg"))) == 16
    capsys.readouterr()
    output = tmp_path / "out.npz"
    embed.run(config, FilesConfig(output=str(output)))
    names = [f"{split}/{name}" for split in ("train", "val") for name in made]
    assert np.load(output)["files"].tolist() == names
    files = {"output": str(tmp_path / "n.png"), "features": str(output)}
    query = f"{address}/train/a/000.png"
    search.run(config, FilesConfig(**files, query=query))
    assert "1.0000  train/a/000.png\n" in capsys.readouterr().out
    evaluate.knn(config, FilesConfig())
    assert "| online, step 7 |" in capsys.readouterr().out


def test_pretraining__on_a_bucket_goes_on(bucket, tmp_path):
    write_pngs(tmp_path / "D", 24)
    address = upload(tmp_path / "D", bucket("memory"))
    given = {"dataset": "folder", "views": "cifar", "train_size": None, "batch_size": 8}
    given["data_dir"] = address
    pretraining(str(tmp_path / "w"), epochs=1, **given).train()
    assert pretraining(str(tmp_path / "w"), epochs=2, **given).train()["step"] == 6


def test_join__addresses_and_paths():
    root = remote.Root("s3://b/x")
    assert root / "a/b.png" == "s3://b/x/a/b.png" and root / "s3://c/d" == "s3://c/d"
    assert remote.Root("") / "a.png" == "a.png"
    assert remote.join("/x", "gs://b/a.png") == "gs://b/a.png"
    given = Config.from_dict({"data_dir": "s3://b/x,gs://c/y"}).data.data_dir
    assert given == "s3://b/x,gs://c/y"
    assert contents.may_be_read("s3://b/x.png")
