"""Settings of a fit that depend on the machine: torch's CPU kernels, memory, precision and accelerators."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from training.errors import FitError

_CPU_INFO = Path("/proc/cpuinfo")

# Linux' names of the CPU flags for bfloat16 multiplication: AVX-512, AMX and Arm.
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def build_forward_pass(network: keras.Model) -> Callable[..., Any]:
    """Return the network's fastest forward pass, which on torch without an accelerator uses torch's own kernels."""
    if _is_torch_on_cpu():
        # Imported here, because Keras' other backends do not need torch.
        from training.torch_forward import TorchForward, is_supported

        if is_supported(network):
            return TorchForward(network)
    call: Callable[..., Any] = network
    return call


def align_optimizer(optimizer: keras.optimizers.Optimizer) -> None:
    """Give a built optimizer's variables the memory layout of the weights, which makes its steps faster."""
    if _is_torch_on_cpu():
        from training.torch_forward import use_channels_last

        use_channels_last(optimizer.variables)


def keep_freed_memory() -> None:
    """Keep freed memory between training steps if that saves time. This affects the whole process."""
    if _is_torch_on_cpu():
        from training import torch_forward

        torch_forward.keep_freed_memory()


def supported_precision(precision: str) -> str:
    """Return the precision to fit in: float32 instead of mixed_bfloat16 if the CPU would have to emulate bfloat16."""
    if precision == "mixed_bfloat16" and not _has_accelerator() and not cpu_has_bfloat16():
        print("This CPU has no bfloat16 instructions: fitting in float32 instead.")
        return "float32"
    return precision


def supported_steps_per_execution(steps: int) -> int:
    """Return the number of batches for each call of the training function: 1 on torch, where Keras allows no more."""
    return 1 if keras.config.backend() == "torch" else steps


def cpu_has_bfloat16() -> bool:
    """Return True if the CPU has instructions to multiply bfloat16; False if there is no /proc/cpuinfo."""
    return _CPU_INFO.is_file() and bool(_BFLOAT16_FLAGS & set(_CPU_INFO.read_text().split()))


def use_all_devices(batch_size: int) -> int:
    """Divide batches among all accelerators if Keras can, and return their number.

    See https://keras.io/guides/distribution. Raises FitError if the batch size is not a multiple of that number.
    """
    devices = keras.distribution.list_devices() if keras.config.backend() == "jax" else []
    if len(devices) < 2:
        return 1
    if batch_size % len(devices):
        raise FitError(
            f"recipe.batch_size must be a multiple of {len(devices)}, the number of devices, not {batch_size}"
        )
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    return len(devices)


def _is_torch_on_cpu() -> bool:
    return keras.config.backend() == "torch" and not _has_accelerator()


def _has_accelerator() -> bool:
    if keras.config.backend() == "torch":
        import torch

        return bool(torch.accelerator.is_available())
    return any(not device.startswith("cpu") for device in keras.distribution.list_devices())
