"""A language model that is trained once."""

import pytest

from fastmlp.language_model import LanguageModel
from tests.prediction.helpers import WINDOW, fitted


@pytest.fixture(scope="session")
def model() -> LanguageModel:
    """It knows the sentences of tests/runs.py by heart."""
    return fitted(steps=250)


@pytest.fixture(scope="session")
def window_model() -> LanguageModel:
    """It knows them too: averages, a residual block, tied weights."""
    return fitted(WINDOW, steps=250, patience=0)
