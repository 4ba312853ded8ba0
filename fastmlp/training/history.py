"""What training a language model left behind: its losses, and their picture."""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastmlp.pictures.plot import draw_loss, plot_loss
from fastmlp.pictures.table import html_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastmlp.training.progress import Result

__all__ = ["History"]

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class History:
    """The losses of a training, in nats per word, and the figures of the weights that the model has now.

    steps, losses          (N,) updates made, and the mean training loss since the measurement before; the first is
                           step 0: the loss of the first batch before any update
    val_steps, val_losses  (M,) updates made, and the loss on the validation sample; empty where nothing is held out
    best_step              the step whose weights were kept; None where training was stopped before its end
    val_loss, val_perplexity, test_loss, test_perplexity
                           of the kept weights, on all words that are held out and in the vocabulary; None where there
                           are none, or training was stopped
    finished               False where `should_stop` ended it
    metrics                the lines of metrics.jsonl: step, words, seconds, loss, lr, words_per_second, val_loss, ...;
                           the last one says too how many held-out words those figures leave out, and the figures with
                           them (kept_val_unknown_words, kept_val_loss_with_unknown, ...), and what counts and
                           their mixtures with the network have (mixture: "network+counts", ...)

    >>> from fastmlp import LanguageModel
    >>> model = LanguageModel(context=2, embed=4, hidden=(8,))
    >>> history = model.fit("to be or not to be. " * 50, steps=30, log_every=10)
    >>> history.steps.tolist(), history.val_steps.tolist(), history.best_step
    ([0, 10, 20, 30], [30], 30)
    >>> bool(history.losses[-1] < history.losses[0])
    True
    >>> str(history).startswith("History(30 steps, loss ")
    True
    """

    steps: Array
    losses: Array
    val_steps: Array
    val_losses: Array
    best_step: int | None
    val_loss: float | None
    val_perplexity: float | None
    test_loss: float | None
    test_perplexity: float | None
    finished: bool
    metrics: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, metrics: Sequence[Mapping[str, Any]], result: "Result") -> Self:
        """The history of a run with these lines of metrics."""
        validated = [line for line in metrics if "val_loss" in line]
        return cls(
            steps=np.array([line["step"] for line in metrics], np.int64),
            losses=np.array([line["loss"] for line in metrics], np.float64),
            val_steps=np.array([line["step"] for line in validated], np.int64),
            val_losses=np.array([line["val_loss"] for line in validated], np.float64),
            best_step=result.kept_step,
            val_loss=result.kept_val_loss,
            val_perplexity=result.kept_val_perplexity,
            test_loss=result.kept_test_loss,
            test_perplexity=result.kept_test_perplexity,
            finished=result.finished,
            metrics=tuple(metrics),
        )

    def plot(self, path: str | os.PathLike[str] | None = None, *, title: str = "language model") -> "Figure":
        """Draw training and validation loss over the steps, with perplexity on the right and the learning rate below.

        path   a name that ends in .png, for a picture of 1200 x 900 pixels; None: nothing is written
        title  one line of plain text
        Returns matplotlib's Figure, which needs no display and has a savefig for other formats. Raises ValueError for
        another name, CheckpointError where the file cannot be written.

        >>> from fastmlp import LanguageModel
        >>> model = LanguageModel(context=2, embed=4, hidden=(8,))
        >>> figure = model.fit("to be or not to be. " * 50, steps=30).plot(title="to be")
        >>> figure.axes[0].get_title()
        'to be'
        """
        if path is None:
            return draw_loss(self.metrics, title)
        if Path(path).suffix.lower() != ".png":
            raise ValueError(f"path: expected a name that ends in .png, got {os.fspath(path)!r}")
        return plot_loss(self.metrics, Path(path), title=title)

    def __repr__(self) -> str:
        if not self.steps.size:
            return "History(no steps)"
        text = f"{self.steps[-1]:,} steps, loss {self.losses[0]:.3f} to {self.losses[-1]:.3f}"
        if self.val_loss is not None:
            text += (
                f"; validation loss {self.val_loss:.3f}, perplexity {self.val_perplexity:.1f}, step {self.best_step:,}"
            )
        return f"History({text}{'' if self.finished else '; stopped'})"

    def _repr_html_(self) -> str:
        """The figures and the picture of `plot`, for notebooks."""
        if not self.steps.size:
            return html_table("History", {"steps": 0})
        png = io.BytesIO()
        self.plot(title="loss").savefig(png, format="png", dpi=75)
        table = html_table(
            "History" if self.finished else "History: stopped",
            {
                "steps": f"{self.steps[-1]:,}",
                "training loss": f"{self.losses[0]:.3f} to {self.losses[-1]:.3f}",
                "validation loss": None if self.val_loss is None else f"{self.val_loss:.3f}, step {self.best_step:,}",
                "validation perplexity": None if self.val_perplexity is None else f"{self.val_perplexity:,.1f}",
                "test perplexity": None if self.test_perplexity is None else f"{self.test_perplexity:,.1f}",
            },
        )
        encoded = base64.b64encode(png.getvalue()).decode()
        return f'{table}<img alt="training and validation loss over the steps" src="data:image/png;base64,{encoded}">'
