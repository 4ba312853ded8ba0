"""The readers of files from strangers, each as a function of bytes. Only errors of one line may come out of them."""

import contextlib
import io
import json
import math
import signal
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import fastmlp.text.formats
from fastmlp import runs
from fastmlp.config import TrainConfig, read_toml, to_toml
from fastmlp.errors import CheckpointError, ReportedError
from fastmlp.files import checkpoint
from fastmlp.files.checkpoint import is_checkpoint
from fastmlp.language_model import LanguageModel
from fastmlp.prediction.kneser_ney import KneserNey
from fastmlp.prediction.mixture import load_mixture, load_predictor, times_seen
from fastmlp.text import TOKENIZERS, get_tokenizer, read_text
from fastmlp.trainer import open_run
from tests.fuzz import seeds
from tests.fuzz.seeds import SEPARATOR
from tests.helpers import NUMPY

__all__ = ["SECONDS", "TARGETS", "Target", "check"]

Target = Callable[[bytes], None]
SECONDS = 20.0  # that a file of some kilobytes may take, a thousand times what it takes
MOST = 1 << 22  # bytes to which a file may unpack here; fastmlp.text.formats.MOST is as large as real books need
DTYPES = {kind: kind for kind in ("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")}
LARGEST = 1 << 20  # bytes of a tensor of a model made here


class HangsError(BaseException):
    """A reader took too long; no reader may take this for an error of its own."""


def check(target: str, data: bytes) -> None:
    """Read an input. Raise HangsError if it takes too long, or another error that no reader may raise.

    In the main thread of a process only, since it is interrupted by a signal, after seconds of the processor.
    """

    def stop(*_: object) -> None:
        raise HangsError(f"{SECONDS:g} seconds of the processor for {len(data):,} bytes")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        TARGETS[target](data)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def folder_with(**files: bytes) -> Iterator[Path]:
    """Yield a folder with these files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        yield Path(folder)


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Allow the errors that a command reports, if they are one line that a terminal can show."""
    try:
        yield
    except ReportedError as error:
        if not str(error).isprintable():
            raise AssertionError(f"not one line: {str(error)!r}") from error


# --------------------------------------------------------------------------------------------------------------- texts


def text(data: bytes) -> None:
    """A text, packed or not, HTML, FB2, an EPUB: by each set of rules, split by each tokenizer."""
    fastmlp.text.formats.MOST = MOST
    with folder_with(a=data) as folder:
        for rules in (1, 2):
            with refusals():
                found = read_text([folder / "a"], rules=rules)
                assert len(found.sha256) == 64
                for name in TOKENIZERS:
                    tokenizer, words = get_tokenizer(name, rules=rules).fit(found.text)
                    assert len(tokenizer.join(words[:100]).encode()) < 10_000 + 10 * len(found.text)


def epub(data: bytes) -> None:
    """An EPUB made of an input, whose parts are names and contents in turn, the first one a digit: how it is packed.

    So that mutations reach what is in it, which a ZIP file protects by a CRC.
    """
    kind, *parts = data.split(SEPARATOR)
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", methods[sum(kind) % len(methods)]) as book:
        warnings.simplefilter("ignore")  # of names that come twice
        for name, content in zip(parts[::2], parts[1::2], strict=False):
            book.writestr(zipfile.ZipInfo(name.decode("latin-1") or "a"), content, book.compression)
    text(made.getvalue())


# -------------------------------------------------------------------------------------------------------------- models


def saved(data: bytes) -> None:
    """A file in place of a model: loaded, told from others, named as a run to resume."""
    with folder_with(**{"a.safetensors": data}) as folder:
        file = folder / "a.safetensors"
        is_checkpoint(file)
        use(file)


def model(data: bytes) -> None:
    """A model made of an input, with the right digest: JSON with its metadata and tensors, then the tensors' numbers.

    So that mutations reach what comes behind the digest, which anybody can compute.
    """
    try:
        tensors, metadata = made_of(data)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(Path(folder) / "a.safetensors", tensors, metadata)
            made = (Path(folder) / "a.safetensors").read_bytes()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, CheckpointError):
        return  # of no file that can be written
    with folder_with(**{"a.safetensors": made}) as folder:
        use(folder / "a.safetensors")


