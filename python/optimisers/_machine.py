"""What the library found on this machine."""

from __future__ import annotations

import sys

from . import _core
from ._core import InvalidValueError, get_num_threads, set_num_threads

__all__ = ["Doctor", "doctor", "get_num_threads", "set_num_threads"]


class Doctor:
    """What `doctor` found; prints as lines."""

    __slots__ = (
        "cuda",
        "cuda_devices",
        "cuda_reason",
        "isa",
        "isa_available",
        "isa_note",
        "numpy",
        "threads",
        "threads_note",
        "torch",
        "version",
    )

    def __init__(self) -> None:
        self.version: str = _core.version
        self.isa, self.isa_available, self.isa_note = _core.isa()
        try:
            self.threads: int = get_num_threads()
            self.threads_note = ""
        except InvalidValueError as error:
            self.threads, self.threads_note = 0, f" ({error}; set_num_threads overrules it)"
        self.cuda, self.cuda_reason, self.cuda_devices = _core.cuda_status()
        self.numpy: str | None = _loaded_version("numpy")
        self.torch: str | None = _loaded_version("torch")

    def __str__(self) -> str:
        note = f"; {self.isa_note}" if self.isa_note else ""
        lines = [
            ("optimisers", self.version),
            ("instruction set", f"{self.isa} (of {', '.join(self.isa_available)}){note}"),
            ("threads", f"{self.threads}{self.threads_note}"),
            ("CUDA", f"on: {', '.join(self.cuda_devices)}" if self.cuda else f"off: {self.cuda_reason}"),
            ("NumPy", self.numpy or "not loaded"),
            ("torch", self.torch or "not loaded"),
        ]
        return "\n".join(f"{name:16}{text}" for name, text in lines)

    __repr__ = __str__


def _loaded_version(name: str) -> str | None:
    module = sys.modules.get(name)
    return None if module is None else str(getattr(module, "__version__", "unknown"))


def doctor() -> Doctor:
    """Say which version this is and what it uses: instruction set, threads, CUDA, array libraries.

    `OPTIMISERS_ISA` and `OPTIMISERS_NUM_THREADS` choose others at start, `OPTIMISERS_PREFETCH` how many bytes ahead
    loops ask for memory (0: the processor's own prefetchers suffice), `OPTIMISERS_CUDA_LIBRARY` the file with the CUDA
    kernels, which is loaded at the first array on a device, and by this call.

    Example:
        >>> import optimisers as opt
        >>> found = opt.doctor()
        >>> found.isa in found.isa_available, found.cuda or "off: " + found.cuda_reason in str(found)
        (True, True)
    """
    return Doctor()
