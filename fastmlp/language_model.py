"""The language model as a library: trained on a text, it writes, says what comes next, and judges other texts.

    from fastmlp import LanguageModel

    model = LanguageModel(hidden=(300, 300))
    history = model.fit(Path("hp.txt"), steps=2_000)
    print(model.generate("harry potter and the"))

The trainer trains it, the commands load it, and its files are theirs.
"""

import contextlib
import difflib
import os
import shlex
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from fastmlp import __version__, checkpoint
from fastmlp.backend import choose_backend
from fastmlp.checkpoint import CheckpointError
from fastmlp.config import (
    FEWEST_ON_MAP,
    MODEL_OPTIONS,
    ConfigError,
    TrainConfig,
    TrainingOptions,
    closest,
    not_negative,
    picture,
    positive_share,
    whole,
)
from fastmlp.corpus import checked_ids
from fastmlp.evaluation import Evaluation, evaluate_ids
from fastmlp.events import Event, Notice, Reporter
from fastmlp.generation import (
    beginning_with,
    complete,
    describe_unknown_words,
    joiner_after,
    next_logits,
    random_numbers,
    softmax,
    words_of_prompt,
)
from fastmlp.history import History
from fastmlp.model import MLP, NetworkShape
from fastmlp.ops import Ops
from fastmlp.text import (
    IDS,
    TOKENIZERS,
    UNK,
    Text,
    TextError,
    Tokenizer,
    Vocabulary,
    get_tokenizer,
    is_word,
    read_text,
    text_in_memory,
)
from fastmlp.threads import default_threads
from fastmlp.word_map import draw_words, plot_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LanguageModel", "ModelError", "NotTrainedError", "load_language_model", "model_file"]

Array = np.ndarray
Ids = Sequence[int] | Array
TextOrIds = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Ids

MODEL_FILE, LAST_FILE = "model.safetensors", "last.safetensors"
RUNS = Path("runs")  # where the runs are that were given no folder
MODEL = "model"  # what a checkpoint says it is
OF_TEXT_AND_SEED = ("vocab_size", "min_count", "seed")  # arguments of a model that its network does not show
LONGEST_NAME = 4096  # of a file


class ModelError(Exception):
    """A file or folder that holds no language model; the message is one complete line for the user."""


class NotTrainedError(ModelError):
    """A model that was neither trained nor loaded is asked for something."""


@dataclass(frozen=True)
class Trained:
    """What training makes: a network, the words it speaks, how they are told apart, and whether `<unk>` is one."""

    network: MLP
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    unk_trained: bool


class _Warnings(Reporter):
    """Makes warnings of what a run's user should know, and is silent otherwise."""

    def report(self, event: Event) -> None:
        """Only notices."""
        if isinstance(event, Notice):
            warnings.warn(event.text, stacklevel=2)


