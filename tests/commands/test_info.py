"""python -m fastmlp.info, also if a package or the kernels are missing."""

import os
import re

import numpy as np
import pytest

import fastmlp
from fastmlp import info
from fastmlp.ops.backend import choose_backend
from tests.helpers import module_of


def call(capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    status = info.main([])
    return (status, *capsys.readouterr())


def facts_of(out: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in out.splitlines())


def test_info_says_what_runs_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "3")
    status, out, err = call(capsys)
    assert (status, err) == (0, "")
    facts, chosen = facts_of(out), choose_backend()
    assert list(facts)[:4] == ["fastmlp", "python", "cpu", "back-end"]
    assert facts["fastmlp"].startswith(fastmlp.__version__)
    assert facts["back-end"].partition(":")[0] == chosen.ops.backend
    assert facts["precisions"].startswith(", ".join(chosen.ops.precisions()))
    assert (facts["threads"], facts["numpy"]) == ("3", np.__version__)
    assert "FASTMLP_NUM_THREADS=3" in facts["settings"]
    if chosen.simd:
        variants = ", ".join(module_of(chosen.ops).variants())
        assert facts["variant"] == f"{chosen.simd} (this CPU runs {variants})"


@pytest.mark.usefixtures("no_kernels")
def test_info_says_why_the_kernels_are_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTMLP_SIMD", raising=False)
    status, out, _ = call(capsys)
    assert (status, facts_of(out)["precisions"]) == (0, "ieee (auto: ieee to train, ieee in the library)")
    assert re.match("numba: the cython back-end is not available: .* Numba runs", facts_of(out)["back-end"])


@pytest.mark.usefixtures("no_kernels")
def test_info_goes_on_where_there_is_no_back_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("FASTMLP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FASTMLP_SIMD", "sse")
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "none")
    status, out, _ = call(capsys)
    facts = facts_of(out)
    assert (status, facts["settings"]) == (1, "FASTMLP_NUM_THREADS=none FASTMLP_SIMD=sse")
    assert facts["back-end"].startswith("none: the cython back-end is not available: ")
    assert facts["threads"].startswith("FASTMLP_NUM_THREADS: expected a whole number")
