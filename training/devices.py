"""Settings of a fit that depend on the machine: torch's CPU kernels, memory, precision and accelerators."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from training.errors import FitError

_CPU_INFO = Path("/proc/cpuinfo")

# Linux' names of the CPU flags for bfloat16 multiplication: AVX-512, AMX and Arm.
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def fast_forward(network: keras.Model) -> Callable[..., Any]:
    """The network's fastest forward pass: by torch's own kernels if Keras runs on torch without an accelerator."""
    if _is_torch_on_cpu():
        # Keras' other backends do not need torch.
        from training.torch_forward import TorchForward, is_supported

        if is_supported(network):
            return TorchForward(network)
    call: Callable[..., Any] = network
    return call


def arrange_optimizer(optimizer: keras.optimizers.Optimizer) -> None:
    """Give a built optimizer's variables the memory layout of the weights, which makes its steps faster."""
    if _is_torch_on_cpu():
        from training.torch_forward import arrange

        arrange(optimizer.variables)


def prepare_memory() -> None:
    """Keep freed memory between training steps if that saves time; this affects the whole process."""
    if _is_torch_on_cpu():
        from training.torch_forward import keep_freed_memory

        keep_freed_memory()


def possible_precision(wanted: str) -> str:
    """The precision to fit in: float32 instead of mixed_bfloat16 on a CPU that would have to emulate bfloat16."""
    if wanted == "mixed_bfloat16" and not _has_accelerator() and not cpu_has_bfloat16():
        print("This CPU has no bfloat16 instructions: fitting in float32 instead.")
        return "float32"
    return wanted


def possible_steps_per_execution(wanted: int) -> int:
    """The number of batches for each call of the training function: always 1 on torch, where Keras supports no more."""
    return 1 if keras.config.backend() == "torch" else wanted


def cpu_has_bfloat16() -> bool:
    """Return True if the CPU has instructions to multiply bfloat16; False if there is no /proc/cpuinfo."""
    return _CPU_INFO.is_file() and bool(_BFLOAT16 & set(_CPU_INFO.read_text().split()))


def use_all_devices(batch_size: int) -> int:
    """Divide batches among accelerators if Keras can (https://keras.io/guides/distribution); returns their number."""
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
