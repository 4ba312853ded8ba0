"""The configuration: defaults of commands.md, layers, TOML there and back, and a clear error for all else."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fastmlp import config, nn, ops, text
from fastmlp.config import TrainConfig, is_config, options, read_toml, to_toml
from fastmlp.network.network import ACTIVATION
from fastmlp.network.shape import ACTIVATIONS
from fastmlp.ops.gradient import RULES
from fastmlp.options import ConfigError
from fastmlp.training import schedule
from fastmlp.training.optimizer import make_optimizer

FULL = TrainConfig(
    files=("a.txt", 'quo"ted.txt'),
    epochs=3,
    batch_size=64,
    hidden=(100, 50, 20),
    optimizer="momentum",
    momentum=0.8,
    lr=0.125,
    schedule="linear",
    warmup=7,
    vocab_size=5_000,
    min_count=2,
    test_fraction=0.1,
    prompt=("once upon", "harry — potter"),
    save_every=50,
    threads=2,
)


def test_the_defaults_are_the_documented_ones() -> None:
    config = TrainConfig()
    assert (config.steps, config.epochs, config.minutes) == (None, None, None)
    assert (config.context, config.blocks) == (5, 1)
    assert (config.averages, config.reach, config.activation) == ((0.7, 0.9, 0.98), 200, "gelu")
    assert (config.residual, config.projection, config.tied) == (True, True, True)
    assert (config.optimizer, config.lr, config.schedule, config.warmup_steps(10_000)) == (
        "adamw",
        0.005,
        "linear",
        500,
    )
    of_the_text = (
        "embed",
        "hidden",
        "batch_size",
        "dropout",
        "weight_decay",
        "eval_every",
        "log_every",
        "sample_every",
        "patience",
        "counts",
    )
    assert [getattr(config, name) for name in of_the_text] == [None] * 10
    assert (config.tokenizer, config.vocab_size, config.min_count) == ("words", None, 1)
    assert (config.val_fraction, config.test_fraction, config.val_file) == (0.05, 0, None)
    assert config.eval_windows == 8_192
    assert (config.seed, config.threads, config.backend, config.precision) == (1, None, "auto", "auto")


def test_a_list_of_widths_is_the_network_of_before() -> None:
    config = TrainConfig(hidden=(300, 300))
    assert config == TrainConfig(hidden=[300, 300], context=4, embed=30, averages="none", blocks=0, tied="no")
    assert (config.steps, config.epochs, config.minutes) == (10_000, None, None)
    assert (config.batch_size, config.context, config.embed, config.hidden) == (128, 4, 30, (300, 300))
    assert (config.lr, config.weight_decay, config.dropout, config.patience) == (0.002, 0.01, (0, 0, 0), 0)
    assert (config.averages, config.reach, config.blocks, config.residual) == ((), 0, 0, False)
    assert (config.activation, config.projection, config.tied) == ("tanh", False, False)
    assert (config.embed_std, config.output_bias, config.schedule) == (1, "zero", "cosine")
    assert (config.eval_every, config.log_every, config.sample_every) == (1_000, 100, 2_500)


def test_one_option_may_bring_another() -> None:
    assert TrainConfig(averages="none").reach == 0
    assert TrainConfig(blocks=0).residual is False
    assert TrainConfig(hidden=(5, 5), tied=True).projection is True
    assert TrainConfig(hidden=(5, 5), averages=(0.9,)).reach == 200
    assert TrainConfig(dropout=0.2).dropout == (0.2, 0.2, 0.2)


@pytest.mark.parametrize(
    ("written", "hidden"),
    [
        *(("", (300, 300)), ("embed = 40\n", (300, 300)), ("hidden = [9]\n", (9,)), ("hidden = 9\n", 9)),
        *(("tied = true\n", None), ('preset = "small"\n', 1_024), ('preset = "original"\n', (300, 300))),
    ],
)
def test_a_file_without_the_newer_options_means_the_network_of_before(
    written: str, hidden: Any, tmp_path: Path
) -> None:
    file = tmp_path / "some.toml"
    file.write_text(f"batch_size = 64\n{written}")
    config = TrainConfig.layered(read_toml(file))
    assert (config.hidden, config.batch_size) == (hidden, 64)


@pytest.mark.parametrize(("rule", "rate"), [("adamw", 0.005), ("sgd", 0.1), ("momentum", 0.02), ("adagrad", 0.02)])
def test_the_learning_rate_depends_on_the_optimizer(rule: str, rate: float) -> None:
    assert TrainConfig(optimizer=rule).lr == rate
    assert TrainConfig.layered({"preset": "large", "optimizer": rule}).lr == (0.004 if rule == "adamw" else rate)


def test_the_default_warmup_is_at_most_a_tenth_of_the_run() -> None:
    assert [TrainConfig().warmup_steps(total) for total in (100_000, 300, None)] == [500, 30, 500]
    assert TrainConfig(warmup=200).warmup_steps(300) == 200


def test_the_preset_is_the_originals_setting_and_flags_override_it() -> None:
    config = TrainConfig.layered({"preset": "original"})
    assert (config.batch_size, config.optimizer, config.lr, config.schedule) == (32, "sgd", 0.1, "constant")
    assert (config.steps, config.warmup_steps(config.steps)) == (10_000, 0)
    assert TrainConfig.layered({"preset": "original", "lr": "0.5", "steps": "20"}).lr == 0.5
    assert TrainConfig.layered({"preset": "original", "epochs": 2}).steps is None
    assert TrainConfig.layered({"preset": "original", "optimizer": "adamw"}).lr == 0.002


def test_a_layer_replaces_what_belongs_together() -> None:
    below = {"steps": 5, "optimizer": "sgd", "lr": 0.5, "val_fraction": 0.2}
    assert TrainConfig.layered(below, {"minutes": 1}).steps is None
    assert TrainConfig.layered(below, {"optimizer": "momentum"}).lr == 0.02
    assert TrainConfig.layered(below, {"optimizer": "sgd"}).lr == 0.5
    assert TrainConfig.layered({"lr": 0.5}, {"optimizer": "adamw"}).lr == 0.5  # which it was all along
    assert TrainConfig.layered(below, {"val_file": "v.txt"}).val_fraction == 0.05


@pytest.mark.parametrize("config", [TrainConfig(), TrainConfig(minutes=0.5, val_file="v.txt", backend="numpy"), FULL])
def test_toml_is_complete_and_reads_back_equal(config: TrainConfig, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(to_toml(config), encoding="utf-8")
    read = read_toml(file)
    assert TrainConfig.layered(read) == config
    unset = {name for name in options() if getattr(config, name) is None}
    assert read.keys() | unset == options().keys()
    assert all(name in file.read_text(encoding="utf-8").splitlines()[0] for name in unset - {"out"})


def test_the_folder_of_a_run_is_not_handed_to_the_next() -> None:
    assert to_toml(TrainConfig(out="runs/first")) == to_toml(TrainConfig())


@pytest.mark.parametrize(("written", "steps"), [("1000", 1_000), ("1,000", 1_000), (" 12,345,678", 12_345_678)])
def test_thousands_may_be_set_off(written: str, steps: int) -> None:
    assert TrainConfig(steps=written).steps == steps  # type: ignore[arg-type]


def test_the_names_that_are_offered_are_those_that_there_are() -> None:
    """config.py imports no other module, so it repeats these names."""
    assert set(config.TOKENIZERS) == set(text.TOKENIZERS)
    assert set(config.SCHEDULES) == set(schedule.SCHEDULES)
    assert set(config.BACKENDS) == {"auto", *ops.BACKENDS}
    assert set(config.ACTIVATIONS) == set(ACTIVATIONS) == set(ACTIVATION)
    assert set(config.OPTIMIZERS) == set(config.LEARNING_RATES) == set(config.WEIGHT_DECAYS) == set(RULES)
    layer = nn.Linear(1, 1)
    for name in config.OPTIMIZERS:
        made = make_optimizer(TrainConfig(optimizer=name, hidden=(1,)), layer)
        assert made._next_rule(layer, "weight")[0] == name


WIDTHS = "a width, or the original's widths separated by commas, as in 300,300"
DECAYS = "decays above 0 and below 1 separated by commas, as in 0.7,0.95"
SHARES = "a share of at least 0 and below 1, or three, as in 0.1,0.2,0.2"
BAD: list[tuple[dict[str, Any], str]] = [
    ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
    ({"steps": "ten"}, "steps: expected a whole number of at least 1, got 'ten'"),
    ({"steps": 1.5}, "steps: expected a whole number of at least 1, got 1.5"),
    *(
        ({"steps": text}, f"steps: expected a whole number of at least 1, got '{text}'")
        for text in ("1,5", "1,00", "1000,000", ",100", "1,000,", "1_5")
    ),
    ({"steps": True}, "steps: expected a whole number of at least 1, got True"),
    ({"steps": 5, "epochs": 1}, "epochs: give either this or steps"),
    ({"minutes": 0}, "minutes: expected a number above 0, got 0"),
    ({"minutes": "inf"}, "minutes: expected a number above 0, got 'inf'"),
    ({"batch_size": 1}, "batch_size: expected a whole number of at least 2, got 1"),
    ({"context": 0}, "context: expected a whole number of at least 1, got 0"),
    ({"embed": -3}, "embed: expected a whole number of at least 1, got -3"),
    (
        {"hidden": "300,x"},
        f"hidden: expected {WIDTHS}, got '300,x'",
    ),
    (
        {"hidden": [300, 0]},
        f"hidden: expected {WIDTHS}, got [300, 0]",
    ),
    ({"hidden": 0}, f"hidden: expected {WIDTHS}, got 0"),
    (
        {"averages": 1},
        f"averages: expected none or {DECAYS}, got 1",
    ),
    (
        {"averages": "0.5,x"},
        f"averages: expected none or {DECAYS}, got '0.5,x'",
    ),
    ({"reach": 0}, "reach: expected at least 1 word, for averages of them"),
    ({"averages": (), "reach": 5}, "reach: there are no averages of so many words: give averages too"),
    ({"hidden": (3, 3), "reach": 5}, "reach: there are no averages of so many words: give averages too"),
    ({"blocks": -1}, "blocks: expected a whole number of at least 0, got -1"),
    ({"hidden": (3, 3), "blocks": 1}, "blocks: expected 0 beside a list of widths; give one width: hidden"),
    ({"residual": "perhaps"}, "residual: expected yes or no, got 'perhaps'"),
    ({"residual": True, "blocks": 0}, "residual: there is no block to add to its input: give blocks too"),
    ({"activation": "gelo"}, "activation: expected one of gelu, tanh, relu, got 'gelo'; did you mean 'gelu'?"),
    ({"projection": False}, "projection: expected yes with tied, as the output has that width"),
    ({"tied": 2}, "tied: expected yes or no, got 2"),
    ({"dropout": 1}, f"dropout: expected {SHARES}, got 1"),
    (
        {"dropout": (0.1, 0.2)},
        f"dropout: expected {SHARES}, got (0.1, 0.2)",
    ),
    ({"embed_std": 0}, "embed_std: expected a number above 0, got 0"),
    ({"output_bias": "none"}, "output_bias: expected one of frequencies, zero, got 'none'"),
    ({"patience": -1}, "patience: expected a whole number of at least 0, got -1"),
    ({"hidden": ""}, f"hidden: expected {WIDTHS}, got ''"),
    (
        {"optimizer": "adam"},
        "optimizer: expected one of adamw, sgd, momentum, adagrad, got 'adam'; did you mean 'adamw'?",
    ),
    ({"lr": 0}, "lr: expected a number above 0, got 0"),
    ({"lr": "-0.1"}, "lr: expected a number above 0, got '-0.1'"),
    ({"lr": "nan"}, "lr: expected a number above 0, got 'nan'"),
    (
        {"schedule": "cos"},
        "schedule: expected one of cosine, linear, step, constant, got 'cos'; did you mean 'cosine'?",
    ),
    ({"warmup": -1}, "warmup: expected a whole number of at least 0, got -1"),
    ({"optimizer": "momentum", "momentum": 1}, "momentum: expected a share of at least 0 and below 1, got 1"),
    ({"momentum": 0.5}, "momentum: only the optimizer momentum has it, and this is adamw"),
    ({"betas": "0.9"}, "betas: expected two numbers of at least 0 and below 1, as in 0.9,0.999, got '0.9'"),
    ({"optimizer": "sgd", "betas": "0.5,0.9"}, "betas: only the optimizer adamw has it, and this is sgd"),
    ({"weight_decay": -1}, "weight_decay: expected a number of at least 0, got -1"),
    ({"rules": 3}, "rules: expected a whole number from 1 to 2, got 3"),
    ({"keep_licence": "perhaps"}, "keep_licence: expected yes or no, got 'perhaps'"),
    ({"tokenizer": "word"}, "tokenizer: expected one of words, prose, whitespace, got 'word'; did you mean 'words'?"),
    ({"vocab_size": 1}, "vocab_size: expected a whole number of at least 2, got 1"),
    ({"min_count": 0}, "min_count: expected a whole number of at least 1, got 0"),
    ({"val_fraction": 1}, "val_fraction: expected a share of at least 0 and below 1, got 1"),
    ({"val_fraction": 0.5, "test_fraction": 0.5}, "val_fraction: leaves no text to train on, with a test part of 0.5"),
    ({"val_file": "-"}, "val_file: expected a file, which can be read again when the run is resumed, got '-'"),
    ({"val_file": "v.txt", "val_fraction": 0.1}, "val_fraction: give either this or val_file"),
    ({"eval_every": -1}, "eval_every: expected a whole number of at least 0, got -1"),
    ({"eval_windows": 0}, "eval_windows: expected a whole number of at least 1, got 0"),
    ({"log_every": 0}, "log_every: expected a whole number of at least 1, got 0"),
    ({"sample_every": -1}, "sample_every: expected a whole number of at least 0, got -1"),
    ({"save_every": 0}, "save_every: expected a whole number of at least 1, got 0"),
    ({"counts": "some"}, "counts: expected yes or no, got 'some'"),
    ({"order": 9}, "order: expected a whole number from 1 to 8, got 9"),
    ({"order": 3, "counts": "no"}, "order: nothing is counted, as counts is no"),
    ({"prompt": ["a", ""]}, "prompt: expected text, got ''"),
    ({"prompt": 5}, "prompt: expected text, got 5"),
    ({"seed": -1}, f"seed: expected a whole number from 0 to {2**63 - 1}, got -1"),
    ({"threads": 0}, "threads: expected a whole number from 1 to 1024, got 0"),
    ({"backend": "cuda"}, "backend: expected one of auto, cython, numba, numpy, got 'cuda'"),
    ({"precision": "tf32"}, "precision: expected one of auto, ieee, bf16x3, bf16, got 'tf32'"),
    ({"preset": "orginal"}, "preset: expected one of small, large, original, got 'orginal'; did you mean 'original'?"),
    ({"batchsize": 32}, "batchsize: no such option; did you mean 'batch_size'?"),
    ({"zzz": 32}, "zzz: no such option"),
]


@pytest.mark.parametrize(("given", "message"), BAD, ids=[str(given) for given, _ in BAD])
def test_a_value_that_cannot_be_used_is_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        TrainConfig.layered(given)
    assert str(refused.value) == message
    assert refused.value.option == message.split(":")[0]


def test_every_option_refuses_something() -> None:
    """A new option must come with its bounds: each is in the table above, but for those that are free text."""
    free_text = {"files", "out"}
    assert {name for given, _ in BAD for name in given} >= options().keys() - free_text


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("steps = = 3")
    with pytest.raises(ConfigError, match=r"bad\.toml is not a TOML file: .*line 1"):
        read_toml(file)


def test_a_resumed_run_keeps_its_network_and_text() -> None:
    old = TrainConfig(steps=100)
    assert old.changed_for(dataclasses.replace(old, steps=200, lr=0.1, threads=1, backend="numpy", out="x")) == []
    assert old.changed_for(TrainConfig(steps=100, hidden=5, seed=2)) == ["hidden", "seed"]
    assert old.changed_for(TrainConfig(epochs=1)) == ["epochs"]
    filled = dataclasses.replace(old, batch_size=256, dropout=0.2)
    assert filled.changed_for(old) == []  # what is left open is as it was
    assert filled.changed_for(TrainConfig(steps=100, dropout=0.3)) == ["dropout"]
    assert old.filled_from(filled) == filled
    assert TrainConfig(epochs=1).changed_for(TrainConfig(minutes=1)) == ["minutes"]
    assert TrainConfig(val_fraction=0.1).changed_for(TrainConfig(val_file="v")) == ["val_file", "val_fraction"]
    assert TrainConfig(val_file="v").changed_for(TrainConfig(val_file="w")) == []  # it may have been moved


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("hidden", "300,300"),
        ("betas", "0.9,0.999"),
        ("batch_size", "128"),
        ("vocab_size", "all"),
        ("val_file", "not set"),
    ],
)
def test_what_a_resumed_run_keeps_is_shown_as_it_is_typed(name: str, kept: str) -> None:
    assert TrainConfig(hidden=(300, 300)).kept(name) == f"a run that is resumed keeps what it began with: {kept}"
    assert TrainConfig(epochs=2).kept("minutes") == "a run by epochs cannot go on by minutes"


def test_a_configuration_is_known_by_its_first_line_and_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    written, other = tmp_path / "config.toml", tmp_path / "other.toml"
    written.write_text(to_toml(FULL))
    other.write_text(to_toml(FULL).partition("\n")[2])
    assert is_config(written)
    assert not is_config(other)
    assert not is_config(tmp_path / "none.toml")
