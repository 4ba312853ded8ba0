"""Kneser-Ney: a language model of counted n-grams, interpolated, with modified discounts (Chen & Goodman, 1999)."""

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import NamedTuple, overload

import numpy as np

from fastmlp import __version__
from fastmlp.data.corpus import checked_ids
from fastmlp.data.given import Ids, TextOrIds, source_of
from fastmlp.errors import NotTrainedError, TextError
from fastmlp.files import checkpoint
from fastmlp.files.atomic import write_atomically
from fastmlp.options import TEMPERATURE, choice, read_argument, whole
from fastmlp.prediction.arpa import LEAST, arpa_bytes, read_arpa
from fastmlp.prediction.evaluation import Evaluation
from fastmlp.prediction.neural import load_errors, word_tensors, words_of
from fastmlp.prediction.ngram import BackoffCursor, BackoffModel, Level
from fastmlp.prediction.ngram_counts import count_ngrams
from fastmlp.prediction.predictor import Watch
from fastmlp.prediction.requests import evaluated, generated, ids_of, next_words
from fastmlp.text.reading import read_text
from fastmlp.text.tokenizer import Tokenizer
from fastmlp.text.vocabulary import Vocabulary
from fastmlp.text.words import IDS, TOKENIZERS, get_tokenizer

__all__ = ["KneserNey", "discounts", "estimate"]

Array = np.ndarray
KIND = "kneser-ney"  # what its files state
HIGHEST_ORDER = 8
FALLBACK = (0.5, 1.0, 1.5)  # discounts where the text is too short to estimate them, as in KenLM
BLOCK = 1 << 16  # words whose probabilities are computed at once


class _Parts(NamedTuple):
    """What a fitted model is made of; `ids` is the training text, None for a model that was read from an ARPA file."""

    model: BackoffModel
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    unk_trained: bool
    ids: Array | None


