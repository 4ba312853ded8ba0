"""fastmlp map as its users see it."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from fastmlp.files import checkpoint
from fastmlp.language_model import LanguageModel
from fastmlp.text.vocabulary import bytes_to_words
from tests.commands.helpers import call

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_the_map_is_drawn_where_it_is_asked_for(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(trained / "model.safetensors", "novel.safetensors")
    places = {
        (trained,): trained / "map.png",
        ("novel.safetensors",): Path("novel-map.png"),
        (trained, "-n", 20, "--out", "words.svg"): Path("words.svg"),
    }
    for arguments, file in places.items():
        assert call(capsys, "map", *arguments) == (0, f"the map of its words: {file}\n", "")
    assert Path("novel-map.png").read_bytes().startswith(b"\x89PNG")
    drawn = set(re.findall("<!-- (.+?) -->", Path("words.svg").read_text(encoding="utf-8")))
    assert "run: the 20 most frequent words" in drawn
    words = bytes_to_words(checkpoint.load(trained / "model.safetensors")[0]["vocabulary"])
    labels = drawn & set(words)
    assert len(labels) > 10
    assert labels <= set(words[:21]) - {"."}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ([0, 1, 2, 3, 4] * 20, {"vocab_size": 5}, "a model of ids has no words to draw"),
        ("to be. " * 20, {}, "a vocabulary of 2 words is too small for a map"),
    ],
)
def test_a_model_without_words_has_no_map(
    text: Any, options: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = LanguageModel(context=1, embed=2, hidden=(4,), backend="numpy", **options)
    model.fit(text, steps=2, batch_size=4)
    model.save("small.safetensors")
    assert call(capsys, "map", "small.safetensors") == (2, "", f"python -m fastmlp.map: {message}\n")
    assert not Path("small-map.png").exists()
