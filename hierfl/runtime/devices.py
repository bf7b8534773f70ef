"""The device of a worker's process, and kernels that repeat themselves there."""

from __future__ import annotations

import os

import torch

from hierfl.errors import RuntimeUnavailable

__all__ = ["chosen", "deterministic_cuda"]


def chosen(wanted: str) -> str:
    """Choose the device. Errors: RuntimeUnavailable if cuda is asked for and not there."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RuntimeUnavailable("runtime.device is cuda, but torch sees no CUDA device here; set runtime.device: auto")
    return wanted


def deterministic_cuda() -> None:
    """Make CUDA kernels repeat themselves, where torch has a deterministic one."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
