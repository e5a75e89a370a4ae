"""Where PyTorch computes: which devices there are, and how much memory they have free."""

from __future__ import annotations

from typing import Any, Literal

from edgedistill.errors import UsageError

Device = Literal["cpu", "cuda", "mps"]
DEVICES: tuple[Device, ...] = ("cpu", "cuda", "mps")


def require_device(torch: Any, device: Device) -> None:
    """Raises UsageError unless PyTorch has the device here."""
    if device not in DEVICES:
        raise UsageError(f"There is no device {device!r}; expected {', '.join(DEVICES)}.")
    if device == "cpu" or (torch.cuda if device == "cuda" else torch.backends.mps).is_available():
        return
    raise UsageError(
        f"PyTorch {torch.__version__} finds no device {device} here.",
        hint="Use --device cpu, or install a build of PyTorch for the device.",
    )


def free_memory(torch: Any, device: Device) -> int:
    """Bytes that are free on the device."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    if device == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    import psutil

    return int(psutil.virtual_memory().available)
