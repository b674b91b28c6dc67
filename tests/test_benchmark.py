"""The programs in tools/ that hand an encoder on."""

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import toys

from tf_dpred.callbacks.target_ema import TargetEMA
from tf_dpred.config import Config
from tf_dpred.data import views
from tf_dpred.encoders import export, restore
from tf_dpred.optimizers import SGD
from tf_dpred.schedules import ema_momentum

CHECKOUT = Path(__file__).parent.parent


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, CHECKOUT / f"tools/{name}.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def new_encoder(backbone, size=64, **settings):
    """An encoder like torchvision's, with BatchNorm statistics of its own."""
    settings = {"stem": "imagenet", "views": "byol", "projector_dim": 8} | settings
    config = Config.from_dict({"backbone": backbone, "image_size": size, **settings})
    encoder = restore.untrained(config)
    generator = np.random.default_rng(0)
    for variable in encoder.network.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        if variable.name in ("beta", "moving_mean"):
            variable.assign(generator.normal(0, 0.1, variable.shape))
    return encoder


def state_of(encoder):
    name = encoder.config.network.backbone
    return load_tool("convert_to_torch").state_dict(encoder.network.get_layer(name))


# Entries of torchvision's state dicts without fc.weight and fc.bias, and some shapes.
TORCHVISION = {
    "resnet18": (
        120,
        {
            "conv1.weight": (64, 3, 7, 7),
            "bn1.running_var": (64,),
            "layer2.0.downsample.0.weight": (128, 64, 1, 1),
            "layer2.0.downsample.1.running_mean": (128,),
            "layer4.1.conv2.weight": (512, 512, 3, 3),
            "layer4.1.bn2.num_batches_tracked": (),
        },
    ),
    "resnet50": (
        318,
        {
            "layer1.0.downsample.0.weight": (256, 64, 1, 1),
            "layer3.5.conv3.weight": (1024, 256, 1, 1),
            "layer4.2.bn3.bias": (2048,),
        },
    ),
}


@pytest.mark.parametrize("backbone", TORCHVISION)
def test_convert_to_torch__names_and_shapes(backbone):
    state = state_of(new_encoder(backbone))
    count, shapes = TORCHVISION[backbone]
    assert len(state) == count
    assert (
        shapes.items() <= {name: value.shape for name, value in state.items()}.items()
    )


# In a process of its own: PyTorch and TensorFlow in one may crash.
IN_TORCH = """
import sys, numpy, torch, torchvision
name, state, images, output = sys.argv[1:]
model = getattr(torchvision.models, name)()
model.fc = torch.nn.Identity()
weights = numpy.load(state)
model.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights})
with torch.no_grad():
    features = model.eval()(torch.from_numpy(numpy.load(images)))
numpy.save(output, features.numpy())
"""


@pytest.mark.parametrize("backbone", TORCHVISION)
def test_convert_to_torch__torchvision_computes_the_same(backbone, tmp_path):
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    encoder = new_encoder(backbone)
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    unit = (images / 255 - encoder.preprocessing.mean) / encoder.preprocessing.std
    state, given, output = (tmp_path / name for name in ("state.npz", "x.npy", "y.npy"))
    np.savez(state, **state_of(encoder))
    np.save(given, unit.transpose(0, 3, 1, 2).astype(np.float32))
    subprocess.run(
        [sys.executable, "-c", IN_TORCH, backbone, state, given, output], check=True
    )
    expected = encoder.network(images, training=False)[0].numpy()
    difference = np.abs(np.load(output) - expected).max() / np.abs(expected).max()
    print(f"{backbone}: {difference:.1e}")
    assert difference < 1e-4


def test_convert_to_torch__notes_what_differs():
    encoder = new_encoder("resnet18", 16, stem="small", width=0.25, views="cifar")
    notes = load_tool("convert_to_torch").notes(encoder)
    assert "Conv2d(3, C, 3, 1, 1" in notes
    assert "0.4914" in notes and "16 x 16" in notes
    assert "times 0.25" in notes


