"""The runs of a folder, and what each of them is and has reached."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmlp.config import TrainConfig, read_toml
from fastmlp.files.run_folder import RunFolder
from fastmlp.options import ConfigError

__all__ = ["RunSummary", "metrics_in", "runs_in", "summary_of"]

LARGEST = 1e300  # a number beyond it is taken for none


@dataclass(frozen=True)
class RunSummary:
    """What a run is, and what it has reached so far.

    text        the files that it was trained on, by their names
    network     its sizes, in words
    steps       updates made
    passes      over the training words; None: an earlier version did not say how many these are
    seconds     of training
    finished    whether it came to its end
    network_perplexity, test_perplexity
                of the validation and the test part, by the network alone: the kept weights', of a run that is not
                finished the last ones measured; None: not measured
    mixed_perplexity
                of the validation part, by all the predictors of a finished run together; None: nothing was mixed
    changed     when it last wrote something, in seconds since 1970
    """

    name: str
    text: str
    network: str
    steps: int
    passes: float | None
    seconds: float
    finished: bool
    network_perplexity: float | None
    mixed_perplexity: float | None
    test_perplexity: float | None
    changed: float


def runs_in(folder: Path) -> dict[str, Path]:
    """Return the folders of runs in a folder by name, the newest first; none where there is no such folder."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        run = RunFolder(path)
        if path.is_dir() and run.config.is_file() and run.holds_run():
            found[path.name] = path
    return dict(sorted(found.items(), key=lambda item: _changed(item[1]), reverse=True))


def metrics_in(run: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a run's metrics.jsonl; none where there is no such file."""
    try:
        text = RunFolder(run).metrics.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = [_parsed(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if isinstance(line, dict)]


def _parsed(line: str) -> Any:
    """Return a line of JSON; None for one that is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _number(line: dict[str, Any], name: str) -> float | None:
    """Return a number of a line as it is; None for one that is missing, or for anything else: the file may be any."""
    value = line.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < LARGEST:
        return None
    return value


def summary_of(run: Path) -> RunSummary:
    """Return what a run's config.toml and metrics.jsonl say of it; a run that vanishes meanwhile has said nothing."""
    try:
        options = read_toml(RunFolder(run).config)
        files = TrainConfig.layered(options).files  # which refuses what is not of an option's type
    except ConfigError:
        options, files = {}, ()
    lines = metrics_in(run)
    last = lines[-1] if lines else {}
    validated = next((_number(line, "val_perplexity") for line in reversed(lines) if "val_perplexity" in line), None)
    words, done = _number(lines[0], "training_words") if lines else None, _number(last, "words")
    kept, mixed = _number(last, "kept_val_perplexity"), last.get("mixture")
    return RunSummary(
        name=run.name,
        text=", ".join(Path(file).name for file in files) or "Python's documentation",
        network=_network(options),
        steps=int(_number(last, "step") or 0),
        passes=done / words if words and done is not None else None,
        seconds=_number(last, "seconds") or 0.0,
        finished="kept_step" in last,
        network_perplexity=validated if kept is None else kept,
        mixed_perplexity=_number(mixed, "network+counts+cache") if isinstance(mixed, dict) else None,
        test_perplexity=_number(last, "kept_test_perplexity"),
        changed=_changed(run),
    )


def _network(options: dict[str, Any]) -> str:
    if not options:
        return ""
    hidden = options.get("hidden", ())
    widths = hidden if isinstance(hidden, list) else [hidden] * (1 + options.get("blocks", 0))
    return f"{options.get('context')} words of {options.get('embed')}, hidden {', '.join(map(str, widths))}"


def _changed(run: Path) -> float:
    folder = RunFolder(run)
    for file in (folder.metrics, folder.config):
        try:
            return file.stat().st_mtime
        except OSError:
            continue
    return 0.0
