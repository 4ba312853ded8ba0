"""The configuration of a training run: one dataclass behind the flags, the TOML file and the Python API.

    TrainConfig(files=("hp.txt",), steps=2_000)                       Python
    TrainConfig.layered(read_toml("run.toml"), {"steps": "2000"})     what the command does

Long because it lists every option. Every TrainConfig is valid. Defaults that depend on another option are set when it
is made, those that depend on the text in fastmlp.training.recipe. This module imports only the standard library, so
that `--help` answers at once.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from fastmlp.errors import require
from fastmlp.options import (
    LONGEST_REACH,
    RULES,
    TEXTS,
    ConfigError,
    Option,
    Reader,
    between_0_and_1,
    choice,
    closest,
    either,
    file,
    none_or,
    not_negative,
    of_each,
    one_or_several,
    option,
    positive,
    several,
    share,
    text,
    texts,
    typed_value,
    whole,
)
from fastmlp.threads import MOST_THREADS

__all__ = [
    "MODEL_OPTIONS",
    "PRESETS",
    "TrainConfig",
    "TrainingOptions",
    "is_config",
    "options",
    "read_toml",
    "to_dict",
    "to_toml",
    "with_rules",
]

TOKENIZERS = ("words", "prose", "whitespace")
OPTIMIZERS = ("adamw", "sgd", "momentum", "adagrad")
SCHEDULES = ("cosine", "linear", "step", "constant")
BACKENDS = ("auto", "cython", "numba", "numpy")
PRECISIONS = ("auto", "ieee", "bf16x3", "bf16")
LEARNING_RATES = {"adamw": 0.002, "sgd": 0.1, "momentum": 0.02, "adagrad": 0.02}
WINDOW_RATE = 0.005  # of adamw, for a network with one width of hidden layers
WEIGHT_DECAYS = {"adamw": 0.01, "sgd": 0.0, "momentum": 0.0, "adagrad": 0.0}
ACTIVATIONS = ("gelu", "tanh", "relu")
OUTPUT_BIASES = ("frequencies", "zero")
STEPS = 10_000
WARMUP, WARMUP_SHARE = 500, 0.1  # steps, but at most this share of the run
SAVE_SECONDS = 60.0
FIRST_LINE = "# The configuration of a fastmlp run."  # of config.toml; the names of the unset options follow
BUDGETS = ("steps", "epochs", "minutes")
EITHER = "give either this or {other}"
NEW = ("averages", "reach", "blocks", "residual", "activation", "projection", "tied", "dropout")  # of WINDOW
NETWORK_OPTIONS = ("context", "embed", "hidden", *NEW)
MODEL_OPTIONS = (*NETWORK_OPTIONS, "tokenizer", "vocab_size", "min_count", "seed", "threads", "backend")
# Defaults of a network with one hidden width (WINDOW), and with the original's list of widths (LAYERS). The defaults
# of other options depend on the text and on the length of the run: fastmlp.training.recipe.
WINDOW: dict[str, Any] = {
    "context": 5,
    "averages": (0.7, 0.9, 0.98),
    "reach": 200,
    "blocks": 1,
    "residual": True,
    "activation": "gelu",
    "projection": True,
    "tied": True,
    "embed_std": 0.02,
    "output_bias": "frequencies",
    "schedule": "linear",
}
LAYERS: dict[str, Any] = {
    "context": 4,
    "embed": 30,
    "hidden": (300, 300),
    "averages": (),
    "reach": 0,
    "blocks": 0,
    "residual": False,
    "activation": "tanh",
    "projection": False,
    "tied": False,
    "dropout": (0.0, 0.0, 0.0),
    "embed_std": 1.0,
    "output_bias": "zero",
    "schedule": "cosine",
    "counts": False,
    "batch_size": 128,
    "patience": 0,
    "eval_every": 1_000,
    "log_every": 100,
    "sample_every": 2_500,
}
RULE_OPTIONS = ("lr", "weight_decay", "momentum", "betas")  # depend on the optimizer
PRESETS: dict[str, dict[str, Any]] = {
    "small": {"embed": 128, "hidden": 1024, "blocks": 1},
    "large": {"embed": 256, "hidden": 1024, "blocks": 2, "lr": 0.004},
    "original": {
        "hidden": (300, 300),
        "batch_size": 32,
        "optimizer": "sgd",
        "lr": 0.1,
        "schedule": "constant",
        "warmup": 0,
        "steps": 10_000,
    },
}


def options() -> dict[str, Option]:
    """Return every option by the name of its field, in order."""
    return {item.name: item.metadata["option"] for item in dataclasses.fields(TrainConfig)}


@dataclass(frozen=True)
class TrainConfig:
    """The options of a training run.

    Raise ConfigError, which names the option, if a value cannot be used.
    """

    files: tuple[str, ...] = option(
        (),
        texts,
        TEXTS,
        metavar="FILE",
        shown="the documentation of Python's standard library",
    )
    out: str | None = option(
        None, text, "the run's folder", metavar="DIR", shown="runs/<stem of FILE>; -2, ... where that is taken"
    )
    steps: int | None = option(
        None,
        whole(1),
        "number of batches to train on",
        metavar="N",
        shown=f"depends on the text's length; {STEPS:,} for a list of widths",
    )
    epochs: int | None = option(
        None, whole(1), "passes over the text; each pass visits every window once", metavar="N", shown="not set"
    )
    minutes: float | None = option(
        None,
        positive,
        "time limit that includes resumed runs and the final evaluation; the schedule ends when training ends",
        metavar="N",
        shown="not set",
    )
    batch_size: int = option(
        None,
        whole(2),
        "windows per step",
        metavar="N",
        shown="128 to 1,024 by the text's length; 128 for a list of widths",
        fixed=True,
    )
    context: int = option(
        None, whole(1), "number of words just before that predict the next word", metavar="N", shown="5", fixed=True
    )
    embed: int = option(
        None, whole(1), "width of a word's embedding", metavar="N", shown="128; 96 for a short text", fixed=True
    )
    hidden: int | tuple[int, ...] = option(
        None,
        one_or_several(whole(1), "a width, or the original's widths separated by commas, as in 300,300"),
        "width of the hidden layers; a list of widths, as in 300,300, selects the original network's defaults",
        metavar="N",
        shown="1,024; 384 for a short text",
        fixed=True,
    )
    averages: tuple[float, ...] = option(
        None,
        none_or(several(between_0_and_1, "decays above 0 and below 1 separated by commas, as in 0.7,0.95")),
        "decays of the averages of the words before the context, or none",
        metavar="X,X",
        shown="0.7,0.9,0.98",
        fixed=True,
    )
    reach: int = option(
        None,
        whole(0, LONGEST_REACH),
        "number of averaged words before the context",
        metavar="N",
        shown="200",
        fixed=True,
    )
    blocks: int = option(None, whole(0), "number of hidden layers after the first", metavar="N", shown="1", fixed=True)
    residual: bool = option(
        None, either, "whether to add each block to its input", metavar="YES|NO", shown="yes", fixed=True
    )
    activation: str = option(
        None, choice(ACTIVATIONS), ", ".join(ACTIVATIONS), metavar="NAME", shown="gelu", fixed=True
    )
    projection: bool = option(
        None,
        either,
        "whether a layer of the embedding's width precedes the output",
        metavar="YES|NO",
        shown="yes",
        fixed=True,
    )
    tied: bool = option(
        None, either, "whether output layer and embedding share weights", metavar="YES|NO", shown="yes", fixed=True
    )
    dropout: tuple[float, float, float] = option(
        None,
        of_each(share, "a share of at least 0 and below 1, or three, as in 0.1,0.2,0.2", 3),
        "dropout probabilities: of the input, of hidden layers, before the output; or one for all",
        metavar="X,X,X",
        shown="depends on the network, the text and the passes over it",
        fixed=True,
    )
    embed_std: float = option(
        None, positive, "initial standard deviation of the embedding", metavar="X", shown="0.02", fixed=True
    )
    output_bias: str = option(
        None,
        choice(OUTPUT_BIASES),
        "initial bias of the output layer: frequencies (the logarithms of the words' frequencies), zero",
        metavar="NAME",
        shown="frequencies",
        fixed=True,
    )
    optimizer: str = option("adamw", choice(OPTIMIZERS), ", ".join(OPTIMIZERS), metavar="NAME", fixed=True)
    lr: float = option(
        None,
        positive,
        "highest learning rate",
        metavar="RATE",
        shown=f"adamw {WINDOW_RATE}, {LEARNING_RATES['adamw']} for a list of widths; sgd 0.1; momentum, adagrad 0.02",
    )
    schedule: str = option(
        None,
        choice(SCHEDULES),
        "learning rate schedule: linear or cosine to 0, step (a tenth from the middle on), constant",
        metavar="NAME",
        shown="linear; cosine for a list of widths",
    )
    warmup: int | None = option(
        None,
        whole(0),
        "steps over which the learning rate rises to its highest value",
        metavar="N",
        shown=f"{WARMUP}, at most a tenth of the run",
    )
    momentum: float = option(0.9, share, "momentum of --optimizer momentum", metavar="X", fixed=True)
    betas: tuple[float, float] = option(
        (0.9, 0.999),
        several(share, "two numbers of at least 0 and below 1, as in 0.9,0.999", count=2),
        "beta1 and beta2 of --optimizer adamw",
        metavar="X,X",
        fixed=True,
    )
    weight_decay: float = option(
        None,
        not_negative,
        "weight decay, for matrices only; for all parameters with a list of widths",
        metavar="X",
        shown="adamw depends on batch size, rate and text, 0.01 for a list of widths; other optimizers 0",
    )
    tokenizer: str = option(
        "words",
        choice(TOKENIZERS),
        "words (lower case; '.' is a word), prose (capitals, punctuation, paragraphs),"
        " whitespace (tokenized already; line ends are <eos>)",
        metavar="NAME",
        fixed=True,
    )
    keep_licence: bool = option(
        False,
        either,
        "keep what Project Gutenberg puts around a book",
        metavar="",
        fixed=True,
    )
    rules: int | None = option(
        None,
        whole(1, RULES),
        "rules of reading texts and splitting them into words; 1: as before there were others",
        metavar="N",
        shown=f"{RULES}, the newest",
        fixed=True,
    )
    vocab_size: int | None = option(
        None,
        whole(2),
        "keep this many of the most frequent words, with <unk>; training loss includes <unk>, validation loss does not",
        metavar="N",
        shown="all",
        fixed=True,
    )
    min_count: int = option(1, whole(1), "words that occur less often become <unk>", metavar="N", fixed=True)
    val_fraction: float = option(
        0.05, share, "share of the text for validation, before the test part", metavar="X", fixed=True
    )
    test_fraction: float = option(
        0.0, share, "share of the text held out for testing, at its end", metavar="X", shown="0", fixed=True
    )
    val_file: str | None = option(
        None, file, "validate on this file instead of a part of the text", metavar="FILE", shown="not set"
    )
    eval_every: int = option(
        None,
        whole(0),
        "steps between validations; 0: at the end",
        metavar="N",
        shown="depends on the run's length",
    )
    eval_windows: int = option(
        8_192, whole(1), "number of evenly spaced words per validation; the final one uses all", metavar="N"
    )
    log_every: int = option(
        None, whole(1), "steps between lines of metrics.jsonl", metavar="N", shown="depends on the run's length"
    )
    sample_every: int = option(
        None,
        whole(0),
        "steps between sample texts; 0: at the end",
        metavar="N",
        shown="depends on the run's length",
    )
    patience: int = option(
        None,
        whole(0),
        "stop after this many validations in a row that are much worse than the best; 0: never",
        metavar="N",
        shown="6; 0 for a list of widths",
    )
    counts: bool = option(
        None,
        either,
        "whether to count the text's n-grams, predict with them too, and keep the text for that",
        metavar="YES|NO",
        shown="yes; no for a list of widths, or over 20 million words",
    )
    order: int = option(5, whole(1, 8), "words of the longest n-grams that are counted", metavar="N")
    prompt: tuple[str, ...] = option(
        (), texts, "what the sample texts begin with", metavar="TEXT", shown="from the held-out text", repeated=True
    )
    save_every: int | None = option(
        None,
        whole(1),
        "steps between checkpoints, of which there is also one for each validation that is the best so far",
        metavar="N",
        shown=f"every {SAVE_SECONDS:.0f} s, sooner with better weights if saving takes little time, and the end",
    )
    seed: int = option(1, whole(0, 2**63 - 1), "seed of all random numbers", metavar="N", fixed=True)
    threads: int | None = option(
        None,
        whole(1, MOST_THREADS),
        "number of threads",
        metavar="N",
        shown="FASTMLP_NUM_THREADS, or all this process may use",
    )
    backend: str = option(
        "auto", choice(BACKENDS), "cython, numba, numpy; auto is cython if it is built, else numba", metavar="NAME"
    )
    precision: str = option(
        "auto",
        choice(PRECISIONS),
        "precision of the products: ieee, bf16x3, bf16; auto is bf16 if the CPU has it, else ieee",
        metavar="NAME",
    )

    def __post_init__(self) -> None:
        for name, known in options().items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _read(name, known.read, value))
        self._fill_in()
        self._check_together()

    def _fill_in(self) -> None:
        """Set the defaults that depend on other options."""
        usual = dict(WINDOW if self.window else LAYERS)
        if self.averages:
            usual["reach"] = WINDOW["reach"]
        if self.tied:
            usual["projection"] = True
        if not self.window and self.steps is None and self.epochs is None and self.minutes is None:
            usual["steps"] = STEPS
        if self.window and self.averages == ():
            usual["reach"] = 0
        if self.window and self.blocks == 0:
            usual["residual"] = False
        usual["lr"] = LEARNING_RATES[self.optimizer]
        if self.window and self.optimizer == "adamw":
            usual["lr"] = WINDOW_RATE
        else:
            usual["weight_decay"] = WEIGHT_DECAYS[self.optimizer]
        for name, value in usual.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def _check_together(self) -> None:
        """Raise ConfigError for options that do not fit together."""
        if not self.window and self.blocks and len(self.hidden) > 1:  # type: ignore[arg-type]
            raise ConfigError("blocks", "expected 0 beside a list of widths; give one width: {other}", other="hidden")
        if self.averages and not self.reach:
            raise ConfigError("reach", "expected at least 1 word, for {other} of them", other="averages")
        if self.reach and not self.averages:
            raise ConfigError("reach", "there are no averages of so many words: give {other} too", other="averages")
        if self.tied and not self.projection:
            raise ConfigError("projection", "expected yes with {other}, as the output has that width", other="tied")
        if self.residual and not self.blocks:
            raise ConfigError("residual", "there is no block to add to its input: give {other} too", other="blocks")
        budgets = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(budgets) > 1:
            raise ConfigError(budgets[1], EITHER, other=budgets[0])
        if self.val_fraction + self.test_fraction >= 1:
            raise ConfigError("val_fraction", f"leaves no text to train on, with a test part of {self.test_fraction:g}")
        if self.val_file is not None and self.val_fraction != _default("val_fraction"):
            raise ConfigError("val_fraction", EITHER, other="val_file")
        for name, rule in (("momentum", "momentum"), ("betas", "adamw")):
            if self.optimizer != rule and getattr(self, name) != _default(name):
                raise ConfigError(name, f"only the optimizer {rule} has it, and this is {self.optimizer}")
        if self.counts is False and self.order != _default("order"):
            raise ConfigError("order", "nothing is counted, as {other} is no", other="counts")

    @classmethod
    def layered(cls, *layers: Mapping[str, Any]) -> "TrainConfig":
        """Merge layers of options into a configuration; each layer overrides those before it.

        A layer may name a "preset", which the layer's own options override. A layer that sets one of steps, epochs and
        minutes drops the others; one that changes the optimizer drops the rates and momenta of the optimizer before.
        """
        merged: dict[str, Any] = {}
        for layer in layers:
            for options_of_layer in _with_preset(layer):
                _lay_over(merged, options_of_layer)
        return cls(**merged)

    @property
    def window(self) -> bool:
        """Whether the network has one width of hidden layers, not the original's list of widths."""
        return not isinstance(self.hidden, tuple)

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of the hidden layers before the blocks."""
        return self.hidden if isinstance(self.hidden, tuple) else (self.hidden,)

    @property
    def budget(self) -> str:
        """The option that limits the run: steps, epochs or minutes."""
        return next((name for name in BUDGETS if getattr(self, name) is not None), "steps")

    def filled_from(self, other: "TrainConfig") -> "TrainConfig":
        """Return this configuration with its open options, except `out`, taken from another."""
        names = [name for name in options() if getattr(self, name) is None and name not in ("out", *BUDGETS)]
        if all(getattr(self, name) is None for name in BUDGETS):
            names += BUDGETS
        return dataclasses.replace(self, **{name: getattr(other, name) for name in names})

    def changed_for(self, other: "TrainConfig") -> list[str]:
        """Return the options that must not change on resume, but differ in `other`."""
        changed = [
            name
            for name, known in options().items()
            if known.fixed and getattr(other, name) not in (None, getattr(self, name))
        ]
        if (self.val_file is None) != (other.val_file is None):  # the same content may have another path
            changed.insert(0, "val_file")
        return changed if (self.epochs is None) == (other.epochs is None) else [*changed, other.budget]

    def kept(self, name: str) -> str:
        """Return the error message for an option that must not change on resume."""
        if name in BUDGETS:
            return f"a run by {self.budget} cannot go on by {name}"
        value = getattr(self, name)
        shown = options()[name].shown if value is None else typed_value(value)
        return f"a run that is resumed keeps what it began with: {shown}"

    def warmup_steps(self, total: int | None) -> int:
        """Return the warmup steps of a run of `total` steps; None: time limits the run."""
        if self.warmup is not None:
            return self.warmup
        return WARMUP if total is None else min(WARMUP, int(total * WARMUP_SHARE))


class TrainingOptions(TypedDict, total=False):
    """The types of the options that `LanguageModel.fit` takes; TrainConfig documents them."""

    preset: str | None
    steps: int | None
    epochs: int | None
    minutes: float | None
    batch_size: int | None
    optimizer: str
    lr: float | None
    schedule: str | None
    warmup: int | None
    momentum: float
    betas: tuple[float, float]
    weight_decay: float | None
    val_fraction: float
    test_fraction: float
    val_file: str | Path | None
    keep_licence: bool
    rules: int | None
    eval_every: int | None
    eval_windows: int
    log_every: int | None
    sample_every: int | None
    patience: int | None
    counts: bool | None
    order: int
    embed_std: float | None
    output_bias: str | None
    prompt: str | Sequence[str]
    save_every: int | None
    precision: str


def check_model_options(options: Mapping[str, Any]) -> None:
    """Raise TypeError for an argument that LanguageModel does not have."""
    for name in options:
        if name in TrainingOptions.__annotations__:
            raise TypeError(f"LanguageModel: {name} is an argument of its fit: fit(text, {name}=...)")
        raise TypeError(f"LanguageModel: no argument {name}{closest(name, MODEL_OPTIONS)}")


def check_training_options(options: Mapping[str, Any]) -> None:
    """Raise TypeError for an option that LanguageModel.fit does not have."""
    known = TrainingOptions.__annotations__
    for name in options:
        if name in MODEL_OPTIONS:
            raise TypeError(f"fit: {name} is an argument of the model: LanguageModel({name}=...)")
        if name not in known:
            raise TypeError(f"fit: no argument {name}{closest(name, known)}")


def _default(name: str) -> Any:
    return next(item.default for item in dataclasses.fields(TrainConfig) if item.name == name)


def _read(name: str, read: Reader, value: Any) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise ConfigError(name, str(error)) from None


def _with_preset(layer: Mapping[str, Any]) -> list[dict[str, Any]]:
    own = dict(layer)
    if (preset := own.pop("preset", None)) is None:
        return [own]
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ConfigError(
            "preset", f"expected one of {', '.join(PRESETS)}, got {preset!r}{closest(str(preset), PRESETS)}"
        )
    return [PRESETS[preset], own]


def _lay_over(merged: dict[str, Any], layer: Mapping[str, Any]) -> None:
    known = options()
    for name in layer:
        if name not in known:
            raise ConfigError(name, f"no such option{closest(name, [*known, 'preset'])}")
    replaced: set[str] = set()
    if any(name in layer for name in BUDGETS):
        replaced.update(BUDGETS)
    optimizer = merged.get("optimizer", _default("optimizer"))
    if layer.get("optimizer", optimizer) != optimizer:
        replaced.update(RULE_OPTIONS)
    if "val_file" in layer:
        replaced.add("val_fraction")
    for name in replaced:
        merged.pop(name, None)
    merged.update(layer)


# --------------------------------------------------------------------------------------------------------------- TOML


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read the options in a TOML file.

    A file without `hidden`, a preset or an option in NEW was written by an older version: it gets the original's
    hidden layers. A run's config.toml without `rules` gets rules 1.
    Raise ConfigError if the file cannot be read or is not TOML.
    """
    import tomllib

    try:
        written = Path(path).read_text(encoding="utf-8")
        given = tomllib.loads(written)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError("config", f"{path} is not a TOML file: {error}") from None
    except (OSError, ValueError) as error:
        near = "" if Path(path).exists() else closest(str(path), map(str, Path(path).parent.glob("*.toml")))
        reason = getattr(error, "strerror", None) or error
        raise ConfigError("config", f"{path} cannot be read: {reason}{near}") from None
    if not any(name in given for name in (*NEW, "hidden", "preset")):
        given["hidden"] = list(LAYERS["hidden"])
    of_run = written.startswith(FIRST_LINE) and "rules" not in written.partition("\n")[0]
    return with_rules(given) if of_run else given


def with_rules(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run, with rules 1 if it was saved before there were others."""
    return {"rules": 1, **saved}


def is_config(path: Path) -> bool:
    """Whether a file begins with the first line that `to_toml` writes."""
    try:
        with path.open("rb") as file:
            return file.read(len(FIRST_LINE)) == FIRST_LINE.encode()
    except OSError:
        return False


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Return the set options in types of JSON and TOML; without `out`, so that another run can use them."""
    values = {name: getattr(config, name) for name in options() if name != "out"}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if value is not None
    }


def to_toml(config: TrainConfig) -> str:
    """Return the configuration without `out` as TOML. TOML has no null: a comment lists the unset options."""
    require("tomli-w", "a run's config.toml")
    import tomli_w

    values = to_dict(config)
    unset = ", ".join(name for name in options() if name not in values and name != "out")
    return f"{FIRST_LINE} Not set: {unset}.\n{tomli_w.dumps(values)}"
