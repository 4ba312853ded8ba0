"""Promises 8 and 11 for any bytes: seeds, what was found, and mutations, of which `python -m tests.fuzz` tries more."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import targets
from tests.fuzz.found import FOUND
from tests.fuzz.seeds import SEEDS, TOKENS
from tests.fuzz.targets import TARGETS, HangsError, check

EXAMPLES = {"text": 300, "epub": 150, "saved": 100, "model": 150, "options": 200, "run": 40, "arpa": 100}


@st.composite
def mutations(draw: Any, seeds: list[bytes]) -> bytes:
    """A seed, of which a few pieces are replaced."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(data)))
        data[begin : begin + draw(st.integers(0, 9))] = draw(st.sampled_from(TOKENS) | st.binary(max_size=4))
    return bytes(data)


@pytest.mark.parametrize("target", TARGETS)
def test_promise_8_and_promise_11_hold_for_mutations(target: str) -> None:
    """They are the same in every run; `--hypothesis-profile random` makes new ones."""

    @settings(max_examples=EXAMPLES[target], suppress_health_check=[HealthCheck.too_slow])
    @given(mutations(SEEDS[target]()))
    def holds(data: bytes) -> None:
        check(target, data)

    holds()


@pytest.mark.parametrize(("target", "what"), [(target, what) for target, found in FOUND.items() for what in found])
def test_promise_8_and_promise_11_hold_for_what_was_found(target: str, what: str) -> None:
    check(target, FOUND[target][what])


def test_a_reader_that_hangs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(data: bytes) -> None:
        while data:
            pass

    monkeypatch.setattr(targets, "SECONDS", 0.01)
    monkeypatch.setitem(TARGETS, "text", hangs)
    with pytest.raises(HangsError):
        check("text", b"a")


def test_an_error_that_no_reader_may_raise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(data: bytes) -> None:
        with targets.refusals():
            raise ValueError(data)

    monkeypatch.setitem(TARGETS, "text", fails)
    with pytest.raises(ValueError):
        check("text", b"a")