class KneserNey:
    """Interpolated modified Kneser-Ney: a language model that is fitted in a second, by counting.

    The text is one stream of words: contexts go on over the ends of sentences, and are shorter at the text's beginning.
    A fitted model is a `Predictor`. It is never changed, so that several threads may use it at once.

    >>> from fastmlp import KneserNey
    >>> model = KneserNey(order=3).fit("the cat sat on the mat. the dog lay on the rug. " * 100)
    >>> model.generate("the cat", words=3, temperature=0)
    'the cat sat on the'
    >>> model.next_word("the dog", k=1)[0][0]
    'lay'
    >>> model.perplexity("the dog lay on the mat.") < 3
    True
    >>> model
    KneserNey(order=3): 9 words, 36 n-grams

    Numbers instead of words:

    >>> KneserNey(order=2).fit([0, 1, 2, 3, 4] * 200).generate([0, 1], words=4, temperature=0)
    array([0, 1, 2, 3, 4, 0], dtype=int32)
    """

    def __init__(
        self, order: int = 5, *, tokenizer: str = "words", vocab_size: int | None = None, min_count: int = 1
    ) -> None:
        """Make a model to fit.

        order       words of the longest n-grams, 1 to 8: contexts have one less
        tokenizer   how a text becomes words: "words", "prose" or "whitespace", as for a LanguageModel
        vocab_size  size of the vocabulary: the most frequent words and `<unk>`; None: all words. For ids: all are below
                    it; None: the highest and those below it
        min_count   words that come less often become `<unk>`
        Raises ValueError, which names the argument.
        """
        self.order: int = read_argument("order", whole(1, HIGHEST_ORDER), order)
        self._tokenizer: str = read_argument("tokenizer", choice(tuple(TOKENIZERS)), tokenizer)
        self._vocab_size = None if vocab_size is None else read_argument("vocab_size", whole(1), vocab_size)
        self._min_count = read_argument("min_count", whole(1), min_count)
        self._fitted: _Parts | None = None

    @classmethod
    def of(cls, ids: Array, vocabulary: Vocabulary, tokenizer: Tokenizer, *, order: int = 5) -> "KneserNey":
        """Fit a model to a text that is encoded already.

        ids         (N,)  in: the training text, at least one word, 0 <= id < len(vocabulary)
        vocabulary        the words of the ids
        tokenizer         how a text becomes words
        order             as for a new model
        Raises TextError for no ids; TypeError, ValueError or IndexError for ids or an order that cannot be used.
        """
        model = cls(order)
        ids = checked_ids("ids", np.asarray(ids), len(vocabulary))
        if not len(ids):
            raise TextError("the text has no words; name a longer text")
        counted = estimate(ids, len(vocabulary), model.order)
        return model._with(_Parts(counted, vocabulary, tokenizer, bool((ids == vocabulary.unk_id).any()), _narrow(ids)))

    def fit(self, text: TextOrIds) -> "KneserNey":
        """Count the n-grams of a text and return the model itself; on any failure it stays unchanged.

        text  the text itself (str); a pathlib.Path or a list of paths: files in UTF-8, folders (their *.txt), .gz; or
              ids (N,), integers of any type and layout
        Raises TextError, TypeError, ValueError or IndexError for what cannot be counted.
        Memory: 30 bytes for each word and for each different n-gram of any length; of novels at order 5 about 110 bytes
        a word, of which the model keeps half.

        >>> KneserNey().fit("")
        Traceback (most recent call last):
        fastmlp.errors.TextError: the text has no words, only punctuation or white space; name a text with words in it
        """
        tokenizer: Tokenizer
        source = source_of("text", text)
        if isinstance(source, Array):
            if self._min_count > 1:
                raise ValueError(f"min_count: expected 1, since ids are counted, got {self._min_count}")
            vocabulary = Vocabulary.of_ids(self._vocab_size or max(0, int(source.max(initial=0))) + 1)
            tokenizer, ids = IDS, checked_ids("text", source, vocabulary.unk_id)
        else:
            read = read_text(source) if isinstance(source, tuple) else source
            for notice in read.notices:
                warnings.warn(notice, stacklevel=2)
            tokenizer, words = get_tokenizer(self._tokenizer).fit(read.text)
            vocabulary = Vocabulary.from_words(words, max_size=self._vocab_size, min_count=self._min_count)
            ids = vocabulary.encode(words)
        return self._with(KneserNey.of(ids, vocabulary, tokenizer, order=self.order)._parts())

    def _with(self, parts: _Parts) -> "KneserNey":
        self._fitted = parts
        return self

    def _parts(self) -> _Parts:
        if self._fitted is None:
            raise NotTrainedError("this KneserNey is not fitted: call its fit, or KneserNey.load")
        return self._fitted

    @property
    def vocabulary(self) -> Vocabulary:
        """The words of the ids, `<unk>` the last one. Raises NotTrainedError before `fit`, as all that follows."""
        return self._parts().vocabulary

    @property
    def tokenizer(self) -> Tokenizer:
        """How a text becomes words."""
        return self._parts().tokenizer

    @property
    def unk_trained(self) -> bool:
        """Whether the training text had words outside the vocabulary."""
        return self._parts().unk_trained

    @property
    def training_ids(self) -> Array | None:
        """The training text (N,), uint16 or int32, to store and to fit the model anew; None: it is of an ARPA file."""
        return self._parts().ids

    def __repr__(self) -> str:
        if self._fitted is None:
            return f"KneserNey(order={self.order}): not fitted"
        kind, ngrams = ("ids" if self.tokenizer is IDS else "words"), sum(len(e.key) for e in self._fitted.model.levels)
        return f"KneserNey(order={self.order}): {len(self.vocabulary) - 1:,} {kind}, {ngrams:,} n-grams"

    # -------------------------------------------------------------------------------------------------------- using it

    def log_probabilities(
        self, text: TextOrIds, before: Sequence[int] | Array = (), *, watch: Watch | None = None
    ) -> Array:
        """Return the log-probability of each word of a text from the words before it, (N,) in nats, float32.

        text          as in `fit`; ids are those of the vocabulary
        before  (M,)  ids of the words before the text; empty: the text begins here
        watch         is called with the number of words just done; an exception that it raises ends the work
        Raises as `fit`.

        >>> model = KneserNey(order=2).fit("a b a b a b a c")
        >>> [round(float(number), 2) for number in model.log_probabilities("a b")]
        [-0.98, -0.69]
        """
        parts = self._parts()
        return _by_block(parts.model.log_probabilities, *self._text(text, before), parts.model.order - 1, watch)

    def context_counts(
        self, text: TextOrIds, before: Sequence[int] | Array = (), *, length: int | None = None
    ) -> Array:
        """Return how often the words before each word of a text come in the training text, (N,), int32.

        text, before  as in `log_probabilities`
        length        how many words before, 0 to order - 1; None: order - 1
        0 for words that never came together, and where the text has fewer before.
        Raises ModelError for a model from an ARPA file, which holds no counts; otherwise as `fit`.

        >>> KneserNey(order=3).fit("a b c a b d").context_counts("a b c d").tolist()
        [0, 0, 2, 1]
        """
        model = self._parts().model
        length = model.checked_length(length)
        return _by_block(partial(model.context_counts, length=length), *self._text(text, before), length)

    def _text(self, text: TextOrIds, before: Sequence[int] | Array) -> tuple[Array, Array]:
        return ids_of(self, "text", text), ids_of(self, "before", before)

    def cursor(self, before: Sequence[int] = ()) -> BackoffCursor:
        """Return the place after these words, by their ids: it predicts the next; empty: the beginning of a text.

        >>> model = KneserNey(order=2).fit([0, 1, 0, 2])
        >>> place = model.cursor([0])
        >>> round(float(place.probabilities().sum()), 6), place.context_count()
        (1.0, 2)
        """
        return self._parts().model.cursor(before)

    def evaluate(self, text: TextOrIds) -> Evaluation:
        """Return the loss and perplexity of a text.

        text  as in `fit`; ids are those of the vocabulary
        Words outside the vocabulary are left out and counted.
        Raises TextError for a text without known words; otherwise as `fit`.

        >>> found = KneserNey().fit("to be or not to be. " * 50).evaluate("to be a cat.")
        >>> found.words, found.unknown
        (3, 2)
        """
        return evaluated(self, text)

    def perplexity(self, text: TextOrIds) -> float:
        """Return exp of the mean loss in nats: among how many equally likely words the model hesitates.

        text  as in `fit`; words that the vocabulary lacks are left out: `evaluate` counts them
        Raises as `evaluate`.

        >>> 1 < KneserNey().fit("to be or not to be. " * 50).perplexity("to be or not to be.") < 1.5
        True
        """
        return self.evaluate(text).perplexity

    @overload
    def next_word(self, prompt: str, k: int | None = ...) -> list[tuple[str, float]]: ...

    @overload
    def next_word(self, prompt: Ids, k: int | None = ...) -> list[tuple[int, float]]: ...

    def next_word(self, prompt: str | Ids, k: int | None = 10) -> list[tuple[str, float]] | list[tuple[int, float]]:
        """Return the likeliest next words with their probabilities, the likeliest first, as a LanguageModel does.

        prompt  the words before; ids (N,) for ids
        k       how many words; None: all
        `<unk>` is left out, and all other probabilities add up to 1. Warns of words that the vocabulary lacks.
        Raises ValueError, or for ids TypeError or IndexError.

        >>> [word for word, probability in KneserNey().fit("to be or not to be. " * 50).next_word("not", k=1)]
        ['to']
        """
        likeliest, names = next_words(self, prompt, k), self.vocabulary.words
        if isinstance(prompt, str):
            return [(names[word], probability) for word, probability in likeliest]
        return likeliest

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
        temperature: float = TEMPERATURE,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> str | Array:
        """Return the prompt and more words, each drawn from the model's predictions; never `<unk>`.

        The arguments are those of `LanguageModel.generate`. Returns a text, or for ids an int32 array (N + words,).
        Warns of words that the vocabulary lacks. Raises ValueError, or for ids TypeError or IndexError.

        >>> KneserNey().fit("to be or not to be. " * 50).generate("or not", 2, temperature=0)
        'or not to be'
        """
        return generated(self, prompt, words, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)

    # ---------------------------------------------------------------------------------------------- keeping and loading

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a .safetensors file; on failure an existing file stays as it is.

        The file holds the training text, as ids, and its vocabulary: who has the file can read the text. It takes 2
        bytes a word (4 for more than 65,536 different ones), and is counted anew by `load`. (A model from an ARPA file
        is stored as it is.) Raises CheckpointError where the file cannot be written.

        >>> import tempfile
        >>> model = KneserNey().fit("to be or not to be. " * 50)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/be.safetensors")
        ...     again = KneserNey.load(f"{folder}/be.safetensors")
        >>> again.perplexity("to be") == model.perplexity("to be")
        True
        """
        parts = self._parts()
        metadata = {
            "kind": KIND,
            "order": self.order,
            "tokenizer": parts.tokenizer.name,
            "rules": parts.tokenizer.rules,
            "unk_trained": parts.unk_trained,
            "fastmlp": __version__,
        }
        tensors = parts.model.arrays() if parts.ids is None else {"ids": parts.ids}
        checkpoint.save(path, {**tensors, **word_tensors(parts.vocabulary, parts.tokenizer)}, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "KneserNey":
        """Load the model of a file that `save` wrote.

        Raises ModelError if it cannot be read or holds no such model; loading runs no code of the file.
        """
        with load_errors(path):
            tensors, metadata = checkpoint.load(path)
            if metadata.get("kind") != KIND:
                raise ValueError("it holds no Kneser-Ney model")
            (vocabulary, tokenizer), order = words_of(tensors, metadata), metadata["order"]
            if "ids" in tensors:
                return cls.of(tensors["ids"], vocabulary, tokenizer, order=order)
            levels = BackoffModel.from_arrays(len(vocabulary), tensors)
            return cls._read(_Parts(levels, vocabulary, tokenizer, metadata["unk_trained"], None))

    def to_arpa(self, path: str | os.PathLike[str]) -> None:
        """Write the model to an ARPA file, for KenLM, SRILM and speech recognizers.

        An interpolated model is written as a back-off model, which gives the same probabilities. `<s>` and `</s>`,
        which the model does not know, are there because readers expect them: score a text with its sentence ends as
        words, and without `</s>`. Numbers have 7 digits. On failure an existing file stays as it is.
        Memory: about three times the file, which takes about 100 bytes a word of the training text.
        Raises ValueError if a word has white space in it, CheckpointError where the file cannot be written.

        >>> import tempfile
        >>> model = KneserNey().fit("to be or not to be. " * 50)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.to_arpa(f"{folder}/be.arpa")
        ...     again = KneserNey.from_arpa(f"{folder}/be.arpa", tokenizer="words")
        >>> round(again.perplexity("to be"), 4) == round(model.perplexity("to be"), 4)
        True
        """
        write_atomically(path, self.arpa())

    def backoff_model(self) -> BackoffModel:
        """Return the n-grams themselves."""
        return self._parts().model

    def arpa(self) -> bytes:
        """Return what `to_arpa` writes."""
        parts = self._parts()
        return arpa_bytes(parts.model, parts.vocabulary.words)

    @classmethod
    def from_arpa(cls, path: str | os.PathLike[str], *, tokenizer: str = "whitespace") -> "KneserNey":
        """Load a model from an ARPA file, of whatever order and smoothing.

        path       a text file in UTF-8
        tokenizer  how a text becomes the words of the file: "words", "prose", "whitespace"; "ids": numbers
        The words are in the order of the file, `<unk>` last.
        Raises ModelError if it cannot be read or is no ARPA file, ValueError for another tokenizer.
        """
        split = get_tokenizer(tokenizer)
        model, vocabulary = read_arpa(path)
        trained = bool(model.levels[0].probability[vocabulary.unk_id] > 10**LEAST)
        return cls._read(_Parts(model, vocabulary, split, trained, None))

    @classmethod
    def _read(cls, parts: _Parts) -> "KneserNey":
        """Return a model with these parts, of whatever order."""
        model = cls()
        model.order = parts.model.order
        return model._with(parts)


def _by_block(
    compute: Callable[[Array], Array], ids: Array, before: Array, reach: int, watch: Watch | None = None
) -> Array:
    """Return what `compute` finds for each word of a text from `reach` words before it, a block of words at a time."""
    before = before[max(0, len(before) - reach) :]
    text, results = np.concatenate([before, ids]), []
    for start in range(len(before), len(text), BLOCK):
        first = max(0, start - reach)
        results.append(compute(text[first : start + BLOCK])[start - first :])
        if watch is not None:
            watch(len(results[-1]))
    return np.concatenate(results) if results else compute(text[:0])


def _narrow(ids: Array) -> Array:
    """Return a copy of ids in 16 bits if they fit."""
    return ids.astype(np.uint16 if not len(ids) or ids.max() < 1 << 16 else np.int32)


# -------------------------------------------------------------------------------------------------------- the estimate


def estimate(ids: Array, size: int, order: int) -> BackoffModel:
    """Return the interpolated modified Kneser-Ney model of a text.

    ids    (N,)  in: the text, at least one word, 0 <= id < size
    size         V, the size of the vocabulary
    order        words of the longest n-grams

    With h a context, h' the same without its first word, and a(h w) the count of an n-gram of the highest order, or for
    a shorter one the number of different words before it (the beginning of the text is one):

        p(w | h) = (a(h w) - D(a(h w))) / sum_v a(h v) + backoff(h) p(w | h')
        backoff(h) = sum_v D(a(h v)) / sum_v a(h v)

    Without a context it is 1 / V in place of p(w | h'). (Chen & Goodman, An empirical study of smoothing techniques for
    language modeling, 1999, sections 2.8 and 3.2.)
    """
    lower = np.full(1, 1 / size, np.float32)  # p of the n-grams that are one word shorter
    keys, counts, probabilities, backoffs = [], [], [], []
    for ngrams, longer in pairwise(chain(count_ngrams(ids, size, order), [None])):
        assert ngrams is not None
        context, adjusted = ngrams.context, ngrams.count
        if longer is not None:
            adjusted = np.bincount(longer.suffix, minlength=len(adjusted)).astype(np.int32)
            if ngrams.first >= 0:
                adjusted[ngrams.first] += 1
        discount = np.array([0, *discounts(adjusted)], np.float32)[np.minimum(adjusted, 3)]
        total, taken = (np.bincount(context, of, minlength=len(lower)) for of in (adjusted, discount))
        backoff = np.ones(len(lower), np.float32)  # where nothing ever followed
        np.divide(taken, total, out=backoff, where=total > 0, casting="same_kind")
        total = total.astype(np.float32)
        lower = lower[ngrams.suffix]
        lower *= backoff[context]
        lower += np.subtract(adjusted, discount, dtype=np.float32) / total[context]
        keys.append(context * np.int64(size) + ngrams.word)
        counts.append(ngrams.count)
        probabilities.append(lower)
        backoffs.append(backoff)
    columns = zip(keys, probabilities, [*backoffs[1:], None], counts, strict=True)
    return BackoffModel(size, tuple(Level(*column) for column in columns))


def discounts(counts: Array) -> tuple[float, float, float]:
    """Return what is taken from counts of 1, of 2, and of 3 and more.

    counts  (M,)  in: of the n-grams of one length
    Estimated from how many counts are 1, 2, 3 and 4 (Chen & Goodman, 1999, equation 26). Where a text is so short that
    one of them cannot be, or is not above 0 and at most its count, all three are FALLBACK.
    """
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        found = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
        if all(discount > 0 for discount in found):  # they are at most 1, 2, 3 by their formulas
            return found
    return FALLBACK
