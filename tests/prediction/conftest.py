"""A language model that is trained once."""

import pytest

from fastmlp.language_model import LanguageModel
from tests.prediction.helpers import fitted


@pytest.fixture(scope="session")
def model() -> LanguageModel:
    """It knows the sentences of tests/runs.py by heart."""
    return fitted(steps=250)
