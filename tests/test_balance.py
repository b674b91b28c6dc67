"""Equal shares of folders and classes: of any sizes, resumable, the same everywhere."""

import dataclasses

import images
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from test_recovery import last, pretraining

from tf_dpred.config import Config, FilesConfig
from tf_dpred.data import balance, cache, pipeline, views
from tf_dpred.data.datasets import training_source
from tf_dpred.data.source import from_arrays
from tf_dpred.errors import Refused
from tf_dpred.reports import preview

SIZES = (2, 40, 9)
GROUPS = np.repeat(range(3), SIZES)


def drawn(order, seed):
    return order(tf.constant(seed, tf.int64)).numpy()


@hypothesis_settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=6), seed=st.integers(0, 99)
)
def test_equal_shares__of_any_groups(sizes, seed):
    """Shares differ by one draw, and so do the draws of the images of a group."""
    groups = np.random.default_rng(seed).permutation(
        np.repeat(range(len(sizes)), sizes)
    )
    found = drawn(balance.equal_shares(groups), seed)
    assert found.shape == groups.shape
    counts = np.bincount(found, minlength=len(groups))
    shares = np.bincount(groups, weights=counts)
    assert np.ptp(shares) <= 1 and shares.sum() == len(groups)
    assert all(np.ptp(counts[groups == g]) <= 1 for g in range(len(sizes)))


def test_equal_shares__an_order_of_each_epoch_by_its_seed_alone():
    order = balance.equal_shares(GROUPS)
    first = drawn(order, 5)
    np.testing.assert_array_equal(drawn(balance.equal_shares(GROUPS), 5), first)
    assert not np.array_equal(drawn(order, 6), first)
    # All images of a large folder come, though a part of them in each epoch; every
    # place of the epoch is of any group; and no group has the draw that is left over.
    epochs = np.stack([drawn(order, seed) for seed in range(60)])
    assert set(epochs.ravel()) == set(range(len(GROUPS)))
    of_place = GROUPS[epochs].mean(axis=0)
    assert 0.5 < of_place.min() and of_place.max() < 1.5
    shares = np.stack([np.bincount(GROUPS[epoch]) for epoch in epochs[:, :50]])
    assert np.all(shares.mean(axis=0) > 16)


def arrays(groups=GROUPS):
    pixels = np.arange(len(groups), dtype=np.uint8)
    return from_arrays(
        np.broadcast_to(pixels[:, None, None], (len(groups), 8, 8)), groups
    )


def of(source, by="classes", **given):
    return balance.of_config(Config.from_dict({"balance": by, **given}), source)


def indices(source, seed, skip=0):
    examples = source.examples(seed, skip)
    return [int(example["image"][0, 0, 0]) for example in examples]


def test_of_config__skips_and_keeps_the_stored_order():
    source = of(arrays())
    assert indices(source, 3, 20) == indices(source, 3)[20:]
    assert indices(source, None) == list(range(51))
    assert len(indices(source, 3)) == source.num_examples == 51
    assert of(arrays(), "none").fingerprint == arrays().fingerprint
    # Other classes of the same images are another run.
    others = [of(arrays(groups)).fingerprint for groups in (GROUPS, GROUPS[::-1])]
    assert len({arrays().fingerprint, *others}) == 3


def test_of_config__where_images_lie_on_the_device():
    source = of(arrays())
    cached = cache.indices_of(source)
    found = [int(example["index"]) for example in cached.examples(4)]
    assert found == indices(source, 4)


