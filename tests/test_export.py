"""The export against the network that was trained, from every side it can be used."""

import json

import devices
import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_dpred import build
from tf_dpred.callbacks.target_ema import TargetEMA
from tf_dpred.config import Config
from tf_dpred.data import views
from tf_dpred.data.preprocessing import Preprocessing
from tf_dpred.encoders import export, restore, settings
from tf_dpred.networks.normalization import BatchNormalization

TINY = {
    "width": 1 / 16,
    "image_size": 24,
    "projector_hidden": 16,
    "projector_dim": 8,
    "views": "byol",
    "dataset": "digits",
}


@pytest.fixture(scope="module")
def encoder():
    """A network whose BatchNorm statistics are not those it started with."""
    encoder = restore.untrained(Config.from_dict(TINY))
    generator = np.random.default_rng(0)
    for _ in range(3):
        images = generator.integers(0, 256, (8, 24, 24, 3)).astype(np.float32)
        encoder.network(images, training=True)
    return encoder


@pytest.fixture(scope="module")
def exported(encoder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return export.write_encoder(encoder, workdir / "export", workdir)


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(str(exported))


def pictures(count, height, width):
    generator = np.random.default_rng(height)
    coarse = generator.integers(0, 256, (count, 6, 6, 3)).astype(np.float32)
    smooth = tf.image.resize(coarse, [height, width], "bicubic")
    return tf.cast(tf.clip_by_value(smooth, 0, 255), tf.uint8)


def expected(encoder, images):
    """What the trained network says about the evaluation views."""
    clean = [encoder.preprocessing.evaluation_view(image, 24) for image in images]
    return encoder.network(tf.stack(clean), training=False)


def check(outputs, reference, tolerance):
    for name, wanted in zip(("representation", "projection"), reference, strict=True):
        difference = np.abs(outputs[name].numpy() - wanted.numpy()).max()
        scale = np.abs(wanted.numpy()).max()
        print(f"{name}: {difference:.1e} of {scale:.2g}")
        assert difference <= tolerance * max(scale, 1)


@pytest.mark.parametrize("size", [(24, 24), (40, 31), (17, 90)], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_export__call_equals_the_trained_network(size, dtype, encoder, loaded):
    images = pictures(3, *size)
    check(loaded(tf.cast(images, dtype)), expected(encoder, images), 1e-5)


def test_prepare__images_of_the_right_size_are_not_rounded():
    images = tf.random.stateless_uniform([2, 24, 24, 3], [0, 1], maxval=255.0)
    found = export.prepare(images, 24, Preprocessing.of_views("cifar"))
    np.testing.assert_array_equal(found, images)


def test_export__signatures(encoder, loaded):
    images = pictures(3, 50, 40)
    serve = loaded.signatures["serving_default"]
    reference = expected(encoder, images)
    check(serve(images=tf.cast(images, tf.float32)), reference, 1e-5)
    encode = loaded.signatures["encode_jpeg"]
    png = tf.map_fn(tf.io.encode_png, images, fn_output_signature=tf.string)
    check(encode(encoded=png), reference, 1e-5)


def test_export__jpeg_files_of_different_sizes(encoder, loaded):
    files = [tf.io.encode_jpeg(pictures(1, *size)[0]) for size in ((30, 60), (64, 48))]
    decoded = [tf.io.decode_jpeg(file, channels=3) for file in files]
    outputs = loaded.signatures["encode_jpeg"](encoded=tf.stack(files))
    check(outputs, expected(encoder, decoded), 1e-5)


BAD_IMAGES = {
    "rank 3": (np.zeros([8, 8, 3], np.float32), "received shape"),
    "1 channel": (np.zeros([2, 8, 8, 1], np.float32), "received shape"),
    "channels first": (np.zeros([2, 3, 8, 8], np.float32), "received shape"),
    "normalised": (np.full([2, 8, 8, 3], -0.5, np.float32), "received values from"),
    "not a number": (np.full([2, 8, 8, 3], np.nan, np.float32), "received values"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
@pytest.mark.parametrize("how", ["call", "signature"])
def test_export__bad_images(case, how, loaded):
    images, message = BAD_IMAGES[case]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message) as refusal:
        if how == "call":
            loaded(images)
        else:
            loaded.signatures["serving_default"](images=tf.constant(images))
    assert "accepted: [batch, height, width, 3]" in str(refusal.value)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (["no image"], "not a file of one of the kinds .jpeg"),
        ([tf.io.encode_jpeg(pictures(1, 60, 60)[0]).numpy()[:300]], "JPEG"),
        ("one file", "accepted: a batch of encoded images"),
    ],
    ids=["garbage", "cut", "scalar"],
)
def test_export__bad_files(encoded, message, loaded):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        loaded.signatures["encode_jpeg"](encoded=tf.constant(encoded))


def test_export__fine_tunes_after_loading(exported):
    loaded = tf.saved_model.load(str(exported))
    images = pictures(8, 24, 24)
    moving = [v for v in loaded.variables if "moving" in v.name]
    before = [v.numpy() for v in loaded.trainable_variables]
    statistics = [v.numpy() for v in moving]
    loaded(images)
    for old, variable in zip(statistics, moving, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)
    losses = []
    for _ in range(5):
        with tf.GradientTape() as tape:
            outputs = loaded(images, training=True)
            loss = tf.reduce_mean(tf.square(outputs["projection"] - 1.0))
        gradients = tape.gradient(loss, loaded.trainable_variables)
        assert all(g is not None for g in gradients)
        for variable, gradient in zip(
            loaded.trainable_variables, gradients, strict=True
        ):
            variable.assign_sub(0.01 * gradient)
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert any(
        np.any(old != v.numpy())
        for old, v in zip(before, loaded.trainable_variables, strict=True)
    )
    assert moving and any(
        np.any(old != v.numpy()) for old, v in zip(statistics, moving, strict=True)
    )


def test_export__keras_file(encoder, exported):
    model = keras.saving.load_model(exported / "encoder.keras", safe_mode=True)
    images = pictures(4, 24, 24)
    reference = encoder.network(images, training=False)[0]
    np.testing.assert_allclose(model(images), reference, rtol=1e-5, atol=1e-6)
    classifier = keras.Sequential([model, keras.layers.Dense(2)])
    classifier.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    classifier.fit(images, np.array([0, 1, 0, 1]), verbose=0)


def test_export__onnx(encoder, exported):
    runtime = pytest.importorskip("onnxruntime")
    if not (exported / "encoder.onnx").exists():
        pytest.skip("tf2onnx is not installed")
    session = runtime.InferenceSession(str(exported / "encoder.onnx"))
    images = pictures(4, 24, 24)
    [name] = [i.name for i in session.get_inputs()]
    [found] = session.run(None, {name: images.numpy().astype(np.float32)})
    reference = encoder.network(images, training=False)[0].numpy()
    print(f"ONNX: {np.abs(found - reference).max():.1e}")
    np.testing.assert_allclose(found, reference, atol=1e-3)


def test_export__litert(encoder, exported):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    model = interpreter.Interpreter(str(exported / "encoder.tflite"))
    images = pictures(1, 24, 24)
    [given], [taken] = model.get_input_details(), model.get_output_details()
    model.allocate_tensors()
    model.set_tensor(given["index"], images.numpy().astype(np.float32))
    model.invoke()
    reference = encoder.network(images, training=False)[0].numpy()
    found = model.get_tensor(taken["index"])
    print(f"LiteRT: {np.abs(found - reference).max():.1e}")
    np.testing.assert_allclose(found, reference, atol=1e-3)


def test_export__card_rebuilds_the_network(encoder, exported):
    card = json.loads((exported / "model_card.json").read_text())
    assert card["format_version"] == 1
    assert card["input"]["range"] == [0, 255]
    config = Config.from_dict(card["flags"])
    rebuilt = restore.untrained(config).network
    assert [v.shape for v in rebuilt.variables] == [
        v.shape for v in encoder.network.variables
    ]
    text = (exported / "model_card.md").read_text()
    assert "Licence" in text and "digits" in text
    assert "workdir" not in card["flags"]


def small_backbone():
    images = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(6, 3, 2, use_bias=False)(images)
    x = keras.layers.ReLU()(BatchNormalization()(x))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


def trained_export(replicas, directory):
    """Trains two steps, exports -> the trained network's own representations."""
    keras.utils.set_random_seed(0)
    config = Config.from_dict(TINY | {"image_size": 16, "views": "digits"})
    pair = views.view_pair("digits")
    batches = tf.data.Dataset.from_tensor_slices(tuple(two_views())).batch(16)
    with devices.strategy(replicas).scope():
        model = build.model(config, 2, pair, small_backbone())
    assert model.distribute_strategy.num_replicas_in_sync == replicas
    ema = TargetEMA(lambda step: 0.99)
    model.fit(batches, shuffle=False, verbose=0, callbacks=[ema])
    network = keras.models.clone_model(model.online)
    network.set_weights(model.online.get_weights())
    encoder = restore.Encoder(network, config, "online", 2)
    export.write_encoder(encoder, directory, directory)
    return model(two_views()[0], training=False).numpy()


def two_views():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (2, 32, 16, 16, 3), dtype=np.uint8)


@pytest.mark.slow
def test_export__two_replicas_equal_one(tmp_path):
    features = []
    for replicas in (1, 2):
        directory = tmp_path / str(replicas)
        trained = devices.on_two_devices(trained_export, replicas, directory)
        loaded = tf.saved_model.load(str(settings.newest_export(directory)))
        found = loaded(two_views()[0])["representation"].numpy()
        np.testing.assert_allclose(found, trained, rtol=1e-5, atol=1e-6)
        features.append(found)
    difference = np.abs(features[0] - features[1]).max()
    print(f"two replicas against one: {difference:.1e}")
    assert difference <= 1e-5 * np.abs(features[0]).max()
