"""Makes more names: python -m fastmlp.examples.makemore NAMES.txt, a file with a name a line.

The batch-normalized MLP of the lectures "Neural Networks: Zero to Hero", makemore parts 3 and 5, with their names and
their diagnostics: activations, gradients, and the ratio of updates to weights. Prints losses and samples,
and draws a picture.
"""

import argparse
import io
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmlp import cli
from fastmlp.errors import UsageError, require
from fastmlp.options import whole

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

    from fastmlp import nn

    Array = np.ndarray[Any, Any]

BLOCK_SIZE = 3  # context length: how many letters are looked at to guess the next one
N_EMBD = 10  # the dimensionality of the letters' embedding vectors
N_HIDDEN = 100  # the number of neurons in each hidden layer
BATCH_SIZE = 32
FEWEST = 10  # names: one each for dev and test
EVALUATED = 10_000  # rows that are evaluated at a time
MOST_POINTS = 1_000  # of the update-to-data ratio over the steps


def read_names(path: str) -> list[str]:
    """Return the names in a file, one a line; blank lines are left out.

    Raises TextError if it cannot be read, holds too few names, or a name has the dot that marks a name's end.
    """
    from fastmlp.errors import TextError
    from fastmlp.text.reading import read_text

    lines = [line.strip() for line in read_text([path]).text.split("\n")]
    for number, line in enumerate(lines, 1):
        if "." in line:
            raise TextError(f"{path}: line {number}: expected a name, got {line[:30]!r}: a dot marks where names end")
    names = [line for line in lines if line]
    if len(names) < FEWEST:
        raise TextError(f"{path}: expected at least {FEWEST} names, one a line; got {len(names)}")
    return names


def build_dataset(words: Sequence[str], stoi: dict[str, int]) -> "tuple[Array, Array]":
    """For each letter of the words, and each end: the letters before it X (N, BLOCK_SIZE), its own number Y (N,)."""
    import numpy as np

    X, Y = [], []
    for w in words:
        context = [0] * BLOCK_SIZE
        for ch in w + ".":
            ix = stoi[ch]
            X.append(context)
            Y.append(ix)
            context = [*context[1:], ix]  # crop and append
    return np.array(X), np.array(Y)


def make_model(vocab_size: int, g: "np.random.Generator") -> "nn.Sequential":
    """The network of part 3, in the containers of part 5."""
    from fastmlp.nn.activation import Tanh
    from fastmlp.nn.batchnorm import BatchNorm1d
    from fastmlp.nn.containers import Flatten, Sequential
    from fastmlp.nn.embedding import Embedding
    from fastmlp.nn.linear import Linear

    # fmt: off
    model = Sequential(
        Embedding(vocab_size, N_EMBD, rng=g), Flatten(),
        Linear(N_EMBD * BLOCK_SIZE, N_HIDDEN, bias=False, rng=g), BatchNorm1d(N_HIDDEN), Tanh(),
        Linear(           N_HIDDEN, N_HIDDEN, bias=False, rng=g), BatchNorm1d(N_HIDDEN), Tanh(),
        Linear(           N_HIDDEN, N_HIDDEN, bias=False, rng=g), BatchNorm1d(N_HIDDEN), Tanh(),
        Linear(           N_HIDDEN, N_HIDDEN, bias=False, rng=g), BatchNorm1d(N_HIDDEN), Tanh(),
        Linear(           N_HIDDEN, N_HIDDEN, bias=False, rng=g), BatchNorm1d(N_HIDDEN), Tanh(),
        last := Linear(   N_HIDDEN, vocab_size, rng=g),
    )
    # fmt: on
    last.weight *= 0.1  # last layer: make less confident
    return model


@dataclass
class Diagnostics:
    """The lectures' diagnostics of a training network.

    steps, lossi  at which steps the following was measured, and the loss there
    ud            of each weight matrix, by name: log10 of std(lr * gradient) / std(weight) at these steps
    activations   outputs of each tanh, by layer, for the first and for the last batch
    gradients     gradients of these, likewise
    """

    steps: list[int] = field(default_factory=list)
    lossi: list[float] = field(default_factory=list)
    ud: dict[str, list[float]] = field(default_factory=dict)
    activations: "list[dict[str, Array]]" = field(default_factory=list)
    gradients: "list[dict[str, Array]]" = field(default_factory=list)

    def measure(self, step: int, loss: float, lr: float, model: "nn.Sequential") -> None:
        """Record the loss and the update-to-data ratios."""
        self.steps.append(step)
        self.lossi.append(loss)
        for (name, p), grad in zip(model.named_parameters(), model.gradients(), strict=True):
            if p.ndim == 2 and grad is not None:
                ratio = lr * grad.std() / p.std()
                self.ud.setdefault(name, []).append(math.log10(ratio) if ratio > 0 else math.nan)

    def look_inside(self, model: "nn.Sequential", criterion: "nn.CrossEntropyLoss", Xb: "Array", Yb: "Array") -> float:
        """Run forward and backward layer by layer, recording the output of each tanh. Return the loss."""
        from fastmlp.nn.activation import Tanh

        outputs, gradients = {}, {}
        x: Any = Xb
        for number, layer in enumerate(model):
            x = layer(x)
            if isinstance(layer, Tanh):
                outputs[f"layer {number} (Tanh)"] = x
        loss = float(criterion(x, Yb))
        grad: Any = criterion.backward()
        for number, layer in reversed(list(enumerate(model))):
            if isinstance(layer, Tanh):
                gradients[f"layer {number} (Tanh)"] = grad
            grad = layer.backward(grad)
        self.activations.append(outputs)
        self.gradients.append({name: gradients[name] for name in outputs})
        return loss