def test_convert_to_torch__refuses_what_is_not_there(tmp_path):
    tool = load_tool("convert_to_torch")
    with pytest.raises(SystemExit, match="run', accepted: a directory written by"):
        tool.main([str(tmp_path / "run"), str(tmp_path / "out.npz")])
    with pytest.raises(ValueError, match="received layer 'pool'"):
        tool.module_name("pool")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An export of a network of two layers."""
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, 2, activation="tanh")(images / 255.0)
    representation = keras.layers.GlobalMaxPooling2D()(x)
    projection = keras.layers.Dense(3)(representation)
    network = keras.Model(images, [representation, projection])
    path = tmp_path_factory.mktemp("export")
    encoder = restore.Encoder(
        network, Config.from_dict({"image_size": 16}), "online", 7
    )
    return export.write_encoder(encoder, path, path)


def write_images(folder, count):
    generator = np.random.default_rng(0)
    images = {}
    for index in range(count):
        name = f"{'ab'[index % 2]}/{index:03}.png"
        images[name] = generator.integers(0, 256, (20, 16, 3), dtype=np.uint8)
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(tf.io.encode_png(images[name]).numpy())
    return images


def test_embed__rows_belong_to_files(exported, tmp_path, capsys):
    images = write_images(tmp_path / "images", 70)  # more than a batch
    (tmp_path / "images" / "a" / "bad.jpg").write_bytes(b"\xff\xd8\xff no more")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    output = tmp_path / "features.npz"
    load_tool("embed").main([str(exported), str(tmp_path / "images"), str(output)])
    features = np.load(output)
    assert features["files"].tolist() == sorted(images)
    encoder = tf.saved_model.load(str(exported))
    for row in (0, 33, 69):
        image = images[str(features["files"][row])]
        expected = encoder(image[None])
        for name in ("representation", "projection"):
            np.testing.assert_allclose(
                features[name][row], expected[name][0], rtol=1e-4, atol=1e-5
            )
    printed = capsys.readouterr()
    assert "left out a/bad.jpg" in printed.err
    assert "71/71 images" in printed.err
    assert "70 representations" in printed.out


def test_embed__refuses_in_one_line(exported, tmp_path):
    embed = load_tool("embed")
    with pytest.raises(SystemExit, match="accepted: a folder with images"):
        embed.main([str(exported), str(tmp_path), str(tmp_path / "out.npz")])
    write_images(tmp_path, 1)
    with pytest.raises(SystemExit, match="written by --mode=export"):
        embed.main([str(tmp_path), str(tmp_path), str(tmp_path / "out.npz")])


def test_neighbours__finds_the_image_itself_first(exported, tmp_path, capsys):
    images = write_images(tmp_path / "images", 6)
    features = tmp_path / "features.npz"
    load_tool("embed").main([str(exported), str(tmp_path / "images"), str(features)])
    capsys.readouterr()
    name = sorted(images)[4]
    tool = load_tool("neighbours")
    output = tmp_path / "out.png"
    query = tmp_path / "images" / name
    given = [exported, features, tmp_path / "images", query, output, "--count=3"]
    tool.main([str(argument) for argument in given])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"1.0000  {name}"
    similarity = [float(line.split()[0]) for line in lines]
    assert len(lines) == 3 and similarity == sorted(similarity, reverse=True)
    picture = tf.io.decode_png(output.read_bytes()).numpy()
    tiles = 4 * tool.SIDE + tool.GAP + 4 * tool.GAP + 3 * tool.GAP
    assert picture.shape == (tool.SIDE + 2 * tool.GAP, tiles, 3)
    query_tile = picture[:, tool.GAP : tool.GAP + tool.SIDE]
    first = 5 * tool.GAP + tool.SIDE
    np.testing.assert_array_equal(query_tile, picture[:, first : first + tool.SIDE])
    assert not np.array_equal(query_tile, picture[:, -tool.SIDE - tool.GAP : -tool.GAP])


# The benchmark; what it measures is not run here, but for the smallest.


def benchmark(module, monkeypatch):
    monkeypatch.syspath_prepend(CHECKOUT)
    return importlib.import_module(f"tools.benchmark.{module}")


def test_benchmark__workers_take_turns_and_may_be_absent(monkeypatch, tmp_path):
    race = benchmark("race", monkeypatch)
    script = """
