"""Settings of everything around the method: data, networks, training, evaluation."""

from __future__ import annotations

import dataclasses
import re

from tf_dpred.config import applications
from tf_dpred.config.setting import Numbers, Section, checked_text, refuse, setting

# Measures by which the best checkpoint can be chosen; of all, more is better.
KEEP_BEST = ("knn", "view_top1", "view_top5", "lidar", "rankme")
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
VITS = ("vit_tiny", "vit_small", "vit_base")


@dataclasses.dataclass(frozen=True)
class DataConfig(Section):
    dataset: str = setting(
        "digits", "digits, folder, or the name of a TFDS image data set"
    )
    data_dir: str | None = setting(
        None,
        "the image folder, a list of image files (.txt, .csv, .tsv, .parquet), a .zip, "
        "a bucket, or several of them with commas; or the directory that holds TFDS "
        "data sets",
        path="a directory or a list of files",
        listed=True,
    )
    columns: str | None = setting(
        None,
        "columns of a list of files: path, or path,label, or path,label,split; none: "
        "found by their names",
    )
    split: str | None = setting(
        None, "training split in TFDS syntax; none: the data set's own"
    )
    image_size: int = setting(32, "side of a view in pixels", at_least=8, at_most=2048)
    views: str = setting(
        "digits",
        "augmentation preset",
        choices=(
            "byol",
            "simclr",
            "simsiam",
            "stl10",
            "cifar",
            "digits",
            "satellite",
            "histology",
            "microscopy",
            "documents",
        ),
    )
    view_strength: float = setting(
        1.0, "colour jitter strength of --views=simclr", at_least=0.0, at_most=2.0
    )
    normalize: str = setting(
        "recipe",
        "mean and std of the images: those of --views, or measured on the training "
        "images at the start",
        choices=("recipe", "data"),
    )
    mean: str | None = setting(
        None,
        "of each channel in [0, 1]: 0.5,0.5,0.5",
        numbers=Numbers(None, 0, 1),
    )
    std: str | None = setting(
        None, "of each channel in [0, 1]", numbers=Numbers(None, 1e-3, 1)
    )
    augment_on: str = setting(
        "host",
        "where views are made: by the host's processor, or in the training step (the "
        "crops as well where the images have one size)",
        choices=("host", "device"),
    )
    cache: str = setting(
        "none",
        "device: all training images, of one size, lie on the device that makes their "
        "views; an epoch is shuffled completely",
        choices=("none", "device"),
    )
    shuffle_buffer: int = setting(
        10_000, "encoded images in the shuffle buffer of a TFDS source", at_least=1
    )
    max_bad_images: int = setting(
        100,
        "files of a folder that may be unusable (left out, named) before a run stops",
        at_least=0,
    )
    balance: str = setting(
        "none",
        "draw equally often from each folder (those of --data_dir, or the directories "
        "in it) or from each class; an epoch stays as many draws as there are images",
        choices=("none", "folders", "classes"),
    )
    train_size: int | None = setting(
        None, "train on this many images of the split only", at_least=1
    )
    keep_last_batch: bool = setting(
        False,
        "end an epoch with a smaller batch of the images that fill none (one device)",
    )

    @property
    def on_host(self) -> bool:
        """Whether the input makes the whole views, and the step no part of them."""
        return self.augment_on == "host"

    def check(self) -> None:
        if self.cache == "device" and self.on_host:
            refuse("cache", self.cache, "none, or device with --augment_on=device")


