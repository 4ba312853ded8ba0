"""What a run writes by itself while it learns."""

from pathlib import Path

import pytest

from fastmlp.config import TrainConfig
from fastmlp.data.corpus import read_corpus
from fastmlp.events import Notice, Sampled
from fastmlp.ops import get_ops
from fastmlp.ops.backend import Backend
from fastmlp.options import ConfigError
from fastmlp.prediction.neural import NeuralModel
from fastmlp.text import Text
from fastmlp.trainer import train
from fastmlp.training.keeper import Memory
from fastmlp.training.progress import Progress
from fastmlp.training.samples import Samples
from fastmlp.training.setup import make_network
from tests.runs import small_config, small_options
from tests.training.helpers import Recorder

pytestmark = pytest.mark.usefixtures("quick_picture")


def test_texts_are_kept_and_reported_beside_those_of_before(file: Path, tmp_path: Path) -> None:
    config = small_config(file, tmp_path, prompt=("anna", "boris"))
    corpus = read_corpus(config)
    network = make_network(config, corpus, Backend(get_ops("numpy"), None, None), 1)
    model = NeuralModel(network, corpus.vocabulary, corpus.tokenizer, corpus.unk_trained)
    keeper, recorder, written = Memory(), Recorder(), []
    keeper.write_samples = written.append
    samples = Samples(config, corpus, model, keeper, recorder)
    assert [text.split()[0] for text in samples.texts(model).values()] == ["anna", "boris"]
    progress = Progress(step=1_000, before={"anna": "anna sells"}, best_step=900)
    texts = {"anna": "anna paints", "boris": "boris sells"}
    assert samples.write(texts, progress) == texts
    samples.write(texts, progress, at_end=True)
    assert written == ["step 1,000\nanna paints\n\nstep 1,000\nboris sells\n\n"] * 2
    assert recorder.events == [
        Sampled(1_000, "anna", "anna paints"),
        Sampled(1_000, "boris", "boris sells"),
        Sampled(1_000, "anna", "anna paints", "anna sells", 900),
        Sampled(1_000, "boris", "boris sells", None, 900),
    ]


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