import sys, time
sys.path.insert(0, "tools/peers")
from serve import serve
print("a library talks")
serve(lambda: {"at": time.monotonic()}, version="1")
"""
    command = [sys.executable, "-c", script]
    missing = [sys.executable, "-c", "import no_such_module"]
    found, about, absent = race.run(
        {"a": command, "b": command, "c": missing}, 2, optional=["c"]
    )
    turns = [found[name]["at"][turn] for turn in (0, 1) for name in "ab"]
    assert turns == sorted(turns)
    assert about == {"a": {"version": "1"}, "b": {"version": "1"}}
    assert absent == {"c": "ModuleNotFoundError: No module named 'no_such_module'"}
    assert found["a"]["peak MB"][0] > 1
    with pytest.raises(SystemExit, match="c: ModuleNotFoundError"):
        race.run({"c": missing}, 1)
    # One that fails when it is at work.
    failing = [sys.executable, "-c", script.replace("time.monotonic()", "1 / 0")]
    found, _, absent = race.run({"a": command, "b": failing}, 2, optional=["b"])
    assert len(found["a"]["at"]) == 2 and "b" not in found
    assert absent == {"b": "ZeroDivisionError: division by zero"}


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (123456.0, "123,500"),
        (1234.0, "1,234"),
        (56.78, "56.8"),
        (0.123456, "0.123"),
        (0.00123, "1.2e-03"),
        (0.0, "0"),
        (None, ""),
        ("read", "read"),
    ],
)
def test_benchmark__cells(number, expected, monkeypatch):
    assert benchmark("table", monkeypatch).text(number) == expected


def test_benchmark__solver(monkeypatch, capsys):
    """The smallest part as a user runs it."""
    solver = benchmark("solver", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["solver", "--sizes=8", "--seconds=0"])
    monkeypatch.setattr(sys, "stdin", ["\n"])
    solver.main()
    ready, found = map(json.loads, capsys.readouterr().out.splitlines())
    assert ready == {"ready": {"sizes": [8]}}
    assert found["eigh 8 error"] < 1e-3 and found["newton_schulz 8 error"] < 1e-3
    assert found["eigh 8 ms"] > 0 and found["newton_schulz 8 ms"] > 0


def test_benchmark__parts_of_a_step(monkeypatch):
    """Each part is there, and can be called again and again."""
    model = toys.model()
    model.compile(SGD())
    TargetEMA(ema_momentum("constant", 0.9, 1)).set_model(model)
    batch = tuple(tf.constant(view[0]) for view in toys.views(1))
    functions = benchmark("step_parts", monkeypatch).parts(model, batch)
    order = benchmark("step_tables", monkeypatch).PARTS_IN_ORDER
    passes = {"forward and backward", "step"}
    assert functions.keys() == {*order, *passes} - {"backward"}
    for function in functions.values():
        function(), function()
    assert model.steps_done == 4  # the optimizer's part, and the step


@pytest.mark.parametrize("augment_on", ["host", "device"])
def test_benchmark__batch_of_a_step(monkeypatch, augment_on):
    """What the step is given fits what the run's step takes."""
    step = benchmark("step", monkeypatch)
    settings = {"augment_on": augment_on, "image_size": 8, "batch_size": 4}
    config = Config.from_dict({**settings, "width": 0.125, "projector_dim": 4})
    _, model, batch = step.model_and_batch(config)
    assert np.isfinite(float(model.train_step(batch)["loss"]))
    functions = benchmark("step_parts", monkeypatch).parts(model, batch)
    assert [f.shape for f in functions["forward online"]()] == [(4, 4)] * 2


def test_benchmark__pytorch_is_told_the_same_step_or_none(monkeypatch):
    pytorch = benchmark("pytorch", monkeypatch)
    given = f"--flagfile={CHECKOUT}/configs/stl10.cfg"
    assert pytorch.torch_flags([given, "--batch_size=64"]) == [
        "--backbone=resnet18",
        "--stem=imagenet",
        "--projector_hidden=512",
        "--projector_dim=128",
        "--image_size=96",
        "--batch_size=64",
        "--precision=float32",
    ]
    reason = "its step has no --width=0.5, --optimizer=lars"
    with pytest.raises(benchmark("race", monkeypatch).Absent, match=reason):
        pytorch.torch_flags([given, "--optimizer=lars", "--width=0.5"])


