"""The runs of a folder, and what each of them is and has reached."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmlp.config import TrainConfig, read_toml
from fastmlp.files.run_folder import RunFolder
from fastmlp.options import ConfigError

__all__ = ["RunSummary", "metrics_in", "runs_in", "summary_of"]


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
        text = RunFolder(run).metrics.read_text(encoding="utf-8")
    except OSError:
        return []
    lines = [_parsed(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if isinstance(line, dict)]


def _parsed(line: str) -> Any:
    """Return a line of JSON; None for one that is none."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def summary_of(run: Path) -> RunSummary:
    """Return what a run's config.toml and metrics.jsonl say of it; a run that vanishes meanwhile has said nothing."""
    try:
        options = read_toml(RunFolder(run).config)
        TrainConfig.layered(options)  # which refuses what is not of an option's type
    except ConfigError:
        options = {}
    lines = metrics_in(run)
    last = lines[-1] if lines else {}
    validated = next((line["val_perplexity"] for line in reversed(lines) if "val_perplexity" in line), None)
    words = lines[0].get("training_words") if lines else None
    return RunSummary(
        name=run.name,
        text=", ".join(Path(file).name for file in options.get("files", ())) or "Python's documentation",
        network=_network(options),
        steps=last.get("step", 0),
        passes=last["words"] / words if words else None,
        seconds=last.get("seconds", 0.0),
        finished="kept_step" in last,
        network_perplexity=last.get("kept_val_perplexity", validated),
        mixed_perplexity=last.get("mixture", {}).get("network+counts+cache"),
        test_perplexity=last.get("kept_test_perplexity"),
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
