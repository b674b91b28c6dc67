"""The tables of the input: by stage, and beside other programs."""

from __future__ import annotations

from tools.benchmark.options import Options
from tools.benchmark.race import here, medians, run
from tools.benchmark.table import Table

STAGES = {
    "read": "read",
    "decode": "+ decode",
    "crop": "+ two crops",
    "photometric": "+ flip, jitter, gray",
    "all": "+ blur, solarise",
}
PEERS = {
    "torchvision": "torchvision_views",
    "lightly": "lightly_views",
    "DALI on the CPU": "dali_views",
}


def inputs(options: Options) -> list[Table]:
    """Images/s of the input by stage, and beside the peers."""
    with options.images() as (folder, kind):
        flags = ["--dataset=folder", f"--data_dir={folder}", "--image_size=224"]
        flags += ["--views=byol", "--batch_size=64", options.measuring]
        commands = {s: here("inputs", *flags, f"--stage={s}") for s in STAGES}
        for name, script in PEERS.items():
            commands[name] = options.peer(script, *flags)
            if name != "lightly":
                crops = [f for f in flags if f != "--views=byol"] + ["--views=crop"]
                commands[f"{name}, crops"] = options.peer(script, *crops)
        peers = [name for name in commands if name not in STAGES]
        found, about, absent = run(commands, options.rounds, optional=peers)
    middle = {worker: medians(v)["images/s"] for worker, v in found.items()}
    decoding = middle["decode"]
    stages = [
        (name, middle[stage], middle[stage] / decoding)
        for stage, name in STAGES.items()
    ]
    rows = [
        (
            name,
            middle.get(name),
            middle["all"] / middle[name] if name in middle else None,
            middle.get(f"{name}, crops"),
        )
        for name in PEERS
    ]
    rows.insert(0, ("tf_dpred", middle["all"], 1.0, middle["crop"]))
    notes = [f"{worker} is left out: {why}." for worker, why in absent.items()]
    title = f"Input, two views of 224 pixels, {kind}"
    return [
        Table(
            f"{title}: by stage",
            ("up to", "images/s", "of decoding alone"),
            stages,
            [],
            {"values": found, "about": about},
        ),
        Table(
            f"{title}: beside others",
            ("", "BYOL's views, images/s", "tf_dpred over it", "two crops, images/s"),
            rows,
            notes,
        ),
    ]


def views(options: Options) -> list[Table]:
    """Milliseconds of a view's flip, colour and blur, by one thread."""
    rows, values = [], {}
    for recipe, size in (("byol", 224), ("cifar", 32)):
        flags = [f"--views={recipe}", f"--image_size={size}"]
        command = here("views", *flags, f"--seconds={options.seconds / 4}")
        found, _, _ = run({"views": command}, options.rounds)
        middle = medians(found["views"])
        rows += [
            (f"{recipe}, {size} pixels, {name}", ms)
            for name, ms in middle.items()
            if name != "peak MB"
        ]
        values[recipe] = found
    return [Table("Views from crops", ("", "ms a view"), rows, [], values)]
