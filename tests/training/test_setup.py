"""What a run is made of, and what it reports, before its first step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastmlp import __version__
from fastmlp.config import TrainConfig, to_dict
from fastmlp.data.corpus import Corpus, read_corpus
from fastmlp.events import Compiled, Compiling, NetworkMade, Notice, Running, Sampled, Writing
from fastmlp.network.network import Network
from fastmlp.ops import Ops, get_ops
from fastmlp.ops.backend import Backend
from fastmlp.options import ConfigError
from fastmlp.prediction.neural import NeuralModel
from fastmlp.trainer import train
from fastmlp.training import setup
from fastmlp.training.keeper import Memory
from fastmlp.training.samples import Samples
from fastmlp.training.schedule import Schedule
from tests.helpers import require_ops
from tests.runs import small_config
from tests.training.helpers import Recorder

pytestmark = pytest.mark.usefixtures("quick_picture")

NUMPY = Backend(get_ops("numpy"), None, None)


@pytest.fixture
def config(file: Path, tmp_path: Path) -> TrainConfig:
    return small_config(file, tmp_path / "run")


@pytest.fixture
def corpus(config: TrainConfig) -> Corpus:
    return read_corpus(config)


@pytest.mark.parametrize(
    ("here", "asked", "precision"),
    [
        (("ieee", "bf16x3", "bf16"), "auto", "bf16"),
        (("ieee", "bf16x3"), "auto", "ieee"),
        (("ieee", "bf16x3", "bf16"), "ieee", "ieee"),
    ],
)
def test_auto_is_bf16_where_it_is_to_be_had_else_the_first(
    here: tuple[str, ...], asked: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ops, "precisions", lambda _: here)
    assert setup.training_precision(TrainConfig(precision=asked), NUMPY) == precision


def test_a_precision_that_the_kernels_lack_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ops, "precisions", lambda _: ("ieee", "bf16x3"))
    with pytest.raises(ConfigError) as refused:
        setup.training_precision(TrainConfig(precision="bf16"), replace(NUMPY, simd="avx2"))
    assert str(refused.value) == "precision: expected auto or ieee, bf16x3, which numpy avx2 has, got 'bf16'"


def test_the_network_is_that_of_the_configuration(config: TrainConfig, corpus: Corpus) -> None:
    network = setup.make_network(config, corpus, NUMPY, 1)
    assert (network.shape.vocabulary, network.shape.context, network.shape.embed) == (41, 3, 6)
    assert tuple(network.shape.hidden) == (12, 10)
    other = setup.make_network(replace(config, seed=2), corpus, NUMPY, 1)
    assert network.parameters["embedding.weight"].tobytes() != other.parameters["embedding.weight"].tobytes()


def test_the_outputs_bias_may_begin_with_the_words_frequencies(config: TrainConfig, corpus: Corpus) -> None:
    zeros, frequencies = (
        setup.make_network(replace(config, output_bias=name), corpus, NUMPY, 1).parameters["output.bias"]
        for name in ("zero", "frequencies")
    )
    assert not zeros.any()
    assert np.argmax(frequencies) == np.argmax(corpus.counts())


def test_the_speed_is_that_of_the_last_of_three_steps(
    config: TrainConfig, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, seconds, step = [0.0], iter([9.0, 5.0, 2.0]), Network.step

    def timed_step(*arguments: object) -> float:
        now[0] += next(seconds)
        return step(*arguments)

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(Network, "step", timed_step)
    assert setup.words_per_second(config, corpus, NUMPY, 1) == config.batch_size / 2


def test_a_checkpoint_says_what_it_is_of(config: TrainConfig, corpus: Corpus) -> None:
    facts = setup.checkpoint_facts(config, corpus, NUMPY, "ieee")
    assert facts["config"] == to_dict(config)
    assert facts["files"] == [config.files[0]]
    assert (facts["backend"], facts["precision"], facts["fastmlp"]) == ("numpy", "ieee", __version__)


def test_what_runs_is_reported(config: TrainConfig, corpus: Corpus) -> None:
    network = setup.make_network(config, corpus, NUMPY, 2)
    made, running = setup.setup_events(network, 0.5, NUMPY, "ieee", None)
    assert isinstance(made, NetworkMade)
    assert (made.vocabulary, made.hidden, made.parameters, made.passes) == (41, [12, 10], 1_077, 0.5)
    assert running == Running("numpy", None, "ieee", 2)
    _, _, notice, writing = setup.setup_events(network, None, replace(NUMPY, notice="slow"), "ieee", Path("runs/a"))
    assert (notice, writing) == (Notice("slow"), Writing(str(Path("runs/a"))))


def test_passes_over_the_text_are_of_steps_not_of_minutes(config: TrainConfig, corpus: Corpus) -> None:
    def passes(config: TrainConfig) -> float | None:
        return setup.passes_over(corpus, Schedule(config, corpus.batches(config)))

    assert passes(config) == 30 * 16 / len(corpus.train)
    assert passes(replace(config, steps=None, minutes=1)) is None


@pytest.fixture
def notices(corpus: Corpus) -> Callable[[TrainConfig], list[str]]:
    """What is odd in a configuration."""

    def notices(config: TrainConfig) -> list[str]:
        network = setup.make_network(config, corpus, NUMPY, 1)
        model = NeuralModel(network, corpus.vocabulary, corpus.tokenizer, corpus.unk_trained)
        samples = Samples(config, corpus, model, Memory(), Recorder())
        schedule = Schedule(config, corpus.batches(config))
        return [notice.text for notice in setup.option_notices(config, schedule, samples, model)]

    return notices


def test_odd_options_are_told(config: TrainConfig, notices: Callable[[TrainConfig], list[str]]) -> None:
    assert notices(config) == []
    assert notices(replace(config, warmup=30)) == []
    assert notices(replace(config, warmup=31)) == [
        "the learning rate grows over 31 steps, and the run has 30: it does not reach 0.02"
    ]
    assert notices(replace(config, warmup=31, steps=None, minutes=1)) == []
    assert notices(replace(config, prompt=("anna", "anna ", "boris"))) == [
        "prompts with the same words are one: 3 given, 2 sampled"
    ]
    assert notices(replace(config, prompt=("anna zork",))) == ["not in the vocabulary, read as <unk>: 'zork'"]


def test_a_warmup_that_is_longer_than_the_run_is_told_once(config: TrainConfig) -> None:
    recorder = Recorder()
    train(replace(config, warmup=31), reporter=recorder)
    assert [notice.text for notice in recorder.all(Notice)] == [
        "the learning rate grows over 31 steps, and the run has 30: it does not reach 0.02"
    ]


@pytest.mark.parametrize(
    ("metadata", "before"),
    [
        ({"backend": "numpy", "precision": "bf16"}, "numpy in bf16"),
        ({"backend": "numba", "precision": "ieee"}, "numba in ieee"),
        ({"backend": "numba"}, "numba in ieee"),  # of before there were precisions
    ],
)
def test_another_back_end_or_precision_is_told(metadata: dict[str, str], before: str) -> None:
    assert setup.notice_of_other_bits(metadata, NUMPY, "ieee") == Notice(
        f"it ran on {before} before: numpy in ieee goes on with other bits"
    )


@pytest.mark.parametrize("metadata", [{"backend": "numpy", "precision": "ieee"}, {"backend": "numpy"}])
def test_the_same_back_end_and_precision_need_no_word(metadata: dict[str, str]) -> None:
    assert setup.notice_of_other_bits(metadata, NUMPY, "ieee") is None


def test_kernels_are_compiled_where_it_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    now, recorder = [0.0], Recorder()

    def compile_them() -> None:
        now[0] += 7

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    setup.compile_ops(NUMPY, recorder)
    assert recorder.events == []
    setup.compile_ops(replace(NUMPY, compile_ops=compile_them), recorder)
    assert recorder.events == [Compiling("numpy"), Compiled(7.0)]


def test_compiling_is_a_phase_of_its_own(config: TrainConfig) -> None:
    require_ops("numba")
    recorder = Recorder()
    train(replace(config, steps=2, backend="numba"), reporter=recorder)
    kinds = [type(event) for event in recorder.events]
    assert kinds.index(Writing) < kinds.index(Compiling) < kinds.index(Compiled) < kinds.index(Sampled)
    assert recorder.all(Compiled)[0].seconds > 0