def train(model: "nn.Sequential", X: "Array", Y: "Array", max_steps: int, g: "np.random.Generator") -> Diagnostics:
    """Stochastic gradient descent on random batches."""
    from fastmlp.nn.loss import CrossEntropyLoss
    from fastmlp.optim import SGD

    criterion, optimizer, seen = CrossEntropyLoss(), SGD(model.parameters(), lr=0.1), Diagnostics()
    every = math.ceil(max_steps / MOST_POINTS)
    for i in range(max_steps):
        # minibatch construct
        ix = g.integers(0, len(X), BATCH_SIZE)
        Xb, Yb = X[ix], Y[ix]  # batch X, Y

        if i in (0, max_steps - 1):
            loss = seen.look_inside(model, criterion, Xb, Yb)  # the same passes, recorded
        else:
            # forward pass
            logits = model(Xb)
            loss = float(criterion(logits, Yb))
            # backward pass
            model.backward(criterion.backward())

        # update
        lr = 0.1 if i < 0.75 * max_steps else 0.01  # step learning rate decay
        optimizer.param_groups[0]["lr"] = lr
        if i % every == 0:
            seen.measure(i, loss, lr, model)
        optimizer.step()

        # track stats
        if i % math.ceil(max_steps / 10) == 0:  # print every once in a while
            print(f"{i:7d}/{max_steps:7d}: {loss:.4f}", flush=True)
    return seen


def split_loss(model: "nn.Sequential", X: "Array", Y: "Array") -> float:
    """The mean loss over a whole split, in nats, with the running statistics."""
    from fastmlp.nn.loss import CrossEntropyLoss

    criterion, total = CrossEntropyLoss(reduction="sum"), 0.0
    model.eval()
    for first in range(0, len(X), EVALUATED):
        total += float(criterion(model(X[first : first + EVALUATED]), Y[first : first + EVALUATED]))
    return total / len(X)


def sample(model: "nn.Sequential", itos: dict[int, str], longest: int, g: "np.random.Generator") -> str:
    """Draw a new name letter by letter, of `longest` letters at most."""
    import numpy as np

    model.eval()
    out: list[int] = []
    context = [0] * BLOCK_SIZE
    while len(out) < longest:
        logits = model(np.array([context]))[0].astype(np.float64)
        probs = np.exp(logits - logits.max())
        ix = int(g.choice(len(probs), p=probs / probs.sum()))
        if ix == 0:
            break
        context = [*context[1:], ix]
        out.append(ix)
    return "".join(itos[i] for i in out)


def draw(seen: Diagnostics, title: str) -> bytes:
    """The diagnostics as a PNG."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from fastmlp.pictures.plot import smooth

    figure = Figure(figsize=(13, 15), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    FigureCanvasAgg(figure)  # draws in memory, without a display
    axes = figure.subplots(3, 2)
    figure.suptitle(title)
    for column, (when, at) in enumerate((("first", 0), ("last", -1))):
        activations, gradients = seen.activations[at], seen.gradients[at]
        _draw_histograms(axes[0, column], activations, np.linspace(-1, 1, 26), saturation=True)
        axes[0, column].set(title=f"activations, {when} batch", xlabel="output of tanh", ylabel="density")
        reach = max(3 * grad.std() for grad in gradients.values()) or 1.0
        _draw_histograms(axes[1, column], gradients, np.linspace(-reach, reach, 26), saturation=False)
        axes[1, column].set(title=f"gradients, {when} batch", xlabel="gradient of tanh's output", ylabel="density")
        axes[1, column].ticklabel_format(axis="both", style="sci", scilimits=(-2, 4))
    _draw_ratios(axes[2, 0], seen)
    axes[2, 1].plot(seen.steps, seen.lossi, ".", alpha=0.4, markeredgewidth=0, label="of the batch")
    axes[2, 1].plot(seen.steps, smooth(np.array(seen.lossi)), color="C0", linewidth=2, label="smoothed")
    axes[2, 1].set(title="loss", xlabel="step", ylabel="nats per letter")
    for each in axes.flat:
        columns = 1 if each in axes[0] else 3
        each.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=columns, fontsize="small", frameon=False)
        each.grid(alpha=0.25)
        each.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, metadata={"Software": None})
    return png.getvalue()


def _draw_histograms(axes: "Axes", arrays: "dict[str, Array]", edges: "Array", *, saturation: bool) -> None:
    """A curve for each layer; the legend has the lectures' statistics."""
    import numpy as np

    for name, t in arrays.items():
        hy, hx = np.histogram(t, bins=edges, density=True)
        label = f"{name.split(' (')[0]}: std {t.std():.1e}"
        if saturation:
            label = f"{name}: mean {t.mean():+.2f}, std {t.std():.2f}, saturated {(abs(t) > 0.97).mean():.1%}"
        axes.plot((hx[:-1] + hx[1:]) / 2, hy, label=label)
    axes.set_ylim(bottom=0)


