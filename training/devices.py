"""What the machine's processors can do for a fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from training.errors import FitError

_CPU_INFO = Path("/proc/cpuinfo")

# The flags of processors with instructions for products of bfloat16, as Linux names them: AVX-512, AMX and Arm.
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def fast_forward(network: keras.Model) -> Callable[..., Any]:
    """The network, called in the fastest way: by torch's own kernels where Keras runs on torch without accelerators."""
    if _is_torch_on_cpu():
        # Keras' other backends do without torch.
        from training.torch_forward import TorchForward, is_supported

        if is_supported(network):
            return TorchForward(network)
    call: Callable[..., Any] = network
    return call


def arrange_optimizer(optimizer: keras.optimizers.Optimizer) -> None:
    """Make a built optimizer's arithmetic as fast as its variables' order in memory allows."""
    if _is_torch_on_cpu():
        from training.torch_forward import arrange

        arrange(optimizer.variables)


def prepare_memory() -> None:
    """Keep memory between steps where that saves time; the rest of the process keeps it too."""
    if _is_torch_on_cpu():
        from training.torch_forward import keep_freed_memory

        keep_freed_memory()


def possible_precision(wanted: str) -> str:
    """The precision to fit in: float32 instead of mixed_bfloat16 on a CPU that would only emulate it."""
    if wanted == "mixed_bfloat16" and not _has_accelerator() and not cpu_has_bfloat16():
        print("This CPU has no bfloat16 instructions: fitting in float32 instead.")
        return "float32"
    return wanted


def possible_steps_per_execution(wanted: int) -> int:
    """How many batches to hand over at once: a single one on torch, where Keras can hand over no more."""
    return 1 if keras.config.backend() == "torch" else wanted


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; False where Linux' /proc does not tell."""
    return _CPU_INFO.is_file() and bool(_BFLOAT16 & set(_CPU_INFO.read_text().split()))


def use_all_devices(batch_size: int) -> int:
    """Share each batch among all accelerators, where Keras can (https://keras.io/guides/distribution); how many."""
    devices = keras.distribution.list_devices() if keras.config.backend() == "jax" else []
    if len(devices) < 2:
        return 1
    if batch_size % len(devices):
        raise FitError(f"a batch must be a multiple of the {len(devices)} devices, not {batch_size} images")
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    return len(devices)


def _is_torch_on_cpu() -> bool:
    return keras.config.backend() == "torch" and not _has_accelerator()


def _has_accelerator() -> bool:
    if keras.config.backend() == "torch":
        import torch

        return bool(torch.accelerator.is_available())
    return any(not device.startswith("cpu") for device in keras.distribution.list_devices())