def test_benchmark__input_stages(monkeypatch, tmp_path):
    inputs = benchmark("inputs", monkeypatch)
    write_images(tmp_path, 6)
    settings = {"dataset": "folder", "data_dir": str(tmp_path), "image_size": 8}
    config = Config.from_dict({**settings, "batch_size": 4, "views": "byol"})
    shapes = {}
    for stage in inputs.STAGES:
        first = next(iter(inputs.dataset(config, stage)))
        shapes[stage] = [tuple(t.shape) for t in tf.nest.flatten(first)]
    pair = [(4, 8, 8, 3)] * 2
    assert shapes == {
        "read": [(4,)],
        "decode": [(4, 3)],
        "crop": [*pair, *[(4, views.NUM_DRAWS)] * 2],
        "photometric": pair,
        "all": pair,
    }


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--part=step,speed", "--part: received ['speed'], accepted: step, "),
        ("--rounds=0", "received --rounds=0 --seconds=5.0, accepted: 1 or more"),
        ("--peer_python=/none", "--peer_python: received '/none', accepted: a program"),
        ("--data_dir=/none", "--data_dir: received '/none', accepted: a folder"),
        ("--output=/none/x", "--output: received '/none/x', accepted: a file in a"),
    ],
)
def test_benchmark__refuses(flag, message, monkeypatch, capsys):
    main = benchmark("__main__", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["benchmark", flag])
    with pytest.raises(SystemExit):
        main.main()
    assert message in capsys.readouterr().err


def test_benchmark__check_names_what_got_slower(monkeypatch, tmp_path, capsys):
    check = benchmark("check", monkeypatch)
    monkeypatch.setattr(check, "STORED", tmp_path / "ratios.json")
    with pytest.raises(SystemExit, match=r"ratios\.json: received no such file"):
        check.main([])
    found = {"step": 0.8, "input": 0.4}
    monkeypatch.setattr(check, "measure", lambda options: dict(found))
    check.main(["--update"])
    found |= {"step": 0.8 * 0.86, "input": 0.9}
    check.main([])
    found["step"] = 0.8 * 0.84
    with pytest.raises(SystemExit, match=r"^slower: step: 0\.672, stored 0\.800$"):
        check.main([])
    del found["input"]
    with pytest.raises(SystemExit, match=r"input: 0\.000, stored 0\.400"):
        check.main([])
    assert "  0.900  stored   0.400  input" in capsys.readouterr().out


def test_benchmark__check_reads_its_ratios_off_the_tables(monkeypatch):
    """Twice as slow a part, twice as small a ratio; a small share is not watched."""
    check = benchmark("check", monkeypatch)
    table = benchmark("table", monkeypatch).Table
    options = benchmark("options", monkeypatch).Options

    def tables(step=20.0, optimizer=30.0, crop=50.0):
        steps = {"tf_dpred": {"images/s": [step]}, "convolutions": {"images/s": [25.0]}}
        parts = {"optimizer": [optimizer], "F": [1.0], "W": [1.0], "EMA": [9.0]}
        rates = {"decode": 100.0, "crop": crop, "photometric": 40.0, "all": 30.0}
        values = {
            "step": [{"small": {"values": steps}}],
            "step_parts": [{"small": parts | {"step": [1000.0]}}],
            "input": [
                {"values": {k: {"images/s": [v]} for k, v in rates.items()}},
                {},
            ],
            "evaluation": [{"evaluation": {"features": [99.0], "forward": [100.0]}}],
        }
        made = {
            part: lambda options, found=found: [table("", (), [], [], v) for v in found]
            for part, found in values.items()
        }
        monkeypatch.setattr(check, "PARTS", made)
        return check.measure(options(1, 1.0, "python", None, {"small": []}))

    before = tables()
    assert before["small: step over convolutions alone"] == 0.8
    assert before["small: 1.5% of a step over optimizer"] == 0.5
    assert before["small: 1.5% of a step over EMA"] == 1.0
    assert before["input up to crop over decoding"] == 0.5
    assert before["features over the forward pass"] == 0.99
    assert check.slower(before, before) == []
    for change in ({"step": 10.0}, {"optimizer": 60.0}, {"crop": 25.0}):
        (line,) = check.slower(tables(**change), before)
        assert next(iter(change)) in line
