"""The language model as a library: train it on a text, generate, predict the next word, evaluate other texts.

The file is long because the docstrings of its one class are a manual.

    from fastmlp import LanguageModel

    model = LanguageModel(hidden=(300, 300))
    history = model.fit(Path("hp.txt"), steps=2_000)
    print(model.generate("harry potter and the"))

The trainer and the commands read and write the same files.
"""

import contextlib
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Never, Unpack, overload

import numpy as np

from fastmlp import __version__
from fastmlp.config import (
    MODEL_OPTIONS,
    NETWORK_OPTIONS,
    TrainConfig,
    TrainingOptions,
    check_model_options,
    check_training_options,
)
from fastmlp.data.given import Ids, TextOrIds, source_of
from fastmlp.distributed.group import Group
from fastmlp.errors import ModelError, NotTrainedError
from fastmlp.events import Reporter, Warnings
from fastmlp.files import checkpoint
from fastmlp.files.run_folder import mixture_file, model_file
from fastmlp.network.network import Network
from fastmlp.network.shape import NetworkShape
from fastmlp.ops import Ops
from fastmlp.ops import backend as backends
from fastmlp.options import FEWEST_ON_MAP, TEMPERATURE, ConfigError, picture, read_argument, whole
from fastmlp.pictures.table import html_table
from fastmlp.pictures.word_map import draw_words, plot_words
from fastmlp.prediction.evaluation import Evaluation
from fastmlp.prediction.mixture import IDS as COUNTED
from fastmlp.prediction.mixture import MIXTURE, WRITERS, Mixture, load_mixture, predictor_of, shares_of_next_words
from fastmlp.prediction.neural import MODEL, NeuralModel, load_errors
from fastmlp.prediction.requests import checked, evaluated, generated, ids_of, next_words
from fastmlp.prediction.similarity import nearest, word_id, words_on_map
from fastmlp.text.tokenizer import Tokenizer
from fastmlp.text.vocabulary import Vocabulary
from fastmlp.text.words import IDS
from fastmlp.threads import default_threads
from fastmlp.training.bar import Bar, shows_bar
from fastmlp.training.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastmlp.training.ranks import Leader
    from fastmlp.web.widget import Widget

__all__ = ["LanguageModel", "ModelError", "NotTrainedError", "load_language_model"]

Array = np.ndarray
Chosen = bool | str | Sequence[str]  # what of a mixture is to predict
OF_TEXT_AND_SEED = ("vocab_size", "min_count", "seed")  # arguments of a model that its network does not store


