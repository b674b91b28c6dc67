"""Several processes over loopback train as one does; lost workers are noticed."""

import json
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import processes
import pytest
import worker

from tf_dpred.config import Config
from tf_dpred.errors import Refused
from tf_dpred.system import cluster

ADDRESSES = ["127.0.0.1:1", "127.0.0.1:2"]
SETTINGS = {
    "precision": "float64",
    "optimizer": "lars",
    "base_lr": 1.0,
    "freq": 2,
    "projector_hidden": 16,
    "checkpoint_every": 2,
    "deterministic": True,
}


def start(directory, workers, **settings):
    """Runs worker.py in so many processes -> what each ended with."""
    addresses = cluster.free_addresses(workers)
    started = []
    for index in range(workers):
        own = {"out": f"{directory}/{index}.npz", "workdir": f"{directory}/run"}
        own |= SETTINGS | settings
        other = own.pop("last_workdir", own["workdir"])
        if index == workers - 1:
            own["workdir"] = other
        for name in ("die_at", "signal_at"):
            if name in own and index < workers - 1:  # it is the last one's
                del own[name]
        tf_config = cluster.tf_config(addresses, index) if workers > 1 else None
        started.append(processes.Started(worker.train, tf_config, own))
    return [process.wait() for process in started]


def results(directory, workers):
    return [dict(np.load(directory / f"{index}.npz")) for index in range(workers)]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two")
    ended = start(directory, 2)
    assert [process.returncode for process in ended] == [0, 0], ended
    return directory, results(directory, 2)


def test_two_workers__equal_one_process(unbroken, tmp_path):
    ended = start(tmp_path, 1)
    assert ended[0].returncode == 0, ended
    (one,) = results(tmp_path, 1)
    first, second = unbroken[1]
    assert one.keys() == first.keys() == second.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        np.testing.assert_allclose(first[name], value, 1e-10, 1e-12, err_msg=name)


def test_two_workers__only_the_chief_writes(unbroken):
    directory, _ = unbroken
    names = {path.name for path in (directory / "run").iterdir()}
    assert names == {
        ".lock",
        "backbone.keras",
        "checkpoints",
        "epochs.jsonl",
        "flags.json",
        "result.json",
        "tensorboard",
        "theory.jsonl",
    }
    assert len(list((directory / "run" / "tensorboard").iterdir())) == 1
    assert len((directory / "run" / "epochs.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_two_workers__stop_and_go_on(unbroken, tmp_path):
    """One is killed, which the other says; one is told to stop: both save and stop."""
    ended = start(tmp_path, 2, die_at=7)
    assert [process.returncode for process in ended] == [1, -9], ended
    assert "lost: worker 0 of 2" in ended[0].stderr
    assert "Start all of them again" in ended[0].stderr
    ended = start(tmp_path, 2, signal_at=7)
    assert [process.returncode for process in ended] == [75, 75], ended
    ended = start(tmp_path, 2)
    assert [process.returncode for process in ended] == [0, 0], ended
    for found, expected in zip(results(tmp_path, 2), unbroken[1], strict=True):
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_two_workers__another_workdir_is_refused(unbroken, tmp_path):
    """One continues at step 10, the other would start at 0: neither trains."""
    shutil.copytree(unbroken[0] / "run", tmp_path / "run")
    (tmp_path / "empty").mkdir()
    ended = start(tmp_path, 2, last_workdir=str(tmp_path / "empty"), epochs=3)
    for index, process in enumerate(ended):
        assert process.returncode == 1
        assert f"on worker {index}, and another step" in process.stderr


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [32, 34])
def test_two_workers__any_batch_that_divides(batch_size, tmp_path):
    ended = start(tmp_path, 2, batch_size=batch_size, epochs=1)
    assert [process.returncode for process in ended] == [0, 0], ended


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [8, 32, 34])
def test_one_worker__trains_as_one_device(batch_size, tmp_path):
    settings = {"batch_size": batch_size, "epochs": 1}
    tf_configs = {"alone": None, "worker": cluster.tf_config(["127.0.0.1:1"], 0)}
    for name, tf_config in tf_configs.items():
        own = {"out": f"{tmp_path}/{name}.npz", "workdir": f"{tmp_path}/{name}"}
        own["strategy"] = "auto" if tf_config is None else "multi_worker"
        done = processes.run(worker.train, tf_config, SETTINGS | own | settings)
        assert done.returncode == 0, done.stderr
    one, other = (np.load(f"{tmp_path}/{name}.npz") for name in tf_configs)
    for name in one.files:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.slow
def test_accumulation__the_same_on_two_devices(tmp_path):
    """With BatchNorm: a micro-batch holds the same examples, however it is divided."""
    settings = {"accumulation_steps": 2, "batch_size": 8}
    ways = {"one": (1, {}), "mirrored": (1, {"logical_cpus": 2}), "workers": (2, {})}

    def run(name):
        workers, devices = ways[name]
        (tmp_path / name).mkdir()
        ended = start(tmp_path / name, workers, **settings, **devices)
        assert all(process.returncode == 0 for process in ended), ended
        return results(tmp_path / name, workers)[0]

    with ThreadPoolExecutor() as pool:
        found = dict(zip(ways, pool.map(run, ways), strict=True))
    for name in ("mirrored", "workers"):
        for variable, value in found["one"].items():
            other = found[name][variable]
            np.testing.assert_allclose(other, value, 1e-10, 1e-12, err_msg=variable)