@dataclasses.dataclass(frozen=True)
class NetworkConfig(Section):
    backbone: str = setting(
        "resnet18",
        "resnet18, resnet34, resnet50, resnet101, vit_tiny, vit_small, vit_base, or a "
        "keras.applications name",
    )
    width: float = setting(
        1.0,
        "multiplies the channels of a ResNet (1: first stage 64) or ViT (1: 64 a head)",
        above=0.0,
    )
    stem: str = setting(
        "small",
        "first layer: 7x7 stride 2 and max-pool, or 3x3 stride 1 without",
        choices=("imagenet", "small"),
    )
    zero_init_last_gamma: bool = setting(
        False, "start each residual branch at zero (its last BN gamma)"
    )
    patch_size: int = setting(16, "side of a ViT's patches in pixels", at_least=1)
    pooling: str = setting(
        "mean",
        "features of a ViT: the mean of its patches' tokens, or a class token",
        choices=("mean", "class_token"),
    )
    init: str | None = setting(
        None,
        "weights that both networks start from: a .keras, .h5 or .weights.h5 file, a "
        "torchvision ResNet's .pth or .npz, a work directory, an export; imagenet, "
        "whose weights Keras fetches for a keras.applications name, or imagenet:FILE",
        path="a file or a directory",
    )
    freeze: str | None = setting(
        None,
        "layers of the backbone that are not trained, by the beginning of their names "
        "or by part, stem,stage1; batch_norm: all BatchNorms",
    )
    projector_layers: int = setting(
        2, "Dense layers of the projector", at_least=2, at_most=3
    )
    projector_hidden: int = setting(512, "hidden units of the projector", at_least=1)
    projector_dim: int = setting(
        128, "d, the length of a projection", at_least=2, at_most=8192
    )
    projector_bn_affine: bool = setting(
        False, "hidden BN of the projector has gamma and beta"
    )
    projector_output_bias: bool = setting(True, "the projector's last layer has a bias")
    projector_output_bn: bool = setting(
        False, "BN without gamma and beta after the projector's last layer"
    )

    def check(self) -> None:
        if self.backbone not in RESNETS + VITS and self.width != 1.0:
            refuse("width", self.width, "1 with a keras.applications backbone")
        if self.backbone in VITS and (
            not (channels := round(64 * self.width)) or channels % 4
        ):
            accepted = "such that round(64 width), channels of a head, is 4, 8, 12, ..."
            refuse("width", self.width, accepted)
        if applications.is_imagenet(self.init):
            self._check_imagenet()
        for name, usual in (("patch_size", 16), ("pooling", "mean")):
            if self.backbone not in VITS and getattr(self, name) != usual:
                accepted = f"{usual} unless for {', '.join(VITS)}"
                refuse(name, getattr(self, name), accepted)
        if self.backbone in RESNETS and round(64 * self.width) < 1:
            refuse("width", self.width, "at least 1/64")

    def _check_imagenet(self) -> None:
        word, colon, file = str(self.init).partition(":")
        if self.backbone in RESNETS + VITS:
            accepted = "with a keras.applications name as --backbone only"
            if self.backbone in RESNETS:
                accepted += f"; for {self.backbone}, torchvision's file"
            refuse("init", self.init, accepted)
        if colon:
            path = next(f for f in dataclasses.fields(self) if f.name == "init")
            object.__setattr__(self, "init", f"{word}:{checked_text(path, file)}")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Section):
    optimizer: str = setting(
        "sgd",
        "sgd and lars decay inside the gradient; adamw decoupled",
        choices=("sgd", "lars", "adamw"),
    )
    base_lr: float = setting(
        0.06, "learning rate per 256 images of the batch", above=0.0
    )
    lr_schedule: str = setting(
        "constant", "learning rate after the warm-up", choices=("constant", "cosine")
    )
    warmup_epochs: float = setting(
        0.0,
        "epochs of linear warm-up from 0; a tenth of a run that is no longer than this",
        at_least=0.0,
    )
    momentum: float = setting(0.9, "momentum of sgd and lars", at_least=0.0, below=1.0)
    weight_decay: float = setting(4e-4, "weight decay", at_least=0.0)
    predictor_weight_decay: float | None = setting(
        None, "weight decay of the predictor; none: --weight_decay", at_least=0.0
    )
    predictor_lr_multiplier: float = setting(
        1.0, "learning rate of the predictor over that of the network", above=0.0
    )
    predictor_lr_schedule: str = setting(
        "same",
        "the network's schedule, or its peak throughout (SimSiam)",
        choices=("same", "constant"),
    )

    layer_lr_decay: float = setting(
        1.0,
        "learning rate of each part of the backbone (stages, a ViT's blocks) over that "
        "of the next; the projector has the full one",
        above=0.0,
        at_most=1.0,
    )
    projector_only_epochs: float = setting(
        0.0, "epochs at the start in which the backbone's rate is 0", at_least=0.0
    )

    def check(self) -> None:
        own_group = (
            self.predictor_weight_decay is not None
            or self.predictor_lr_multiplier != 1.0
            or self.predictor_lr_schedule != "same"
            or self.layer_lr_decay != 1.0
            or self.projector_only_epochs != 0.0
        )
        if self.optimizer == "adamw" and own_group:
            refuse(
                "optimizer",
                self.optimizer,
                "sgd or lars where the predictor or a part of the network has its own "
                "decay or learning rate",
            )


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Section):
    epochs: int = setting(30, "passes over the training images", at_least=1)
    batch_size: int = setting(
        128,
        "images (pairs of views) of one optimizer step, over all devices",
        at_least=2,
    )
    accumulation_steps: int = setting(
        1, "micro-batches that one optimizer step is split into", at_least=1
    )
    remat: bool = setting(
        False,
        "compute most activations again for the gradient: less memory, more time, the "
        "same numbers",
    )
    precision: str = setting(
        "float32",
        "Keras dtype policy; auto: mixed_bfloat16 where the device computes in "
        "bfloat16, else float32; a run that is continued keeps its own",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16", "float64"),
    )
    jit_compile: bool = setting(False, "compile the step by XLA (slow on CPU)")
    run_eagerly: bool = setting(
        False, "run the step operation by operation, to look into it (slow)"
    )
    steps_per_execution: int = setting(
        1, "optimizer steps in one call of the compiled function", at_least=1
    )
    strategy: str = setting(
        "auto",
        "tf.distribute strategy; auto: a TPU if there is one, several workers if "
        "TF_CONFIG names them, all GPUs if there are several, else one device",
        choices=("auto", "one", "mirrored", "multi_worker", "tpu"),
    )
    worker_timeout: float = setting(
        300.0, "seconds that the workers of TF_CONFIG wait for each other", above=0.0
    )
    tpu: str | None = setting(None, "name or address of the TPU; none: the local one")
    logical_cpus: int = setting(
        1, "split the CPU into devices to try --strategy=mirrored", at_least=1
    )
    seed: int = setting(0, "seed of weights, order and views", at_least=0, below=2**31)
    deterministic: bool = setting(False, "bit-equal runs, at some cost in speed")
    workdir: str = setting(
        "runs/default",
        "directory of a run and its results",
        path="a directory",
    )
    checkpoint_every: int = setting(
        1000,
        "steps between checkpoints, besides those after each epoch; 0: those only",
        at_least=0,
    )
    keep_checkpoints: int = setting(3, "checkpoints kept", at_least=1)
    keep_best: str | None = setting(
        None,
        "also keep the checkpoint of the epoch at which this measure was highest; for "
        "--checkpoint=best",
        choices=KEEP_BEST,
    )
    background_checkpoints: bool = setting(
        False, "write checkpoints from a thread while training goes on"
    )
    on_nonfinite: str = setting(
        "stop",
        "when loss, gradient norm, F or W is not finite: stop, or skip the update",
        choices=("stop", "skip"),
    )
    log_every: int = setting(50, "steps between TensorBoard points", at_least=1)
    profile: str | None = setting(
        None, "start:stop, optimizer steps that are traced for TensorBoard's profiler"
    )

    @property
    def profiled_steps(self) -> tuple[int, int] | None:
        """First and last step of `profile`."""
        if self.profile is None:
            return None
        start, _, stop = self.profile.partition(":")
        return int(start), int(stop)

    def check(self) -> None:
        self._check_profile()
        if self.batch_size % self.accumulation_steps:
            refuse(
                "accumulation_steps",
                self.accumulation_steps,
                f"a divisor of --batch_size={self.batch_size}",
            )
        if self.batch_size // self.accumulation_steps < 2:
            refuse(
                "accumulation_steps",
                self.accumulation_steps,
                "at least 2 images a micro-batch, which BatchNorm needs",
            )
        if self.strategy == "one" and self.logical_cpus > 1:
            refuse("strategy", "one", "mirrored or auto with --logical_cpus above 1")
        if self.strategy == "multi_worker" and self.logical_cpus > 1:
            refuse("logical_cpus", self.logical_cpus, "1 with --strategy=multi_worker")
        if self.precision == "float64" and self.jit_compile:
            refuse("jit_compile", True, "false with --precision=float64")
        if self.deterministic and self.jit_compile:
            # Keras would silently leave XLA out.
            refuse("jit_compile", True, "false with --deterministic")
        if self.run_eagerly and self.jit_compile:
            refuse("jit_compile", True, "false with --run_eagerly")

    def _check_profile(self) -> None:
        if self.profile is None:
            return
        found = re.fullmatch(r"(\d+):(\d+)", self.profile)
        if not found or not 0 < int(found[1]) < int(found[2]):
            refuse("profile", self.profile, "two steps start:stop, 0 < start < stop")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig(Section):
    knn_every: int = setting(5, "epochs between kNN evaluations; 0: never", at_least=0)
    knn_k: int = setting(200, "neighbours", at_least=1)
    knn_temperature: float = setting(
        0.1, "T of the vote weight exp(cosine/T)", above=0.0
    )
    knn_train_size: int = setting(
        20_000, "labelled training images searched", at_least=1
    )
    knn_test_size: int = setting(5_000, "test images classified", at_least=1)
    quality_every: int = setting(
        5,
        "epochs between label-free measures (view retrieval, RankMe, ...) of a few "
        "hundred images; 0: never",
        at_least=0,
    )
    theory_every: int = setting(
        0,
        "steps between measurements of spectra and alignment; 0: at each epoch's end",
        at_least=0,
    )
    eval_train_split: str | None = setting(
        None, "labelled split that is searched; none: the data set's train split"
    )
    eval_test_split: str | None = setting(
        None, "split that is classified; none: the data set's test or validation"
    )
    encoder: str = setting(
        "online",
        "the network to evaluate or export; untrained: as the run started",
        choices=("online", "target", "untrained"),
    )
    export_dir: str | None = setting(
        None,
        "evaluate this export; none: the checkpoint of --workdir",
        path="a directory",
    )
    checkpoint: str = setting(
        "last",
        "the checkpoint of --workdir to evaluate or export: last, best (of "
        "--keep_best) or its step",
    )
    protocol: str = setting(
        "features",
        "linear_eval: logistic regression on features, or random crops and a "
        "learning rate chosen on held-out images",
        choices=("features", "imagenet"),
    )
    label_fraction: float = setting(
        0.1, "class-balanced part of the labels for finetune", above=0.0, at_most=1.0
    )
    eval_epochs: int | None = setting(
        None, "epochs of linear_eval or finetune; none: the protocol's", at_least=1
    )
    eval_batch_size: int | None = setting(
        None, "batch of linear_eval or finetune; none: the protocol's", at_least=1
    )
    eval_lr: float | None = setting(
        None,
        "learning rate per 256 images of linear_eval --protocol=imagenet or "
        "finetune; none: chosen on held-out training images",
        above=0.0,
    )

    def check(self) -> None:
        if self.checkpoint not in ("last", "best") and not self.checkpoint.isdecimal():
            refuse("checkpoint", self.checkpoint, "last, best or a step")
        if self.checkpoint != "last" and self.export_dir is not None:
            refuse("checkpoint", self.checkpoint, "last with --export_dir")


