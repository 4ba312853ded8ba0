"""The same random numbers in every test."""

import pytest

from tests.functional.helpers import RNG, START


@pytest.fixture(autouse=True)
def from_the_start() -> None:
    """Each test has the same random numbers, whichever ran before it."""
    RNG.bit_generator.state = START