class LanguageModel:
    """The neural language model of Bengio et al. (2003) with batch normalization, on words or on numbers.

    `fit` trains it, or `LanguageModel.load` reads it from a file or a run's folder; then it generates, evaluates and
    knows neighbors. It can be pickled and copied, and gives the same bits afterwards. Several Python threads may use
    one model: calls that need its network come one after the other. A forked child may use it and train it.

    >>> from fastmlp import LanguageModel
    >>> model = LanguageModel(context=2, embed=8, hidden=(32,))
    >>> history = model.fit("the cat sat on the mat. the dog lay on the rug. " * 100, steps=200, batch_size=32)
    >>> model.generate("the cat", words=3, temperature=0)
    'the cat sat on the'
    >>> [word for word, probability in model.next_word("on the", k=2)] in (["mat", "rug"], ["rug", "mat"])
    True
    >>> model.perplexity("the dog lay on the mat.") < 2
    True
    >>> model
    LanguageModel(context=2, embed=8, hidden=(32,)): 9 words, 986 parameters

    Numbers instead of words: `fit` takes integers, and vocab_size says how many different ones there are.

    >>> model = LanguageModel(context=2, embed=8, hidden=(32,), vocab_size=5)
    >>> history = model.fit([0, 1, 2, 3, 4] * 200, steps=200, batch_size=32)
    >>> model.generate([0, 1], words=4, temperature=0)
    array([0, 1, 2, 3, 4, 0], dtype=int32)
    """

    def __init__(
        self,
        *,
        context: int = 4,
        embed: int = 30,
        hidden: Sequence[int] = (300, 300),
        tokenizer: str = "words",
        vocab_size: int | None = None,
        min_count: int = 1,
        seed: int = 1,
        threads: int | None = None,
        backend: str = "auto",
    ) -> None:
        """A model that is not trained yet; where no other is given, defaults are those of `python -m fastmlp.train`.

        context     words that are looked at to guess the next
        embed       width of the embedding of a word
        hidden      widths of the hidden layers
        tokenizer   how a text becomes words: "words" (lower case; '.' is a word), "prose" (capitals, punctuation and
                    paragraphs), "whitespace" (tokenized already)
        vocab_size  words to keep, the most frequent, `<unk>` among them; None: all. For ids: they are below it; the
                    network has one row more, for what stands before the first
        min_count   words that come less often become `<unk>`
        seed        of the initial weights, and of the windows that are trained on
        threads     threads to work with; None: FASTMLP_NUM_THREADS, or all this process may use
        backend     "cython", "numba", "numpy"; "auto": cython where it is built, else numba with a warning
        Raises ConfigError, a ValueError, which names the argument.
        """
        given = (context, embed, hidden, tokenizer, vocab_size, min_count, seed, threads, backend)
        self._set_options(dict(zip(MODEL_OPTIONS, given, strict=True)))
        self._trained: Trained | None = None

    def _set_options(self, options: Mapping[str, Any]) -> None:
        """Take over the arguments of a new model, in the form in which a run's configuration has them."""
        default, config = TrainConfig(), TrainConfig(**options)
        for name, value in options.items():
            if value is None and (usual := getattr(default, name)) is not None:
                raise ConfigError(name, f"expected a value, such as {usual!r}, got None")
        self._options = {name: getattr(config, name) for name in MODEL_OPTIONS}
        self._lock = threading.RLock()  # held by who uses the network: its buffers serve one call at a time
        _models.add(self)

    @classmethod
    def from_network(
        cls, network: MLP, vocabulary: Vocabulary, tokenizer: Tokenizer, *, unk_trained: bool
    ) -> "LanguageModel":
        """The model of a network that is there already.

        unk_trained  whether training saw `<unk>`, so that its embedding means something
        """
        shape = network.shape
        model = cls(
            context=shape.context,
            embed=shape.embed,
            hidden=shape.hidden,
            threads=network.threads,
            backend=network.ops.backend,
            **({"vocab_size": vocabulary.unk_id} if tokenizer is IDS else {"tokenizer": tokenizer.name}),
        )
        model._trained = Trained(network, vocabulary, tokenizer, unk_trained)
        return model

    # ----------------------------------------------------------------------------------------------- what it is made of

    def _parts(self) -> Trained:
        if self._trained is None:
            raise NotTrainedError("this LanguageModel is not trained: call its fit, or LanguageModel.load")
        return self._trained

    @property
    def network(self) -> MLP:
        """The network; `network.parameters` are NumPy arrays by name. Raises NotTrainedError before there is one."""
        return self._parts().network

    @property
    def vocabulary(self) -> Vocabulary:
        """The words it knows; for a model of ids the numbers as words. Raises NotTrainedError before there is one."""
        return self._parts().vocabulary

    @property
    def tokenizer(self) -> Tokenizer:
        """How a text becomes words. Raises NotTrainedError before training."""
        return self._parts().tokenizer

    @property
    def unk_trained(self) -> bool:
        """Whether training saw `<unk>`. Raises NotTrainedError before training."""
        return self._parts().unk_trained

    def __repr__(self) -> str:
        always = ("context", "embed", "hidden")
        default = TrainConfig()
        shown = {
            name: value for name, value in self._options.items() if name in always or value != getattr(default, name)
        }
        arguments = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        if (trained := self._trained) is None:
            return f"LanguageModel({arguments}): not trained"
        kind, words = ("ids" if trained.tokenizer is IDS else "words"), len(trained.vocabulary) - 1
        parameters = trained.network.shape.parameter_count()
        return f"LanguageModel({arguments}): {words:,} {kind}, {parameters:,} parameters"

    # --------------------------------------------------------------------------------------------------------- training

    def fit(
        self,
        text: TextOrIds,
        *,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        reporter: Reporter | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        **options: Unpack[TrainingOptions],
    ) -> History:
        """Train on a text, from new weights, and keep those of the best validation; whatever fails changes nothing.

        text         the text itself (str); a pathlib.Path or a list of paths: files in UTF-8, folders (their *.txt),
                     .gz; or ids (N,), integers of any type and layout, 0 <= id < vocab_size
        out          a folder for all that `python -m fastmlp.train` writes; None: nothing is written
        resume       go on with the run in that folder
        overwrite    replace the run in that folder
        reporter     is told what happens, such as the console of `with fastmlp.console.Console(bar=True) as console`,
                     which prints what the command does; None: only what should be known is told, as warnings
        should_stop  asked before each step, and while the held-out words are guessed at the end; training ends there
                     if it says so
        options      how to train, each None or left out: the default of the command
            preset                                "original": the description's own setting
            steps, epochs, minutes                how long: one of them (10,000 steps)
            batch_size                            rows of a step (128)
            optimizer                             "adamw", "sgd", "momentum", "adagrad"
            lr, schedule, warmup                  highest learning rate (adamw 0.002, sgd 0.1, others 0.02); "cosine",
                                                  "linear", "step", "constant"; steps until it is reached
            momentum, betas, weight_decay         of the optimizer
            val_fraction, test_fraction, val_file what is held out of the text (0.05, 0), or a file instead
            eval_every, eval_windows, log_every   steps between measurements (1,000, 100), words of a validation (8,192)
            sample_every, prompt                  the samples that are told to the reporter
            save_every                            steps between checkpoints; needs `out`
            precision                             of the last layer's products: "auto", "ieee", "bf16x3", "bf16"
        Returns the losses on the way.
        Raises TextError, ConfigError, TypeError, ValueError or IndexError for what it cannot use, with the argument's
        name, what was expected and what came; DivergedError where the loss becomes infinite or no number; with `out`
        RunFolderError and CheckpointError for what cannot be written.

        >>> history = LanguageModel(context=1, embed=2, hidden=(4,)).fit("to be or not to be. " * 50, steps=10)
        >>> len(history.losses), history.steps.tolist()
        (2, [0, 10])
        >>> LanguageModel().fit("to be or not to be.", stepz=10)
        Traceback (most recent call last):
        TypeError: fit: no argument stepz; did you mean 'steps'?
        """
        from fastmlp.trainer import open_run, run_in_memory  # the trainer is built on this class

        _check_options(options)
        for name, given in (("resume", resume), ("overwrite", overwrite), ("save_every", options.get("save_every"))):
            if given and out is None:
                raise ValueError(f"{name}: expected a folder beside it, as in fit(..., out='runs/hp'), got none")
        source = _source("text", text)
        files, in_memory = (source, None) if isinstance(source, tuple) else ((), source)
        own = {**self._options, "files": files, "out": None if out is None else os.fspath(out)}
        config = TrainConfig.layered(own, dict(options))
        reporter = reporter or _Warnings()
        if out is None:
            run = run_in_memory(config, text=in_memory, reporter=reporter)
            result = run.train(should_stop)
            lines, trained = run.metrics_lines(), run.kept_language()._parts()
        else:
            with open_run(config, text=in_memory, reporter=reporter, resume=resume, overwrite=overwrite) as saved_run:
                result = saved_run.train(should_stop)
                lines, trained = saved_run.metrics_lines(), saved_run.kept_language()._parts()
        with self._lock:
            self._trained = trained
        return History.of(lines, result)

    # -------------------------------------------------------------------------------------------------------- using it

    @overload
    def generate(
        self,
        prompt: str = ...,
        words: int = ...,
        *,
        temperature: float = ...,
        top_k: int | None = ...,
        top_p: float | None = ...,
        seed: int | np.random.Generator | None = ...,
    ) -> str: ...

    @overload
    def generate(
        self,
        prompt: Ids,
        words: int = ...,
        *,
        temperature: float = ...,
        top_k: int | None = ...,
        top_p: float | None = ...,
        seed: int | np.random.Generator | None = ...,
    ) -> Array: ...

    def generate(
        self,
        prompt: str | Ids = "",
        words: int = 30,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> str | Array:
        """The prompt and so many words after it, each drawn from what the network expects next; never `<unk>`.

        prompt       what the text begins with; ids (N,) for ids
        words        how many words to add
        temperature  below 1 likely words become likelier, above 1 less so; 0 takes the likeliest
        top_k        draw from the k likeliest words
        top_p        draw from the fewest words that together have this probability
        seed         the same text again: that which `python -m fastmlp.generate --seed` writes first; or random numbers
                     to draw on; None: another text each time
        Returns a text, or for ids an int32 array (N + words,). Warns of words that the vocabulary lacks, which are read
        as `<unk>`. Raises NotTrainedError, ValueError, or for ids TypeError or IndexError.

        >>> model = LanguageModel(context=1, embed=4, hidden=(8,))
        >>> history = model.fit("to be or not to be. " * 50, steps=100, batch_size=16)
        >>> model.generate("not", 2, temperature=0)
        'not to be'
        """
        limits = {
            "temperature": _read("temperature", not_negative, temperature),
            "top_k": None if top_k is None else _read("top_k", whole(1), top_k),
            "top_p": None if top_p is None else _read("top_p", positive_share, top_p),
        }
        count = _read("words", whole(0), words)
        rng = seed if isinstance(seed, np.random.Generator) else random_numbers(_seed(seed), 0)
        with self._lock:
            before = self._words_of(prompt)
            after = complete(self, before, count, rng, **limits)
            if isinstance(prompt, str):
                return self.tokenizer.join([*before, *after])
            return self.vocabulary.encode([*before, *after])

    @overload
    def next_word(self, prompt: str, k: int | None = ...) -> list[tuple[str, float]]: ...

    @overload
    def next_word(self, prompt: Ids, k: int | None = ...) -> list[tuple[int, float]]: ...

    def next_word(self, prompt: str | Ids, k: int | None = 10) -> list[tuple[str, float]] | list[tuple[int, float]]:
        """The likeliest next words with their probabilities, the likeliest first.

        prompt  what stands before; ids (N,) for ids
        k       how many words; None: all
        Probabilities are those that `generate` draws with: `<unk>` is left out, and all of them add up to 1. Warns of
        words that the vocabulary lacks. Raises NotTrainedError, ValueError, or for ids TypeError or IndexError.

        >>> model = LanguageModel(context=1, embed=4, hidden=(8,))
        >>> history = model.fit("to be or not to be. " * 50, steps=200, batch_size=16, lr=0.02)
        >>> [(word, round(probability, 1)) for word, probability in model.next_word("not", k=1)]
        [('to', 1.0)]
        """
        count = None if k is None else _read("k", whole(1), k)
        with self._lock:
            vocabulary = self.vocabulary
            words = self._words_of(prompt)
            probabilities = softmax(next_logits(self, beginning_with(self, words), joiner_after(self, words)))
            order = np.argsort(-probabilities, kind="stable")[: vocabulary.unk_id][:count].tolist()
            if isinstance(prompt, str):
                return [(vocabulary.words[i], float(probabilities[i])) for i in order]
            return [(i, float(probabilities[i])) for i in order]

    def evaluate(self, text: TextOrIds) -> Evaluation:
        """How well it guesses each word of a text.

        text  as in `fit`; ids are those of its vocabulary
        Returns loss, perplexity and of how many words; those that the vocabulary lacks are left out and counted.
        Raises NotTrainedError; TextError for a text without known words; otherwise as `fit`.

        >>> model = LanguageModel(context=1, embed=4, hidden=(8,))
        >>> history = model.fit("to be or not to be. " * 50, steps=100, batch_size=16)
        >>> found = model.evaluate("to be a cat.")
        >>> found.words, found.unknown
        (3, 2)
        """
        with self._lock:
            found = evaluate_ids(self, self._ids("text", text))
        if not found.words:
            raise TextError("text: none of its words is in the model's vocabulary")
        return found

    def perplexity(self, text: TextOrIds) -> float:
        """exp of the mean loss in nats of a text's words: between how many equally likely words the model hesitates.

        text  as in `fit`; words that the vocabulary lacks are left out: `evaluate` counts them
        Raises as `evaluate`.

        >>> model = LanguageModel(context=1, embed=4, hidden=(8,))
        >>> history = model.fit("to be or not to be. " * 50, steps=200, batch_size=16, lr=0.02)
        >>> 1 < model.perplexity("to be or not to be.") < 1.5
        True
        """
        return self.evaluate(text).perplexity

    @overload
    def neighbors(self, word: str, k: int | None = ...) -> list[tuple[str, float]]: ...

    @overload
    def neighbors(self, word: int, k: int | None = ...) -> list[tuple[int, float]]: ...

    def neighbors(self, word: str | int, k: int | None = 10) -> list[tuple[str, float]] | list[tuple[int, float]]:
        """The words that are used most like a word, without itself and `<unk>`.

        word  of the vocabulary; or its id
        k     how many words; None: all
        Returns words, or ids, with the cosines in [-1, 1] of their embeddings in the output layer, the nearest first.
        Raises NotTrainedError, TextError for a word that the vocabulary lacks, IndexError for such an id.

        >>> model = LanguageModel(context=1, embed=4, hidden=(8,))
        >>> history = model.fit("to be or not to be. " * 50, steps=100, batch_size=16)
        >>> sorted(word for word, cosine in model.neighbors("to", k=None))
        ['.', 'be', 'not', 'or']
        """
        count = None if k is None else _read("k", whole(1), k)
        with self._lock:
            vocabulary, own, directions = self.vocabulary, self._known_word(word), self._directions()
        cosines = np.clip(directions @ directions[own], -1, 1)
        order = np.argsort(-cosines, kind="stable").tolist()
        others = [i for i in order if i not in (own, vocabulary.unk_id)][:count]
        if isinstance(word, str):
            return [(vocabulary.words[i], float(cosines[i])) for i in others]
        return [(i, float(cosines[i])) for i in others]

    def plot_words(
        self, path: str | os.PathLike[str] | None = None, n: int = 200, *, title: str = "language model"
    ) -> "Figure":
        """Draw the most frequent words in two dimensions, where words that are used alike lie together.

        path   where to write it, a file that ends in .png or .svg; None: nowhere
        n      how many words, marks left out; those that have no room for a label are dots
        title  what it is of, one line of plain text
        The dimensions are the principal components of the words' embeddings in the output layer, each of length 1.
        Returns matplotlib's Figure, which needs no display. Raises NotTrainedError, ModelError for a model without
        words or with too few, ValueError, or CheckpointError where the file cannot be written.

        >>> model = LanguageModel(context=1, embed=4, hidden=(8,))
        >>> history = model.fit("to be or not to be. " * 50, steps=10)
        >>> figure = model.plot_words(title="Hamlet")
        >>> figure.axes[0].get_title()
        'Hamlet: the 4 most frequent words'
        """
        count = _read("n", whole(FEWEST_ON_MAP), n)
        file = None if path is None else _read("path", picture, path)
        with self._lock:
            if self.tokenizer is IDS:
                raise ModelError("a model of ids has no words to draw")
            words, directions = self.vocabulary.words, self._directions()
        shown = [i for i, word in enumerate(words) if is_word(word)][:count]
        if len(shown) < FEWEST_ON_MAP:
            raise ModelError(f"a vocabulary of {len(shown)} words is too small for a map")
        named, headline = [words[i] for i in shown], f"{title}: the {len(shown):,} most frequent words"
        if file is None:
            return draw_words(named, directions[shown], headline)
        return plot_words(named, directions[shown], file, title=headline)

    def _directions(self) -> Array:
        """Each word's embedding in the output layer (V, H), of length 1: alike for words that follow the same words.

        Each of them is trained in every step (Press and Wolf 2017, "Using the Output Embedding to Improve Language
        Models"). Those of the first layer begin as large random numbers and are trained only where their word is seen:
        near in them is what was near by chance. What lies along the mean of all words is left out: it says how rare a
        word is, and would make all rare ones alike (Mu and Viswanath 2018, "All-but-the-Top").
        """
        weight = self.network.parameters["output.weight"]
        common = _unit(weight.mean(axis=0, keepdims=True))
        return _unit(weight - weight @ common.T * common)

    def _known_word(self, word: str | int) -> int:
        """The id of the one word that is meant."""
        if not isinstance(word, str):
            if not isinstance(word, int | np.integer):
                raise TypeError(f"word: expected a word or its id, got {word!r}")
            return int(self._checked("word", np.array([word]))[0])
        vocabulary = self.vocabulary
        if word in vocabulary and word != UNK:
            return vocabulary.id_of(word)
        words = words_of_prompt(self, word)
        if len(words) != 1:
            raise TextError(f"word: expected one word, got {word!r}")
        if words[0] not in vocabulary:
            close = ", ".join(vocabulary.closest(words[0]))
            raise TextError(f"word: '{words[0]}' is not in the vocabulary" + (f"; close: {close}" if close else ""))
        return vocabulary.id_of(words[0])

    def _words_of(self, prompt: str | Ids) -> list[str]:
        """The words of a prompt."""
        if not isinstance(prompt, str):
            return self.vocabulary.decode(self._checked("prompt", _integers("prompt", prompt, "a text (str) or ids")))
        words = words_of_prompt(self, prompt)
        if unknown := describe_unknown_words(self, words):
            warnings.warn(unknown, stacklevel=3)
        return words

    def _ids(self, name: str, given: TextOrIds) -> Array:
        """The ids of a text."""
        trained, source = self._parts(), _source(name, given)
        if isinstance(source, Array):
            return self._checked(name, source)
        text = read_text(source) if isinstance(source, tuple) else source
        return trained.vocabulary.encode(trained.tokenizer.split(text.text))

    def _checked(self, name: str, ids: Array) -> Array:
        """Ids of the vocabulary; those of a model of ids may not be that of `<unk>`."""
        known = self.vocabulary.unk_id if self.tokenizer is IDS else len(self.vocabulary)
        return checked_ids(name, ids, known)

    @contextlib.contextmanager
    def reading_unknown_words(self) -> Iterator[None]:
        """Within, <unk> has the mean embedding where training never saw it; afterwards its own again."""
        trained = self._parts()
        if trained.unk_trained:
            yield
            return
        embedding = trained.network.parameters["embedding.weight"]
        own = embedding[-1].copy()
        embedding[-1] = embedding[:-1].mean(axis=0, dtype=np.float64)
        try:
            yield
        finally:
            embedding[-1] = own

    # ---------------------------------------------------------------------------------------------- keeping and loading

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a .safetensors file, or leave the file that was there as it is.

        path  for LanguageModel.load, and for `python -m fastmlp.generate`, `evaluate`, `neighbors` and `map`
        Raises NotTrainedError; CheckpointError where the file cannot be written.

        >>> import tempfile
        >>> model = LanguageModel(context=1, embed=4, hidden=(8,))
        >>> history = model.fit("to be or not to be. " * 50, steps=10)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/be.safetensors")
        ...     again = LanguageModel.load(f"{folder}/be.safetensors")
        >>> again.perplexity("to be") == model.perplexity("to be")
        True
        """
        with self._lock:
            own = {name: value for name in OF_TEXT_AND_SEED if (value := self._options[name]) is not None}
            metadata = {"kind": MODEL, **self.metadata(), "config": own, "fastmlp": __version__}
            checkpoint.save(path, self.network.state_dict(), metadata)

    @classmethod
    def load(cls, run: str | os.PathLike[str], *, threads: int | None = None, backend: str = "auto") -> "LanguageModel":
        """The trained model of a .safetensors file or of a run's folder (its best weights).

        run               what `save`, `fit(out=...)` or `python -m fastmlp.train` wrote
        threads, backend  as for a new model
        Raises ModelError where it cannot be read or is something else; loading runs no code of the file.
        """
        model = load_language_model(run, *_at_work(backend, threads))
        model._options |= {"threads": threads, "backend": backend}
        return model

    def __getstate__(self) -> dict[str, Any]:
        """Plain arrays, names and numbers: what compiled code there is belongs to the machine."""
        with self._lock:
            state: dict[str, Any] = {"options": self._options, "trained": None}
            if self._trained is not None:
                arrays = {name: array.copy() for name, array in self.network.state_dict().items()}
                state["trained"] = arrays, self.metadata()
            return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be that model again, on this machine's back-end."""
        self._set_options(state["options"])
        self._trained = None
        if state["trained"] is not None:
            ops, threads = _at_work(self._options["backend"], self._options["threads"])
            arrays, metadata = state["trained"]
            self._trained = _trained_of(arrays, metadata, ops, threads=threads)

    def metadata(self) -> dict[str, Any]:
        """What a checkpoint must hold, beside the network's arrays, to make this again."""
        shape = self.network.shape
        return {
            "network": {"context": shape.context, "embed": shape.embed, "hidden": list(shape.hidden)},
            "tokenizer": self.tokenizer.name,
            "capitalized": sorted(self.tokenizer.capitalized),
            "vocabulary": list(self.vocabulary.words),
            "unk_trained": self.unk_trained,
        }

    @classmethod
    def from_checkpoint(
        cls, tensors: Mapping[str, Array], metadata: Mapping[str, Any], ops: Ops, *, threads: int = 1
    ) -> "LanguageModel":
        """Make it of what a checkpoint held; other tensors, such as an optimizer's, are left alone.

        Raises ValueError where something is missing or does not fit.
        """
        trained = _trained_of(tensors, metadata, ops, threads=threads)
        model = cls.from_network(
            trained.network, trained.vocabulary, trained.tokenizer, unk_trained=trained.unk_trained
        )
        config = metadata.get("config", {})
        model._options |= {name: config[name] for name in OF_TEXT_AND_SEED if name in config}
        return model


# Their locks: a forked child has but one thread, and another may have held them.
_models: weakref.WeakSet[LanguageModel] = weakref.WeakSet()


def _renew_locks() -> None:
    for model in _models:
        model._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def _unit(vectors: Array) -> Array:
    """The directions of vectors (N, D): each divided by its length; a vector of zeros stays that."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30))


def _read(name: str, read: Callable[[Any], Any], value: Any) -> Any:
    """An argument, or ValueError with its name."""
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _seed(seed: int | None) -> int | None:
    return None if seed is None else _read("seed", whole(0), seed)


def _check_options(options: Mapping[str, Any]) -> None:
    """Raises TypeError for what `fit` does not take."""
    known = TrainingOptions.__annotations__
    for name in options:
        if name in MODEL_OPTIONS:
            raise TypeError(f"fit: {name} is an argument of the model: LanguageModel({name}=...)")
        if name not in known:
            raise TypeError(f"fit: no argument {name}{closest(name, known)}")


def _source(name: str, given: TextOrIds) -> tuple[str, ...] | Text | Array:
    """The files that are meant, or the text, or integers."""
    if isinstance(given, str):
        _refuse_file_name(name, given)
        return text_in_memory(given)
    if isinstance(given, os.PathLike):
        return (os.fsdecode(given),)
    if isinstance(given, list | tuple) and given and all(isinstance(item, str | os.PathLike) for item in given):
        return tuple(map(os.fsdecode, given))
    return _integers(name, given, "a text (str), a file (pathlib.Path), a list of files, or integers")


def _integers(name: str, given: Any, expected: str) -> Array:
    """Integers as an array; TypeError, with what else was expected, for anything but them."""
    if isinstance(given, list | tuple) and not given:
        return np.empty(0, np.int32)
    try:
        array = np.asarray(given)
    except ValueError:  # lists of several lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "iu":
        of = f" of {array.dtype}" if array.ndim else ""
        raise TypeError(f"{name}: expected {expected}; got {type(given).__name__}{of}")
    return array


def _refuse_file_name(name: str, text: str) -> None:
    """Raises ValueError where a str, which is a text, looks as if a file of that name were meant."""
    if len(text) > LONGEST_NAME or not text.strip() or "\n" in text:
        return
    try:
        is_file = Path(text).is_file()
    except (OSError, ValueError):
        is_file = False
    if is_file or (not any(map(str.isspace, text)) and text.endswith((".txt", ".gz"))):
        raise ValueError(
            f"{name}: expected a text, got {text!r}, the name of a file; for what is in it give pathlib.Path({text!r})"
        )


def _at_work(backend: str, threads: int | None) -> tuple[Ops, int]:
    """The back-end's ops and the number of threads; warns where it is not the fastest back-end."""
    chosen = choose_backend(backend)
    if chosen.notice:
        warnings.warn(chosen.notice, stacklevel=3)
    return chosen.ops, default_threads(threads)


def _trained_of(tensors: Mapping[str, Array], metadata: Mapping[str, Any], ops: Ops, *, threads: int) -> Trained:
    """What a checkpoint held. Raises ValueError where something is missing or does not fit."""
    if missing := [key for key in ("network", "tokenizer", "vocabulary", "unk_trained") if key not in metadata]:
        raise ValueError(f"it holds no language model: {', '.join(missing)} missing")
    if metadata["tokenizer"] not in (*TOKENIZERS, IDS.name):
        raise ValueError(f"its tokenizer {metadata['tokenizer']!r} is not known to this fastmlp; upgrade fastmlp")
    vocabulary = Vocabulary(tuple(metadata["vocabulary"]))
    sizes = metadata["network"]
    shape = NetworkShape(len(vocabulary), sizes["context"], sizes["embed"], tuple(sizes["hidden"]))
    names = [*shape.parameters(), *shape.statistics()]
    network = MLP(shape, ops, threads=threads, parameters={name: tensors[name] for name in names if name in tensors})
    tokenizer = get_tokenizer(metadata["tokenizer"], metadata.get("capitalized", ()))
    return Trained(network, vocabulary, tokenizer, metadata["unk_trained"])


def model_file(run: str | os.PathLike[str]) -> Path:
    """The file to read a run's model from: a .safetensors file, or in a folder its best model, else its last one.

    Raises ModelError where there is none.
    """
    path = Path(run)
    if not path.is_dir():
        _refuse_others(path)
        return path
    for name in (MODEL_FILE, LAST_FILE):
        if (path / name).is_file():
            return path / name
    raise ModelError(f"{path}: a folder without {MODEL_FILE}; name a run's folder or a .safetensors file")


def _refuse_others(path: Path) -> None:
    """Raises ModelError for a name that a run nearly has where there is nothing of this one, and for a text."""
    if path.is_file():
        if path.suffix != ".safetensors" and _is_text(path):
            train = f"python -m fastmlp.train {shlex.quote(str(path))}"
            raise ModelError(f"cannot load {path}: it is a text, not a trained model; train on it first: {train}")
    elif not path.exists() and (near := _run_called_like(path)):
        raise ModelError(f"cannot load {path}: there is no such file; did you mean {near}?")


def _is_text(path: Path) -> bool:
    """Whether a file begins as a text does."""
    try:
        with path.open("rb") as file:
            head = "".join(file.read(1_000).decode(errors="ignore").split())
    except OSError:
        return False
    return head.isprintable() and head != ""


def _run_called_like(path: Path) -> Path | None:
    """A folder or model that lies beside a path, or among the runs, and has nearly its name."""
    there: dict[str, Path] = {}
    for folder in (RUNS, path.parent):
        with contextlib.suppress(OSError):
            there |= {file.name: file for file in folder.iterdir() if file.is_dir() or file.suffix == ".safetensors"}
    near = difflib.get_close_matches(path.name, there, n=1)
    return there[near[0]] if near else None


def load_language_model(run: str | os.PathLike[str], ops: Ops, threads: int = 1) -> LanguageModel:
    """The trained model of a run's folder or a .safetensors file, on a back-end that is chosen already.

    Raises ModelError where it cannot be read or is something else.
    """
    path = model_file(run)
    try:
        tensors, metadata = checkpoint.load(path)
        return LanguageModel.from_checkpoint(tensors, metadata, ops, threads=threads)
    except CheckpointError as error:
        raise ModelError(str(error)) from error
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error