def write(root, **folders):
    for name, count in folders.items():
        made = images.write_pngs(root / name, count)
        assert len(made) == count
    return root


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("{0}", {"big": 24, "small": 24}),
        ("{0}/small,{0}/big", {"big": 24, "small": 24}),
        ("{0}/list.csv", {"big": 24, "small": 24}),
        ("{0}/absolute.txt", {"big": 24, "small": 24}),
        ("{0}/big", {"big": 40}),
    ],
)
def test_balance__by_folders_of_every_source(given, expected, tmp_path, caplog):
    write(tmp_path, big=40, small=8)
    names = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.png"))
    text = "path,label\n" + "".join(f"{name},x\n" for name in names)
    (tmp_path / "list.csv").write_text(text)
    (tmp_path / "absolute.txt").write_text("".join(f"{tmp_path / n}\n" for n in names))
    caplog.set_level("INFO", logger="absl")
    config = Config.from_dict(
        {"dataset": "folder", "data_dir": given.format(tmp_path), "balance": "folders"}
    )
    source = balance.of_config(config, training_source(config))
    files = [e["file"].numpy().decode() for e in source.examples(1)]
    counts = {name: sum(f"/{name}/" in file for file in files) for name in expected}
    assert counts == expected
    share = len(files) // 2
    assert f"2 of them, about {share} draws of each in an epoch" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("paths", "by", "message"),
    [
        (
            ["a/1", "b/2"],
            "classes",
            "for folder train, accepted: none, or folders with",
        ),
        (
            ["1", "2"],
            "folders",
            r"which has one of them \(\), accepted: none, or images",
        ),
        (["x/1", "x/2"], "folders", r"which has one of them \(x\), accepted: none, or"),
        (
            ["train/a/1", "train/a/2", "val/a/3"],
            "classes",
            "accepted: none, or folders",
        ),
    ],
)
def test_balance__of_nothing_to_balance_is_one_line(paths, by, message, tmp_path):
    content = tf.io.encode_png(tf.zeros([8, 8, 3], tf.uint8)).numpy()
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{path}.png").write_bytes(content)
    config = Config.from_dict(
        {"dataset": "folder", "data_dir": str(tmp_path), "balance": by}
    )
    with pytest.raises(Refused, match=rf"^--balance: received '{by}' .*{message}"):
        balance.of_config(config, training_source(config))


def test_balance__other_sources_that_have_none():
    with pytest.raises(
        Refused, match="of which 1 have no label, accepted: none, or a l"
    ):
        of(arrays(np.array([0, 1, -1, 1])))
    with pytest.raises(
        Refused, match="for arrays train, accepted: none, or folders wit"
    ):
        of(arrays(), "folders")
    streamed = dataclasses.replace(arrays(), at=None)
    with pytest.raises(
        Refused, match="for arrays train, accepted: none, or folders wit"
    ):
        of(streamed)


def test_training_views__balanced_equal_from_any_step_and_worker():
    source = of(arrays())
    pair = views.of_config(Config.from_dict({"views": "cifar"}))

    def stream(**given):
        made = pipeline.training_views(
            source, pair, 8, 10, seed=2, labels=True, **given
        )
        return [[part.numpy() for part in batch] for batch in made.take(8)]

    whole = stream()
    for late, batch in zip(stream(start_step=3), whole[3:], strict=False):
        assert all(map(np.array_equal, late, batch))
    shares = [stream(share=(worker, 2)) for worker in (0, 1)]
    for batch, *parts in zip(whole, *shares, strict=True):
        for tensor, *pieces in zip(batch, *parts, strict=True):
            np.testing.assert_array_equal(tensor, np.concatenate(pieces))
    labels = np.concatenate([batch[-1] for batch in whole[:5]])
    assert np.bincount(labels).min() >= 15


def test_pretraining__balanced_goes_on_to_the_bit(tmp_path):
    write(tmp_path / "D", big=20, small=4)
    given = {"dataset": "folder", "data_dir": str(tmp_path / "D"), "views": "cifar"}
    given |= {"train_size": None, "batch_size": 8, "balance": "folders"}
    for name, stops in (("once", (2,)), ("twice", (1, 2))):
        for epochs in stops:
            pretraining(str(tmp_path / name), epochs=epochs, **given).train()
    once, twice = last(tmp_path / "once"), last(tmp_path / "twice")
    assert once.keys() == twice.keys()
    assert all(np.array_equal(once[name], twice[name]) for name in once)
    given["balance"] = "none"
    with pytest.raises(Refused, match="balance: 'folders' -> 'none'"):
        pretraining(str(tmp_path / "once"), epochs=3, **given)
    config = Config.from_dict(
        {
            **given,
            "balance": "folders",
            "image_size": 16,
            "workdir": str(tmp_path / "p"),
        }
    )
    preview.run(config, FilesConfig())
    assert (tmp_path / "p" / "preview.png").exists()