class LanguageModel:
    """The neural language model of Bengio et al. (2003) with batch normalization, on words or on numbers.

    Train it with `fit`, or read it from a file or a run's folder with `LanguageModel.load`; then generate, evaluate and
    find neighbors. A pickled or copied model gives the same bits. Several Python threads may use one model: calls that
    need its network wait for each other. A forked child may use it and train it.

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
        context: int | None = None,
        embed: int | None = None,
        hidden: int | Sequence[int] | None = None,
        averages: Sequence[float] | None = None,
        reach: int | None = None,
        blocks: int | None = None,
        residual: bool | None = None,
        activation: str | None = None,
        projection: bool | None = None,
        tied: bool | None = None,
        dropout: float | Sequence[float] | None = None,
        tokenizer: str = "words",
        vocab_size: int | None = None,
        min_count: int = 1,
        seed: int = 1,
        threads: int | None = None,
        backend: str = "auto",
        **unknown: Never,
    ) -> None:
        """Make an untrained model; defaults are those of `python -m fastmlp.train`.

        context     words just before that are looked at to guess the next (5)
        embed       width of the embedding of a word (128)
        hidden      width of the hidden layers (512); or a list of widths, the original's network: then all that is not
                    said is the original's too, context 4, embed 30, tanh, and nothing of what follows
        averages    decays of the averages of the words further back (0.7, 0.9, 0.98); () for none
        reach       how many words these are made of (200)
        blocks      hidden layers after the first (1), `residual` whether each is added to its input (True)
        activation  "gelu", "tanh", "relu"
        projection  whether a layer of width `embed` precedes the output (True)
        tied        whether the output layer has the embedding's weights (True)
        dropout     shares left out in training: of the input, of hidden layers, before the output; by the passes over
                    the text
        tokenizer   how a text becomes words: "words" (lower case; '.' is a word), "prose" (capitals, punctuation and
                    paragraphs), "whitespace" (tokenized already)
        vocab_size  size of the vocabulary: the most frequent words and `<unk>`; None: all words. For ids: all are below
                    it; the network has one row more, for the places before the first id
        min_count   words that come less often become `<unk>`
        seed        of the initial weights, and of the windows that are trained on
        threads     threads to work with; None: FASTMLP_NUM_THREADS, or all this process may use
        backend     "cython", "numba", "numpy"; "auto": cython where it is built, else numba with a warning
        Raises ConfigError, a ValueError, which names the argument; TypeError for another argument.
        """
        check_model_options(unknown)
        network = (context, embed, hidden, averages, reach, blocks, residual, activation, projection, tied, dropout)
        given = (*network, tokenizer, vocab_size, min_count, seed, threads, backend)
        self._set_options(dict(zip(MODEL_OPTIONS, given, strict=True)))
        self._trained: Mixture | None = None  # its network, and what was counted beside it

    def _set_options(self, options: Mapping[str, Any]) -> None:
        """Store the arguments of a new model, converted as a run's configuration converts them."""
        default, config = TrainConfig(), TrainConfig(**options)
        for name, value in options.items():
            if value is None and name not in NETWORK_OPTIONS and (usual := getattr(default, name)) is not None:
                raise ConfigError(name, f"expected a value, such as {usual!r}, got None")
        self._options = {name: getattr(config, name) for name in MODEL_OPTIONS}
        self._lock = threading.RLock()  # held while the network computes: its buffers serve one call at a time
        _models.add(self)

    @classmethod
    def from_network(
        cls, network: Network, vocabulary: Vocabulary, tokenizer: Tokenizer, *, unk_trained: bool
    ) -> "LanguageModel":
        """Make a model from an existing network.

        unk_trained  whether training saw `<unk>`, so that its embedding means something
        """
        return cls.of(NeuralModel(network, vocabulary, tokenizer, unk_trained))

    @classmethod
    def of(cls, trained: NeuralModel) -> "LanguageModel":
        """Make a model from a trained network, with the arguments that would have made that network."""
        network, shape, ids = trained.network, trained.network.shape, trained.tokenizer is IDS
        model = cls(
            **_options_of(shape),
            threads=network.threads,
            backend=network.ops.backend,
            **({"vocab_size": trained.vocabulary.unk_id} if ids else {"tokenizer": trained.tokenizer.name}),
        )
        model._trained = Mixture(trained)
        return model

    # ----------------------------------------------------------------------------------------------- what it is made of

    def _whole(self) -> Mixture:
        if self._trained is None:
            raise NotTrainedError("this LanguageModel is not trained: call its fit, or LanguageModel.load")
        return self._trained

    def _parts(self) -> NeuralModel:
        return self._whole().neural()

    @property
    def network(self) -> Network:
        """The network; `network.parameters` are NumPy arrays by name. Raises NotTrainedError before there is one."""
        return self._parts().network

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary; for a model of ids the numbers as words. Raises NotTrainedError before training."""
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
        default = TrainConfig(hidden=self._options["hidden"])
        shown = {
            name: value
            for name, value in self._options.items()
            if value is not None and (name in always or value != getattr(default, name))
        }
        arguments = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        if self._trained is None:
            return f"LanguageModel({arguments}): not trained"
        trained = self._parts()
        kind, words = ("ids" if trained.tokenizer is IDS else "words"), len(trained.vocabulary) - 1
        parameters = trained.network.parameter_count()
        return f"LanguageModel({arguments}): {words:,} {kind}, {parameters:,} parameters"

    def _repr_html_(self) -> str:
        """The same as a table, for notebooks."""
        shown: dict[str, object] = {name: value for name, value in self._options.items() if value is not None}
        if self._trained is None:
            return html_table("LanguageModel: not trained", shown)
        trained = self._parts()
        of_model = {
            "words" if trained.tokenizer is not IDS else "ids": f"{len(trained.vocabulary) - 1:,}",
            "parameters": f"{trained.network.parameter_count():,}",
            "predicts by": ", ".join(self._trained.names),
        }
        return html_table("LanguageModel", of_model | shown)

    # --------------------------------------------------------------------------------------------------------- training

    def fit(
        self,
        text: TextOrIds,
        *,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        reporter: Reporter | None = None,
        progress: bool | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        group: Group | None = None,
        **options: Unpack[TrainingOptions],
    ) -> History:
        """Train on a text from new weights and keep the best weights; on any failure the model stays unchanged.

        text         the text itself (str); a pathlib.Path or a list of paths: files in UTF-8, EPUB, HTML, packed or
                     not, folders with such files; or ids (N,), integers of any type and layout, 0 <= id < vocab_size
        out          a folder for the files that `python -m fastmlp.train` writes; None: nothing is written
        resume       go on with the run in that folder
        overwrite    replace the run in that folder
        reporter     is told what happens, such as the console of `with fastmlp.console.Console(bar=True) as console`,
                     which prints what the command does; None: what should be known is told as warnings, beside a
                     progress bar
        progress     whether there is such a bar; None: on a terminal and in a notebook
        should_stop  asked before each step, and while the held-out words are guessed at the end; training ends there
                     if it says so
        group        ranks that share the words out (fastmlp.distributed), each of which calls `fit` with the same
                     arguments. Rank 0 reads the text, reports, keeps the run and has the trained model; the models of
                     the others stay as they are. All return the same losses
        options      how to train, each None or left out: the default of the command
            preset                                "small", "large", "original" (batches of 32, SGD)
            steps, epochs, minutes                how long: one of them (by the text's length)
            batch_size                            rows of a step (by the text's length)
            optimizer                             "adamw", "sgd", "momentum", "adagrad"
            lr, schedule, warmup                  highest learning rate (adamw 0.005, sgd 0.1, others 0.02); "linear",
                                                  "cosine", "step", "constant"; steps until it is reached
            momentum, betas, weight_decay         of the optimizer
            val_fraction, test_fraction, val_file what is held out of the text (0.05, 0), or a file instead
            keep_licence, rules                   whether to keep what Project Gutenberg puts around a book (False); the
                                                  rules of reading a text and splitting it into words (2, the newest)
            embed_std, output_bias                the start: spread of the embedding (0.02), "frequencies" or "zero"
            eval_every, eval_windows, log_every   steps between measurements, by the run's length; words of a validation
                                                  (8,192)
            patience                              worse validations in a row after which it stops (6); 0: never
            counts, order                         whether n-grams are counted too (True), and up to which length (5)
            sample_every, prompt                  the samples that are told to the reporter
            save_every                            steps between checkpoints; needs `out`
            precision                             of the products: "auto", "ieee", "bf16x3", "bf16"
        Returns the losses by step.
        Raises TextError, ConfigError, TypeError, ValueError or IndexError for unusable arguments, with the argument's
        name, what was expected and what came; DivergedError where the loss becomes infinite or NaN; with `out`
        RunFolderError and CheckpointError for what cannot be written.

        >>> history = LanguageModel(context=1, embed=2, hidden=(4,)).fit("to be or not to be. " * 50, steps=10)
        >>> len(history.losses), history.steps.tolist()
        (2, [0, 10])
        >>> LanguageModel().fit("to be or not to be.", stepz=10)
        Traceback (most recent call last):
        TypeError: fit: no argument stepz; did you mean 'steps'?
        """
        from fastmlp.trainer import open_run, run_in_memory  # imported late: this class alone needs no trainer
        from fastmlp.training.ranks import followed, leading

        check_training_options(options)
        for name, given in (("resume", resume), ("overwrite", overwrite), ("save_every", options.get("save_every"))):
            if given and out is None:
                raise ValueError(f"{name}: expected a folder beside it, as in fit(..., out='runs/hp'), got none")
        source = source_of("text", text)
        files, in_memory = (source, None) if isinstance(source, tuple) else ((), source)
        own = {**self._options, "files": files, "out": None if out is None else os.fspath(out)}
        config = TrainConfig.layered(own, dict(options))
        shared = group is not None and group.size > 1
        with contextlib.ExitStack() as stack:
            leader: Leader | None = None  # of the other ranks
            if group is not None and shared:
                arguments = {**own, **options}, in_memory
                if group.rank:
                    followed(group, *arguments)
                    history: History = group.share(None)[0]
                    return history
                leader = stack.enter_context(leading(group, *arguments))
            if reporter is None:
                reporter = stack.enter_context(Bar()) if shows_bar(progress) else Warnings()
            if out is None:
                run = run_in_memory(config, text=in_memory, reporter=reporter, leader=leader)
            else:
                resumed = {"resume": resume, "overwrite": overwrite}
                opened = open_run(config, text=in_memory, reporter=reporter, leader=leader, **resumed)
                run = stack.enter_context(opened)
            result = run.train(should_stop)
            lines, trained = run.metrics_lines(), run.mixture()
        with self._lock:
            self._trained = trained
        history = History.of(lines, result)
        if group is not None and shared:
            group.share(history)
        return history

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
        mixture: Chosen = ...,
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
        mixture: Chosen = ...,
        seed: int | np.random.Generator | None = ...,
    ) -> Array: ...

    def generate(
        self,
        prompt: str | Ids = "",
        words: int = 30,
        *,
        temperature: float = TEMPERATURE,
        top_k: int | None = None,
        top_p: float | None = None,
        mixture: Chosen = WRITERS,
        seed: int | np.random.Generator | None = None,
    ) -> str | Array:
        """Return the prompt and more words, each drawn from the model's predictions; never `<unk>`.

        prompt       what the text begins with; ids (N,) for ids
        words        how many words to add
        temperature  below 1 likely words become likelier, above 1 less so; 0 takes the likeliest
        top_k        draw from the k likeliest words
        top_p        draw from the fewest words that together have this probability
        mixture      some of "network", "counts", "cache"; True: all that the model has; False: the network alone. A
                     cache that hears its own words says them again and again, so it is left out unless asked for
        seed         makes the same text each time, the first of `python -m fastmlp.generate --seed`; or a generator of
                     random numbers to use; None: another text each time
        Returns a text, or for ids an int32 array (N + words,). Warns of words that the vocabulary lacks, which are read
        as `<unk>`. Raises NotTrainedError, ValueError, or for ids TypeError or IndexError.

        >>> model = LanguageModel(context=1, embed=4, hidden=(8,))
        >>> history = model.fit("to be or not to be. " * 50, steps=100, batch_size=16)
        >>> model.generate("not", 2, temperature=0)
        'not to be'
        """
        with self._lock:
            model = self._predictor(mixture)
            return generated(model, prompt, words, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)

    @overload
    def next_word(self, prompt: str, k: int | None = ..., *, mixture: Chosen = ...) -> list[tuple[str, float]]: ...

    @overload
    def next_word(self, prompt: Ids, k: int | None = ..., *, mixture: Chosen = ...) -> list[tuple[int, float]]: ...

    def next_word(
        self, prompt: str | Ids, k: int | None = 10, *, mixture: Chosen = True
    ) -> list[tuple[str, float]] | list[tuple[int, float]]:
        """Return the likeliest next words with their probabilities, the likeliest first.

        prompt   the words before; ids (N,) for ids
        k        how many words; None: all
        mixture  as in `generate`
        `<unk>` is left out, and all other probabilities add up to 1. Warns of words that the vocabulary lacks. Raises
        NotTrainedError, ValueError, or for ids TypeError or IndexError.

        >>> model = LanguageModel(context=1, embed=4, hidden=(8,))
        >>> history = model.fit("to be or not to be. " * 50, steps=200, batch_size=16, lr=0.02)
        >>> [(word, round(probability, 1)) for word, probability in model.next_word("not", k=1)]
        [('to', 1.0)]
        """
        with self._lock:
            likeliest, names = next_words(self._predictor(mixture), prompt, k), self.vocabulary.words
        if isinstance(prompt, str):
            return [(names[word], probability) for word, probability in likeliest]
        return likeliest

    def next_word_by_predictor(self, prompt: str | Ids, k: int | None = 10) -> list[tuple[str | int, dict[str, float]]]:
        """Return the likeliest next words, each with the part of its probability that every predictor gives it.

        prompt, k  as in `next_word`, whose probabilities are the sums
        Raises as `next_word`.

        >>> model = LanguageModel(embed=8, hidden=16)
        >>> history = model.fit("to be or not to be. " * 50, steps=50)
        >>> [(word, parts)] = model.next_word_by_predictor("or not", k=1)
        >>> word, sorted(parts)
        ('to', ['cache', 'counts', 'network'])
        """
        with self._lock:
            likeliest = shares_of_next_words(self._predictor(True), prompt, k)
            names = self.vocabulary.words
        return [(names[word] if isinstance(prompt, str) else word, parts) for word, parts in likeliest]

    def evaluate(self, text: TextOrIds, *, mixture: Chosen = True) -> Evaluation:
        """Return the loss and perplexity of a text.

        text     as in `fit`; ids are those of its vocabulary
        mixture  as in `generate`; with the cache the model adapts to the text as it reads it
        Words outside the vocabulary are left out and counted.
        Raises NotTrainedError; TextError for a text without known words; otherwise as `fit`.

        >>> model = LanguageModel(context=1, embed=4, hidden=(8,))
        >>> history = model.fit("to be or not to be. " * 50, steps=100, batch_size=16)
        >>> found = model.evaluate("to be a cat.")
        >>> found.words, found.unknown
        (3, 2)
        """
        with self._lock:
            return evaluated(self._predictor(mixture), text)

    def perplexity(self, text: TextOrIds, *, mixture: Chosen = True) -> float:
        """Return exp of the mean loss in nats: among how many equally likely words the model hesitates.

        text     as in `fit`; words that the vocabulary lacks are left out: `evaluate` counts them
        mixture  as in `generate`. By default it is the perplexity of all that the model has: of network, counts and
                 cache together, where there are counts. `mixture=False` is that of the network alone.
        Raises as `evaluate`.

        >>> model = LanguageModel(context=1, embed=4, hidden=(8,))
        >>> history = model.fit("to be or not to be. " * 50, steps=200, batch_size=16, lr=0.02)
        >>> 1 < model.perplexity("to be or not to be.") < 1.5
        True
        """
        return self.evaluate(text, mixture=mixture).perplexity

    def log_probability(self, text: TextOrIds, *, mixture: Chosen = True) -> list[tuple[str, float]]:
        """Return each word of a text with the logarithm of its probability, in nats, after the words before it.

        text     as in `fit`; ids are those of the vocabulary, and come as its words
        mixture  as in `generate`
        A word that the vocabulary lacks is "<unk>" with NaN, as its probability means nothing. The mean of the others,
        negative, is the loss of `evaluate`. Raises NotTrainedError; otherwise as `fit`.

        >>> model = LanguageModel(context=1, embed=4, hidden=(8,))
        >>> history = model.fit("to be or not to be. " * 50, steps=200, batch_size=16, lr=0.02)
        >>> [(word, round(number, 1)) for word, number in model.log_probability("not to cat")[1:]]
        [('to', -0.0), ('<unk>', nan)]
        """
        with self._lock:
            model = self._predictor(mixture)
            ids = ids_of(model, "text", text)
            numbers = np.where(ids == self.vocabulary.unk_id, np.nan, model.log_probabilities(ids, ids[:0]))
            return list(zip(self.vocabulary.decode(ids), numbers.tolist(), strict=True))

    @overload
    def neighbors(self, word: str, k: int | None = ...) -> list[tuple[str, float]]: ...

    @overload
    def neighbors(self, word: int, k: int | None = ...) -> list[tuple[int, float]]: ...

    @overload
    def neighbors(self, word: list[str] | tuple[str, ...], k: int | None = ...) -> list[list[tuple[str, float]]]: ...

    @overload
    def neighbors(
        self, word: list[int] | tuple[int, ...] | Array, k: int | None = ...
    ) -> list[list[tuple[int, float]]]: ...

    def neighbors(self, word: Any, k: int | None = 10) -> Any:
        """Return the words that are used most like a word, without the word itself and `<unk>`.

        word  of the vocabulary; or its id; or a list of words or ids: a list of their lists comes back
        k     how many words; None: all
        Returns words, or ids, with the cosines in [-1, 1] of their embeddings in the output layer, the nearest first.
        Those of a word that came rarely are chance: `times_seen` says how often it came. Raises NotTrainedError,
        TextError for a word that the vocabulary lacks, IndexError for such an id.

        >>> model = LanguageModel(context=1, embed=4, hidden=(8,))
        >>> history = model.fit("to be or not to be. " * 50, steps=100, batch_size=16)
        >>> sorted(word for word, cosine in model.neighbors("to", k=None))
        ['.', 'be', 'not', 'or']
        >>> [len(near) for near in model.neighbors(["to", "be"], k=3)]
        [3, 3]
        """
        count = None if k is None else read_argument("k", whole(1), k)
        several = isinstance(word, list | tuple | Array) and np.ndim(word) > 0
        with self._lock:
            names, given = self.vocabulary.words, word if several else [word]
            lists = nearest(self._parts(), [self._known_word(one) for one in given], count)
        found = [
            [(names[i] if isinstance(one, str) else i, cosine) for i, cosine in near]
            for one, near in zip(given, lists, strict=True)
        ]
        return found if several else found[0]

    def times_seen(self, word: str | int) -> int | None:
        """Return how often a word came in the text that was trained on; None: the model has no counts.

        word  of the vocabulary; or its id
        Raises as `neighbors`.

        >>> model = LanguageModel(embed=4, hidden=8)
        >>> history = model.fit("to be or not to be. " * 50, steps=1, val_fraction=0.1)
        >>> model.times_seen("to"), model.times_seen("or")
        (90, 45)
        """
        with self._lock:
            ids, own = self._whole().tensors().get(COUNTED), self._known_word(word)
        return None if ids is None else int(np.count_nonzero(ids == own))

    def plot_words(
        self, path: str | os.PathLike[str] | None = None, n: int = 200, *, title: str = "language model"
    ) -> "Figure":
        """Draw the most frequent words in two dimensions, where words that are used alike lie together.

        path   where to write it, a file that ends in .png or .svg; None: nowhere
        n      number of words, without punctuation; a word whose label has no room is a dot
        title  of the figure, one line of plain text
        The dimensions are the principal components of the words' embeddings in the output layer, each of length 1.
        Returns matplotlib's Figure, which needs no display. Raises NotTrainedError, ModelError for a model without
        words or with too few, ValueError, or CheckpointError where the file cannot be written.

        >>> model = LanguageModel(context=1, embed=4, hidden=(8,))
        >>> history = model.fit("to be or not to be. " * 50, steps=10)
        >>> figure = model.plot_words(title="Hamlet")
        >>> figure.axes[0].get_title()
        'Hamlet: the 4 most frequent words'
        """
        count = read_argument("n", whole(FEWEST_ON_MAP), n)
        file = None if path is None else read_argument("path", picture, path)
        with self._lock:
            words, vectors = words_on_map(self._parts(), count)
        headline = f"{title}: the {len(words):,} most frequent words"
        if file is None:
            return draw_words(words, vectors, headline)
        return plot_words(words, vectors, file, title=headline)

    def play(self) -> "Widget":
        """Show a page in a notebook: write with the next words as bars, and see which words of a text are surprising.

        Returns the widget, which the notebook shows; a model that is trained again meanwhile answers as it is then.
        `python -m fastmlp.play` has more, in the browser. Raises NotTrainedError, and ImportError where what
        `pip install 'fastmlp[play]'` installs is missing.
        """
        self._whole()
        try:
            from fastmlp.web.widget import Widget
        except ModuleNotFoundError as error:
            raise ImportError(
                f"the page needs {error.name}, which is not installed: pip install 'fastmlp[play]'"
            ) from error
        return Widget(self._whole, self._lock, repr(self))

    def _predictor(self, mixture: Chosen) -> Mixture:
        """Return what `mixture=` asks for."""
        whole = self._whole()
        if isinstance(mixture, bool):
            return whole if mixture else whole.only("network")
        if mixture is WRITERS:
            return whole.only(*WRITERS)
        names = (mixture,) if isinstance(mixture, str) else tuple(mixture)
        if not names or (missing := [name for name in names if name not in whole.names]):
            got = ", ".join(map(repr, missing)) if names else "nothing"
            raise ValueError(f"mixture: expected some of {', '.join(whole.names)}, which this model has, got {got}")
        return whole.only(*names)

    def _known_word(self, word: str | int) -> int:
        """Return the id of a word; raise an error if the vocabulary lacks it."""
        if not isinstance(word, str):
            if not isinstance(word, int | np.integer):
                raise TypeError(f"word: expected a word or its id, got {word!r}")
            return int(checked(self._parts(), "word", np.array([word]))[0])
        return word_id(self._parts(), word)

    # ---------------------------------------------------------------------------------------------- keeping and loading

    def save(self, path: str | os.PathLike[str], *, counts: bool = True) -> None:
        """Write the model to a .safetensors file; on failure an existing file stays as it is.

        path    for LanguageModel.load, and for `python -m fastmlp.generate`, `evaluate`, `neighbors` and `map`
        counts  whether the file has the counts, if there are any: it then holds the training text, as ids, 2 bytes a
                word (4 for more than 65,536 different words), and who has the file can read the text
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
            tensors, metadata = self._checkpoint(counts=counts)
            checkpoint.save(path, tensors, {"kind": MODEL, **metadata, "config": own, "fastmlp": __version__})

    def _checkpoint(self, *, counts: bool) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return the arrays of the model, not copied, and its metadata."""
        whole, tensors, metadata = self._whole(), self._parts().tensors(), self._parts().metadata()
        if not counts:
            whole = whole.without_counts()
        if whole.names != ("network",):
            tensors |= whole.tensors()
            metadata[MIXTURE] = whole.metadata()
        return tensors, metadata

    @classmethod
    def load(cls, run: str | os.PathLike[str], *, threads: int | None = None, backend: str = "auto") -> "LanguageModel":
        """Load the model of a .safetensors file or of a run's folder (its best weights).

        run               what `save`, `fit(out=...)` or `python -m fastmlp.train` wrote
        threads, backend  as for a new model
        Raises ModelError if it cannot be read or is no model; loading runs no code of the file.
        """
        model = load_language_model(run, *_ops_and_threads(backend, threads))
        if (beside := mixture_file(run)) is not None:
            model._trained = load_mixture(beside, model._parts())
        model._options |= {"threads": threads, "backend": backend}
        return model

    def __getstate__(self) -> dict[str, Any]:
        """Return plain arrays, names and numbers; compiled code stays on this machine."""
        with self._lock:
            state: dict[str, Any] = {"options": self._options, "trained": None}
            if self._trained is not None:
                tensors, metadata = self._checkpoint(counts=True)
                state["trained"] = {name: array.copy() for name, array in tensors.items()}, metadata
            return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the model on this machine's back-end."""
        self._set_options(state["options"])
        self._trained = None
        if state["trained"] is not None:
            ops, threads = _ops_and_threads(self._options["backend"], self._options["threads"])
            arrays, metadata = state["trained"]
            self._trained = predictor_of(arrays, metadata, ops, threads=threads)

    def metadata(self) -> dict[str, Any]:
        """Return the metadata that a checkpoint needs beside the network's arrays."""
        parts = self._parts()
        words = {"vocabulary": list(parts.vocabulary.words), "capitalized": sorted(parts.tokenizer.capitalized)}
        return {**parts.metadata(), **words}

    @classmethod
    def from_checkpoint(
        cls, tensors: Mapping[str, Array], metadata: Mapping[str, Any], ops: Ops, *, threads: int = 1
    ) -> "LanguageModel":
        """Restore a model from a checkpoint; other tensors, such as an optimizer's, are ignored.

        Raises ValueError where something is missing or does not fit.
        """
        trained = predictor_of(tensors, metadata, ops, threads=threads)
        model = cls.of(trained.neural())
        model._trained = trained
        config = metadata.get("config", {})
        model._options |= {name: config[name] for name in OF_TEXT_AND_SEED if name in config}
        return model


# A forked child renews their locks: a thread that the child does not have may have held them.
_models: weakref.WeakSet[LanguageModel] = weakref.WeakSet()


def _renew_locks() -> None:
    for model in _models:
        model._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def _options_of(shape: NetworkShape) -> dict[str, Any]:
    """The arguments of a model with this network."""
    of_before = NetworkShape(shape.vocabulary, shape.context, shape.embed, shape.hidden) == shape
    hidden = shape.hidden if of_before or len(shape.hidden) > 1 else shape.hidden[0]
    return {name: getattr(shape, name) for name in NETWORK_OPTIONS} | {"hidden": hidden}


def _ops_and_threads(backend: str, threads: int | None) -> tuple[Ops, int]:
    """Return the back-end's ops and the number of threads; warn if the back-end is not the fastest."""
    chosen = backends.choose_backend(backend)
    if chosen.notice:
        warnings.warn(chosen.notice, stacklevel=3)
    return chosen.ops, default_threads(threads)


def load_language_model(run: str | os.PathLike[str], ops: Ops, threads: int = 1) -> LanguageModel:
    """Load the model of a run's folder, without its counts, or of a .safetensors file, for the given ops.

    Raises ModelError if it cannot be read or is no model.
    """
    path = model_file(run)
    with load_errors(path):
        return LanguageModel.from_checkpoint(*checkpoint.load(path), ops, threads=threads)
