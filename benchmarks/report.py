"""The report of the benchmarks: the machine, and tables in Markdown."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.contest import Result
from fastmlp.info import cpu_name, version
from fastmlp.ops import BackendUnavailableError, get_ops
from fastmlp.threads import default_threads
from tests.helpers import module_of


def machine() -> dict[str, Any]:
    """Return the facts about the machine on which timings depend."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    sets = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16")
    try:
        kernels = module_of(get_ops("cython")).variant()
    except BackendUnavailableError:
        kernels = "not built"
    return {
        "cpu": cpu_name(),
        "instruction sets": [name for name in sets if name in flags],
        "kernels run on": kernels,
        "threads": default_threads(),
        "versions": {name: version(name) for name in ("numpy", "numba", "cython", "torch")},
    }


def machine_line() -> str:
    """Return these facts in one sentence, with the date."""
    facts = machine()
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    sets = ", ".join(facts["instruction sets"])
    day = datetime.now(UTC).strftime("%-d %B %Y")
    return f"{facts['cpu']} ({sets}), {facts['threads']} threads, {day}; {versions}."


def milliseconds(result: Result) -> str:
    """Return the median, or why there is none."""
    return result.failed or f"{1e3 * result.median:.1f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; rows may be shorter than the header."""
    full = [[*row, *[""] * (len(header) - len(row))] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in full]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)