def made_of(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return what `seeds.described` has written, or a mutation of that; numbers that are missing are 0."""
    described, _, numbers = data.partition(SEPARATOR)
    given, tensors = json.loads(described), {}
    for name, (dtype, shape) in given["tensors"].items():
        size = np.dtype(DTYPES[dtype]).itemsize * math.prod(shape)
        if not 0 <= size <= LARGEST:
            raise ValueError(f"{name}: {size:,} bytes")
        taken, numbers = numbers[:size], numbers[size:]
        tensors[name] = np.frombuffer(taken + bytes(size - len(taken)), dtype).reshape(shape)
    return tensors, given["metadata"]


def use(file: Path) -> None:
    """Load a model in each way there is, and predict with what comes."""
    with refusals():
        use_predictor(LanguageModel.load(file, backend="numpy", threads=1))
    with refusals():
        load_predictor(file, NUMPY)
    with refusals():
        use_predictor(KneserNey.load(file))
    with refusals():
        load_mixture(file, network_of_seeds())
    with refusals():
        times_seen(file, 10)
    resume(file)


def use_predictor(found: LanguageModel | KneserNey) -> None:
    """Evaluate a text, continue it, draw from it."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of words that the model does not know
        with refusals():
            found.evaluate("anna paints a red door. boris")
        found.next_word("anna paints", 3)
        with contextlib.suppress(ReportedError, ValueError):  # probabilities that are no numbers
            found.generate("anna", words=5, seed=1)
        repr(found)


@cache
def network_of_seeds() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.safetensors"
        file.write_bytes(seeds.models()["network"])
        return load_predictor(file, NUMPY).neural()


def resume(file: Path) -> None:
    """Go on from a file in place of a run's last.safetensors, up to the first step."""
    with tempfile.TemporaryDirectory() as folder:
        path = seeds.made_run(folder)
        (path / "last.safetensors").write_bytes(file.read_bytes())
        options = {**seeds.run_options(), "files": (f"{path}/story.txt",), "out": str(path)}
        with refusals(), open_run(TrainConfig(**options), resume=True):
            pass


# ------------------------------------------------------------------------------------- options, runs, counts of others


def options(data: bytes) -> None:
    """A TOML file: its options, and the same written and read again."""
    with folder_with(**{"a.toml": data}) as folder, refusals():
        config = TrainConfig.layered(read_toml(folder / "a.toml"))
        (folder / "again.toml").write_text(to_toml(config), encoding="utf-8")
        assert TrainConfig.layered(read_toml(folder / "again.toml")) == config


def run(data: bytes) -> None:
    """A run's config.toml and metrics.jsonl, as `fastmlp.runs` reads them: a table, JSON, or a line."""
    config, _, metrics = data.partition(SEPARATOR)
    files = {"config.toml": config, "metrics.jsonl": metrics, "last.safetensors": seeds.models()["network"]}
    with folder_with(**files) as folder:
        for arguments in ([], ["--json"]):
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = runs.main([str(folder), *arguments])
            assert status in (0, 2), err.getvalue()
            assert "Error: " not in err.getvalue(), err.getvalue()


def arpa(data: bytes) -> None:
    """An ARPA file: read, used, written and read again."""
    with folder_with(a=data) as folder, refusals():
        found = KneserNey.from_arpa(folder / "a", tokenizer="words")
        use_predictor(found)
        try:
            found.to_arpa(folder / "b")
        except ValueError:  # words with white space other than that which separates them in the file
            return
        again = KneserNey.from_arpa(folder / "b")
        assert [len(level.key) for level in again.backoff_model().levels[1:]] == [
            len(level.key) for level in found.backoff_model().levels[1:]
        ]


TARGETS: dict[str, Target] = {
    "text": text,
    "epub": epub,
    "saved": saved,
    "model": model,
    "options": options,
    "run": run,
    "arpa": arpa,
}
