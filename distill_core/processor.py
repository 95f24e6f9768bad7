"""What processor this machine has, and what it multiplies with."""

import platform
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def processor_name() -> str:
    """Return its name with its instructions, e.g. "AMD EPYC (x86_64, VNNI)"."""
    return f"{_field('model name') or platform.processor()} ({instructions()})"


def instructions() -> str:
    """Return the instruction set, and whether it has VNNI: an int8 file's latency depends on it."""
    return f"{platform.machine()}{', VNNI' if has_vnni() else ''}"


def has_vnni() -> bool:
    """Tell whether this is an x86 processor that multiplies bytes without saturating."""
    return bool({"avx512_vnni", "avx_vnni"} & processor_flags())


def is_arm64() -> bool:
    """Tell whether this machine runs arm64's instructions."""
    return platform.machine() in ("aarch64", "arm64")


@cache
def processor_flags() -> frozenset[str]:
    """Return Linux's names of its features; elsewhere none."""
    return frozenset((_field("flags") or _field("Features")).split())


def _field(name: str) -> str:
    lines = _CPUINFO.read_text(encoding="utf-8").splitlines() if _CPUINFO.exists() else []
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in fields if key.strip() == name), "")
