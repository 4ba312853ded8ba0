"""Language models that are quickly trained."""

from typing import Any

from fastmlp.config import MODEL_OPTIONS
from fastmlp.language_model import LanguageModel
from tests.runs import learnable_text, small_options

SMALL: dict[str, Any] = {"context": 3, "embed": 6, "hidden": (12, 10), "backend": "numpy"}
QUICK: dict[str, Any] = {"steps": 60, "batch_size": 32, "lr": 0.02, "log_every": 20, "eval_every": 20}
WINDOW: dict[str, Any] = {"context": 3, "embed": 8, "hidden": 16, "reach": 10, "backend": "numpy"}


def fitted(arguments: dict[str, Any] = SMALL, **options: Any) -> LanguageModel:
    model = LanguageModel(**arguments)
    model.fit(learnable_text(100), **{**QUICK, **options})
    return model


def state_of(model: LanguageModel) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in model.network.state_dict().items()}


def fit_options(**options: Any) -> dict[str, Any]:
    """small_options without what belongs to the model and to a folder."""
    kept = {name: value for name, value in small_options().items() if name not in MODEL_OPTIONS}
    kept.pop("save_every")
    return {**kept, **options}
