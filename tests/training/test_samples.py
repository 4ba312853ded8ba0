"""What a run writes by itself while it learns."""

from pathlib import Path

import pytest

from fastmlp.config import TrainConfig
from fastmlp.events import Notice, Sampled
from fastmlp.options import ConfigError
from fastmlp.text import Text
from fastmlp.trainer import train
from tests.runs import small_config, small_options
from tests.training.helpers import Recorder

pytestmark = pytest.mark.usefixtures("quick_picture")


def test_samples_are_written_before_on_the_way_and_at_the_end(file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    prompts = ("anna paints", "clara hides nine")
    result = train(small_config(file, tmp_path / "run", prompt=prompts), reporter=recorder)
    samples = recorder.all(Sampled)
    assert [(event.step, event.prompt) for event in samples] == [(s, p) for s in (0, 15, 30) for p in prompts]
    assert [event.before for event in samples[-2:]] == [event.text for event in samples[:2]]
    assert result.before == {event.prompt: event.text for event in samples[:2]}
    assert result.after == {event.prompt: event.text for event in samples[-2:]}
    assert all(event.text.startswith(event.prompt) for event in samples)
    text = (tmp_path / "run" / "samples.txt").read_text(encoding="utf-8")
    assert [text.count(f"step {step}\n") for step in (0, 15, 30)] == [2, 2, 2]
    assert all(event.text in text for event in samples)


def test_a_prompt_is_read_as_generate_reads_it(file: Path, tmp_path: Path) -> None:
    """In the capitals that the vocabulary has; prompts with the same words are one, and one without words is none."""
    recorder, options = Recorder(), {"steps": 1, "tokenizer": "prose", "context": 2}
    text = Text("We met Anna Barchester there. " * 60, ())
    prompts = ("anna barchester", "Anna  Barchester", "we met")
    config = TrainConfig(out=str(tmp_path / "run"), **small_options(**options, prompt=prompts))
    train(config, text=text, reporter=recorder)
    notices = [notice.text for notice in recorder.all(Notice)]
    assert notices == ["prompts with the same words are one: 3 given, 2 sampled"]
    assert {event.prompt for event in recorder.all(Sampled)} == {"Anna Barchester", "We met"}
    with pytest.raises(ConfigError, match=r"^prompt: expected a text with words in it, got '!!!'$"):
        train(small_config(file, tmp_path / "none", prompt=("anna", "!!!")))
    assert not (tmp_path / "none").exists()