def _draw_ratios(axes: "Axes", seen: Diagnostics) -> None:
    for name, ratios in seen.ud.items():
        axes.plot(seen.steps, ratios, linewidth=0.8, label=name)
    axes.axhline(-3, color="black", linewidth=1, label="about here is good")
    axes.set(title="update to data", xlabel="step", ylabel="log10 of std(lr * gradient) / std(weight)")


def make_parser(prog: str) -> cli.Parser:
    """The command's arguments."""
    parser = cli.Parser(
        prog=prog,
        description="Train the batch-normalized MLP of the makemore lectures on names, and make more of them.",
    )
    parser.add_argument("names", metavar="NAMES.txt", help="a file with a name a line, in UTF-8")
    number: dict[str, Any] = {"type": cli.typed(whole(0)), "metavar": "N"}
    steps = {**number, "type": cli.typed(whole(1))}
    parser.add_argument("--steps", default=20_000, help="how many; the lectures take 200000 (default: 20000)", **steps)
    parser.add_argument("--seed", default=42, help="of all random numbers (default: 42)", **number)
    parser.add_argument("--samples", default=20, help="how many names are made (default: 20)", **number)
    parser.add_argument("--out", default="makemore.png", metavar="FILE.png", help="the picture (default: makemore.png)")
    return parser


def makemore(arguments: argparse.Namespace) -> int:
    """Read, split, train, evaluate, sample, draw."""
    import numpy as np

    from fastmlp.files.atomic import check_writable, write_atomically

    out = Path(arguments.out)
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out: expected a name that ends in .png, got {arguments.out!r}")
    words = read_names(arguments.names)
    check_writable(out.parent)
    require("matplotlib", "its picture")

    # build the vocabulary of letters and mappings to/from integers
    chars = sorted(set("".join(words)))
    stoi = {s: i + 1 for i, s in enumerate(chars)}
    stoi["."] = 0
    itos = {i: s for s, i in stoi.items()}
    vocab_size, longest = len(itos), max(map(len, words))
    print(f"{len(words):,} names, the longest of {longest} letters; {vocab_size} different letters, with the end")

    # train/dev/test splits, 80% 10% 10%
    random.Random(arguments.seed).shuffle(words)
    n1, n2 = int(0.8 * len(words)), int(0.9 * len(words))
    Xtr, Ytr = build_dataset(words[:n1], stoi)
    Xdev, Ydev = build_dataset(words[n1:n2], stoi)
    Xte, Yte = build_dataset(words[n2:], stoi)

    g = np.random.default_rng(arguments.seed)
    model = make_model(vocab_size, g)
    print(
        f"{sum(p.size for p in model.parameters()):,} parameters; the loss of pure chance is {math.log(vocab_size):.4f}"
    )
    seen = train(model, Xtr, Ytr, arguments.steps, g)
    for name, X, Y in (("train", Xtr, Ytr), ("dev", Xdev, Ydev), ("test", Xte, Yte)):
        print(f"{name:<5} {split_loss(model, X, Y):.4f}")
    print(*(f"  {sample(model, itos, longest, g)}" for _ in range(arguments.samples)), sep="\n")
    write_atomically(out, draw(seen, f"{Path(arguments.names).name}: {arguments.steps:,} steps of {BATCH_SIZE}"))
    print(f"drawn: {out}")
    return cli.DONE


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fastmlp.examples.makemore") -> int:
    """Run the command."""
    return cli.run(makemore, make_parser(prog), arguments)


if __name__ == "__main__":
    sys.exit(main())
