"""The text of a training run as its network sees it: vocabulary, ids, and the windows of each part."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastmlp.config import TrainConfig
from fastmlp.data.batches import Batches, EpochBatches, RandomBatches, StretchBatches
from fastmlp.data.windows import Windows, as_ids, evenly_spaced, split_ids
from fastmlp.errors import TextError
from fastmlp.options import RULES, ConfigError
from fastmlp.text import standard_library
from fastmlp.text.characters import is_character_of_spaceless_script
from fastmlp.text.reading import Text, TextFile, read_text
from fastmlp.text.tokenizer import Tokenizer
from fastmlp.text.vocabulary import UNK, Vocabulary, is_word
from fastmlp.text.words import IDS, get_tokenizer

__all__ = ["Corpus", "ToTrain", "checked_ids", "read_corpus"]

Array = np.ndarray


@dataclass(frozen=True)
class ToTrain:
    """What a network is trained on: ids, without the words that they stand for.

    size   V, how many different ids there are
    train  windows to train on
    """

    size: int
    train: Windows

    def batches(self, config: TrainConfig) -> Batches:
        """How a run of this configuration draws its batches."""
        kind: type[Batches] = RandomBatches if config.epochs is None else EpochBatches
        if config.window:
            kind = StretchBatches
        return kind(self.train, config.batch_size, config.seed)

    def counts(self) -> Array:
        """How often each word comes in the training part, (V,)."""
        return np.bincount(self.train.targets, minlength=self.size)


@dataclass(frozen=True)
class Corpus:
    """The text of a run, encoded and split.

    files          those that were read
    sha256         of the text, and of the validation file if there is one
    words          of the text, all parts together
    types          different words of the text, before the vocabulary is cut
    train          windows to train on
    val, test      held-out windows; None if the part is empty
    held_out       ids of the part for prompts: the first non-empty one of validation, test, training
    unk_trained    whether the training part has words outside the vocabulary
    notices        what was left out of the texts or converted, and what their words are, a line each
    """

    files: tuple[TextFile, ...]
    sha256: list[str]
    words: int
    types: int
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    train: Windows
    val: Windows | None
    test: Windows | None
    held_out: Array
    unk_trained: bool
    notices: tuple[str, ...] = ()

    def validation_sample(self, count: int) -> Array:
        """Return up to `count` validation windows whose word is in the vocabulary, evenly spaced."""
        if self.val is None:
            return np.empty(0, np.int64)
        known = known_targets(self.val, self.vocabulary)
        return np.asarray(known[evenly_spaced(known, count)])

    def batches(self, config: TrainConfig) -> Batches:
        """How a run of this configuration draws its batches."""
        return self.to_train().batches(config)

    def counts(self) -> Array:
        """How often each word comes in the training part, (V,)."""
        return self.to_train().counts()

    def to_train(self) -> ToTrain:
        """Return the training part alone."""
        return ToTrain(len(self.vocabulary), self.train)

    def padding(self) -> int:
        """Return the id that stands before a text: the sentence end."""
        return self.vocabulary.id_of(self.tokenizer.sentence_end)

    def default_prompt(self) -> list[str]:
        """Return the beginning of a sentence of the held-out text, as long as the context."""
        context, end = self.train.context, self.vocabulary.id_of(self.tokenizer.sentence_end)
        for start in (*(np.flatnonzero(self.held_out == end) + 1).tolist(), 0):
            ids = self.held_out[start : start + context].tolist()
            if len(ids) == context and end not in ids and self.vocabulary.unk_id not in ids:
                return list(self.vocabulary.decode(ids))
        return []


@dataclass(frozen=True)
class Encoded:
    """A text as ids, before the split. Fields have the same meaning as in Corpus."""

    files: tuple[TextFile, ...]
    sha256: str
    types: int
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    ids: Array
    notices: tuple[str, ...] = ()


def read_corpus(config: TrainConfig, text: Text | Array | None = None) -> Corpus:
    """Read, tokenize, count and split the text of a run.

    text  a text in memory, or ids (N,) below config.vocab_size; None: the configuration's files, or the standard
          library's documentation
    Raises TextError for a text that cannot be used; TypeError, ValueError, IndexError or ConfigError for such ids.
    """
    if text is None:
        text = _read(config, config.files) if config.files else standard_library.standard_library_text()
    encoded = _encode_text(config, text) if isinstance(text, Text) else _encode_ids(config, text)
    tokenizer, vocabulary, ids = encoded.tokenizer, encoded.vocabulary, encoded.ids
    split = split_ids(ids, 0.0 if config.val_file else config.val_fraction, config.test_fraction)
    if len(split.train) < 2:
        raise TextError(f"the text is too short: {len(split.train)} word to train on; name a longer text")
    before_test, before_val = ids[: len(ids) - len(split.test)], split.train
    val_ids, digests, notices = split.val, [encoded.sha256], encoded.notices
    if config.val_file:
        val_text = _read(config, [config.val_file])
        val_words = tokenizer.split(val_text.text)
        if not any(map(is_word, val_words)):
            raise TextError(f"{config.val_file}: no words, only punctuation; name a text with words in it")
        val_ids, before_val = vocabulary.encode(val_words), ids[:0]
        digests.append(val_text.sha256)
        notices += val_text.notices

    def windows(part: Array, before: Array) -> Windows:
        """All words of a part, each predicted from those before it; sentence ends stand before a text."""
        padding = vocabulary.id_of(tokenizer.sentence_end)
        return Windows(part, config.context, reach=config.reach, history=before, padding=padding)

    val = windows(val_ids, before_val) if len(val_ids) else None
    if val is not None and not len(known_targets(val, vocabulary)):
        name = config.val_file or "the validation part of the text"
        raise TextError(f"{name}: none of its words is in the vocabulary; name another text or keep more words")
    return Corpus(
        files=encoded.files,
        sha256=digests,
        words=len(ids),
        types=encoded.types,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        train=windows(split.train, ids[:0]),
        val=val,
        test=windows(split.test, before_test) if len(split.test) else None,
        held_out=next(part for part in (val_ids, split.test, split.train) if len(part)),
        unk_trained=bool((split.train == vocabulary.unk_id).any()),
        notices=notices,
    )


def _read(config: TrainConfig, files: Sequence[str]) -> Text:
    return read_text(files, rules=config.rules or RULES, keep_licence=config.keep_licence)


def _encode_text(config: TrainConfig, text: Text) -> Encoded:
    tokenizer, words = get_tokenizer(config.tokenizer, rules=config.rules or RULES).fit(text.text)
    vocabulary = Vocabulary.from_words(words, max_size=config.vocab_size, min_count=config.min_count)
    ids = vocabulary.encode(words)
    notices = text.notices if text.text.isascii() else (*text.notices, *_notice_of_characters(vocabulary, ids))
    return Encoded(text.files, text.sha256, len(set(words) - {UNK}), tokenizer, vocabulary, ids, notices)


def _notice_of_characters(vocabulary: Vocabulary, ids: Array) -> list[str]:
    """Return a line on words that are single characters, as no space shows where words of their script end."""
    characters = [id for id, word in enumerate(vocabulary.words) if is_character_of_spaceless_script(word)]
    if not characters:
        return []
    count = int(np.isin(ids, characters).sum())
    return [
        f"{count:,} of {len(ids):,} words are characters, since their script (Chinese, Japanese, Thai ...) has no"
        " spaces between words: loss and perplexity are those of a character; for words, separate them by spaces and"
        " use --tokenizer whitespace"
    ]


def _encode_ids(config: TrainConfig, given: Array) -> Encoded:
    if config.vocab_size is None:
        raise ConfigError("vocab_size", "expected how many different ids there are, since ids are trained on, got None")
    if config.min_count != 1:
        raise ConfigError("min_count", f"expected 1, since ids are trained on, got {config.min_count}")
    ids = checked_ids("text", given, config.vocab_size)
    digest = hashlib.sha256(ids.astype("<i4", copy=False).tobytes()).hexdigest()
    files = (TextFile("ids in memory", ids.nbytes, digest),)
    return Encoded(files, digest, len(np.unique(ids)), IDS, Vocabulary.of_ids(config.vocab_size), ids)


def checked_ids(name: str, values: Array, size: int) -> Array:
    """Return ids below `size` as int32; raise TypeError, ValueError or IndexError, which names the argument."""
    if values.size and values.dtype.kind in "iu":
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= size:
            raise IndexError(f"{name}: expected ids in [0, {size}), got {low if low < 0 else high}")
    return as_ids(name, values)


def known_targets(windows: Windows, vocabulary: Vocabulary) -> Array:
    """The indices of the windows whose next word is in the vocabulary."""
    return np.flatnonzero(windows.targets != vocabulary.unk_id)
