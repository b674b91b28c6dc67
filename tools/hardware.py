"""Presets of hardware for `scaling.py`: what programs reach on it, not peaks.

Only what says "measured" was run for this project. A number with a source was found
there; one without is an assumption, right in its order of magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass

# Two 224-pixel views a core, from 640 x 427 JPEGs: measured (docs/scaling.md).
IMAGES_PER_CORE = 120.0


@dataclass(frozen=True)
class Machine:
    """A device (what holds one replica), its host and its network.

    Attributes:
      flops: of a network's layers in the run's precision, a second.
      flops32: of float32 matrix products, a second.
      eigh_flops: of eigen-decompositions, counted as 9 d^3, a second.
      launch: seconds that an operation takes at least; 0 where a compiler fuses them.
      memory_bandwidth, memory: bytes a second, bytes.
      per_host: devices of a host.
      local_bandwidth, local_latency: between devices of a host: bytes a second that
        each sends, and seconds a hop.
      bandwidth, latency: the same between hosts, for each device.
      transfer: bytes a second from the host to each device.
      cores: of a host.
      images_per_core: images a second, decoded and made into two views.
      reading: bytes a second of encoded images, for each host.
      call: seconds from one call of the training function to the next.
      shares_input: several hosts divide the decoding.
    """

    flops: float
    flops32: float
    eigh_flops: float
    launch: float
    memory_bandwidth: float
    memory: float
    per_host: int
    local_bandwidth: float
    local_latency: float
    bandwidth: float
    latency: float
    transfer: float
    cores: float
    images_per_core: float = IMAGES_PER_CORE
    reading: float = 2e9
    call: float = 1e-3
    shares_input: bool = True


MACHINES = {
    # DGX A100: 8 GPUs of 80 GB, NVLink, a 200 Gb/s adapter for each GPU, 128 cores.
    "a100": Machine(
        # 2,600 images/s of supervised ResNet-50 training, mixed precision
        # (pytorch-image-models#1491), times 3 x 8.2 GFLOP; the peak is 312e12.
        flops=64e12,
        flops32=10e12,  # peak 19.5e12
        # 0.91 ms at d = 256 by cuSOLVER's Jacobi method on a newer GPU (jax#31368).
        eigh_flops=100e9,
        launch=4e-6,
        memory_bandwidth=1.6e12,  # peak 2.04e12
        memory=80e9,
        per_host=8,
        local_bandwidth=200e9,  # NVIDIA/nccl-tests#149
        local_latency=4e-6,
        bandwidth=21e9,  # 85 % of the line, as in NVIDIA/nccl-tests#119
        latency=5e-6,
        transfer=20e9,  # PCIe 4: 32e9
        cores=128,
    ),
    # A device is a core: two on a chip, eight to a host of 96 virtual CPUs.
    "tpu-v3": Machine(
        # 930 images/s a core of supervised ResNet-50 (MLPerf code on 512 cores; its
        # user's own program reached 250). The peak is 61.5e12.
        flops=23e12,
        flops32=4e12,  # six bfloat16 products each
        eigh_flops=10e9,
        launch=0.0,
        memory_bandwidth=360e9,  # peak 450e9 (cloud.google.com/tpu/docs/v3)
        memory=17e9,
        per_host=8,
        local_bandwidth=80e9,  # half of 340e12 of a pod, by 2048 cores
        local_latency=1e-6,
        bandwidth=80e9,
        latency=1e-6,
        transfer=2e9,
        cores=48,
        shares_input=False,
    ),
    # A device is a chip, four to a host of 240 virtual CPUs.
    "tpu-v4": Machine(
        flops=100e12,  # the share of the peak (275e12) that v3 reaches
        flops32=17e12,
        eigh_flops=20e9,
        launch=0.0,
        memory_bandwidth=960e9,  # peak 1.2e12 (cloud.google.com/tpu/docs/v4)
        memory=34e9,
        per_host=4,
        local_bandwidth=130e9,  # half of 1.1e15 of a pod, by 4096 chips
        local_latency=1e-6,
        bandwidth=130e9,
        latency=1e-6,
        transfer=4e9,
        cores=120,
        shares_input=False,
    ),
}