@dataclasses.dataclass(frozen=True)
class FilesConfig(Section):
    """What single modes read and write; no part of a run's settings."""

    output: str | None = setting(
        None,
        "the file that the mode writes (none: report.html in --workdir, for report); "
        "for shrink_images, compile, duplicates and outliers, the folder; for embed, "
        ".npz, .parquet or a folder: DIR/; for search, .png or .json",
        path="a file or folder",
    )
    features: str | None = setting(
        None,
        "what --mode=embed wrote, for search, duplicates and outliers",
        path="a file or folder",
    )
    query: str | None = setting(
        None,
        "the image file whose neighbours are shown, or a folder of several",
        path="an image file",
    )
    neighbours: int = setting(
        8, "nearest images shown, or compared with each image", at_least=1
    )
    index: str = setting(
        "exact",
        "how nearest images are found: exactly, or faster by a graph that is stored "
        "beside --features (needs faiss-cpu)",
        choices=("exact", "hnsw"),
    )
    likeness: float = setting(
        0.93,
        "correlation of the pixels of two images that makes them near duplicates",
        above=0.0,
        at_most=1.0,
    )
    beside: str | None = setting(
        None,
        "work directories that --mode=report shows beside --workdir: DIR,DIR",
        path="directories",
        listed=True,
    )
    baseline: str | None = setting(
        None,
        "an encoder that --mode=evaluate sets beside this one: a keras.applications "
        "name (NAME:FILE with its weights from a file), a .keras file, another work "
        "directory, or an export",
    )
    short_side: int = setting(
        512, "short side of the images that shrink_images makes, in pixels", at_least=8
    )
    quality: int = setting(
        95, "quality of the JPEGs that shrink_images makes", at_least=1, at_most=100
    )
