"""What the figures depend on and a reader cannot know: the machine, and what is measured on it.

Owns the words on the machine, and how the lines above the figures look. Asked by `overhead`, `translated` and `faults`,
which add what they measure.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path


def described() -> dict[str, str]:
    """Processor, kernel and Python."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cpus": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def header(told: Mapping[str, str]) -> str:
    """What stands above the figures."""
    return "\n".join(f"{name}: {value}" for name, value in told.items()) + "\n"


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