@pytest.mark.slow
def test_two_replicas__a_resumed_epoch_logs_the_same(tmp_path):
    """To the bit: the metrics in progress come back as they were on each replica."""
    settings = {"logical_cpus": 2, "precision": "float32", "batch_size": 4}

    def run(name, *signals_at):
        (tmp_path / name).mkdir()
        for step in signals_at:
            ended = start(tmp_path / name, 1, signal_at=step, **settings)
            assert ended[0].returncode == 75, ended
        ended = start(tmp_path / name, 1, **settings)
        assert ended[0].returncode == 0, ended
        return results(tmp_path / name, 1)[0]

    with ThreadPoolExecutor() as pool:
        undisturbed = pool.submit(run, "whole")
        broken = run("broken", 7)
        whole = undisturbed.result()
    assert whole.keys() == broken.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(broken[name], value, err_msg=name)
    logs = [
        (tmp_path / n / "run" / "epochs.jsonl").read_text() for n in ("whole", "broken")
    ]
    assert logs[0] == logs[1]


def test_wait_for_all__names_who_does_not_answer():
    own, there, silent = cluster.free_addresses(3)
    here = cluster.Cluster((own, there, silent), 0)
    with socket.create_server(("127.0.0.1", int(there.split(":")[1]))):
        start = time.monotonic()
        with pytest.raises(Refused, match="and after 1 s") as refusal:
            cluster.wait_for_all(here, 1.0)
    assert 1 < time.monotonic() - start < 5
    assert f"after 1 s {silent} cannot be reached from {own}, acc" in str(refusal.value)


def test_wait_for_all__the_own_address_is_taken():
    own, other = cluster.free_addresses(2)
    with (
        socket.create_server(("", int(own.split(":")[1]))),
        pytest.raises(Refused, match="a port of this machine that is free"),
    ):
        cluster.wait_for_all(cluster.Cluster((own, other), 0), 1.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "it is not JSON"),
        ("[]", "it is not a JSON object"),
        ("{}", "it lacks cluster or task"),
        ('{"cluster": {"worker": ["a:1"]}}', "it lacks cluster or task"),
        (
            '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
            "its cluster has 'ps'",
        ),
        (cluster.tf_config(["host"], 0), "worker is not a list of host:port"),
        (cluster.tf_config(["a:99999"], 0), "worker is not a list of host:port"),
        (
            '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
            "worker is not a list of host:port",
        ),
        (cluster.tf_config(ADDRESSES, 2), "there is no task worker 2 in its cluster"),
        (
            cluster.tf_config(ADDRESSES, 0).replace('type": "worker', 'type": "chief'),
            "there is no task chief 0 in its cluster",
        ),
        (cluster.tf_config(["a:1", "a:1"], 0), "an address occurs twice"),
    ],
)
def test_tf_config__malformed(monkeypatch, text, reason):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(Refused, match="TF_CONFIG: received") as refusal:
        cluster.from_environment()
    message = str(refusal.value)
    assert reason in message
    assert 'accepted: {"cluster": {"worker": ["host:port", ...]}' in message
    assert "\n" not in message


def test_tf_config__none_one_and_a_chief(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cluster.from_environment() is None
    monkeypatch.setenv("TF_CONFIG", cluster.tf_config(ADDRESSES, "1"))
    assert cluster.from_environment() == cluster.Cluster(tuple(ADDRESSES), 1)
    both = {"chief": ["c:1"], "worker": ["w:1"]}
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": both, "task": task}))
    assert cluster.from_environment() == cluster.Cluster(("c:1", "w:1"), 1)


def test_multi_worker__alone_is_one_device(monkeypatch):
    """Its strategy would cut a batch of 32 into two of 16."""
    from tf_dpred.system import devices

    monkeypatch.setenv("TF_CONFIG", cluster.tf_config(["127.0.0.1:1"], 0))
    config = Config.from_dict({"strategy": "multi_worker"}).training
    assert devices.place(config) == devices.Place(0, 1)
    assert devices.make_strategy(config) is devices.tf.distribute.get_strategy()


@pytest.mark.parametrize("strategy", ["auto", "multi_worker"])
@pytest.mark.parametrize("environment", [None, cluster.tf_config(ADDRESSES, 1)])
def test_prepare__an_evaluation_waits_for_no_worker(strategy, environment, monkeypatch):
    from tf_dpred.system import devices

    monkeypatch.delenv("TF_CONFIG", raising=False)
    if environment is not None:
        monkeypatch.setenv("TF_CONFIG", environment)
    monkeypatch.setattr(cluster, "wait_for_all", None)
    config = Config.from_dict({"strategy": strategy}).training
    found = devices.prepare(config, "float32")
    assert found is devices.tf.distribute.get_strategy()


def test_multi_worker__needs_tf_config(monkeypatch):
    from tf_dpred.system import devices

    monkeypatch.delenv("TF_CONFIG", raising=False)
    config = Config.from_dict({"strategy": "multi_worker"}).training
    with pytest.raises(Refused, match="'multi_worker' without TF_CONFIG"):
        devices.make_strategy(config)
