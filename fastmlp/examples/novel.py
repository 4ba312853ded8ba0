# %% [markdown]
"""
# From letters to a novel

Three networks, each of which sees more of a text than the one before. The first spells words letter by letter, as in
part 3 of makemore, of the lectures "Neural Networks: Zero to Hero". The second, as in part 5, is deeper and joins
letters two by two. The third writes word by word and is that of Bengio et al. (2003), with what has been added since.
The layers are those of `fastmlp.nn`. They work on NumPy arrays, and their backward pass is called as the forward pass
is, from the last layer to the first.

This is a notebook, `novel.ipynb`, and the same cells as a program: `python -m fastmlp.examples.novel`.
"""

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from fastmlp import LanguageModel, nn, optim
from fastmlp.functional import softmax
from fastmlp.text import Vocabulary, get_tokenizer, read_text, standard_library_text

NOVEL = ""  # the path of a text of yours, such as "hp.txt"; "": the documentation of Python's standard library
STEPS = 10_000  # of each network of letters

# %% [markdown]
"""
## The words of a text, as letters

Where makemore has a list of names, this notebook has the words that came at least three times in the text. From these
a network learns how words are spelled, and makes up others. A dot stands before the first letter and after the last.
"""

# %%
text = read_text([NOVEL]) if NOVEL else standard_library_text()
tokens = get_tokenizer("words").split(text.text)
seen = Vocabulary.from_words(tokens, min_count=3).words
spelled = [word for word in seen if word.isalpha() and 3 <= len(word) <= 12]
np.random.default_rng(1).shuffle(spelled)
letters = "." + "".join(sorted(set("".join(spelled))))
number_of = {letter: number for number, letter in enumerate(letters)}
V = len(letters)
print(f"{len(spelled):,} words, such as {', '.join(spelled[:8])}")
print(f"{V} letters with the dot: {letters}")


def windows(words: list[str], T: int) -> tuple[np.ndarray, np.ndarray]:
    """For each letter and each end: the T letters before it (N, T), and its own number (N,)."""
    before, after = [], []
    for word in words:
        row = [0] * T
        for letter in word + ".":
            before.append(row)
            after.append(number_of[letter])
            row = [*row[1:], number_of[letter]]
    return np.array(before), np.array(after)


held_out = len(spelled) // 10
for T in (3, 8):
    X, Y = windows(spelled[:3], T)
    print(*("".join(letters[i] for i in x) + " -> " + letters[y] for x, y in zip(X[:5], Y, strict=False)), sep="   ")

# %% [markdown]
"""
## Why batch normalization

The network sees three letters, each as 10 numbers, and has two hidden layers of 100. What comes out of these before
any training, if their weights happen to be ten times too large? Without batch normalization most outputs of tanh are
near -1 or 1, where it is flat and lets no gradient through. With it they are spread out, whatever the weights.
"""


# %%
def network_of_three(*, normalized: bool, gain: float = 1.0) -> nn.Sequential:
    """Three letters before, two hidden layers, the logits of the next letter."""
    layers: list[nn.Module] = [nn.Embedding(V, 10, rng=1), nn.Flatten()]
    for width, seed in ((30, 2), (100, 3)):
        linear = nn.Linear(width, 100, bias=not normalized, rng=seed)
        linear.weight[...] *= gain
        layers += [linear, *([nn.BatchNorm1d(100)] if normalized else []), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(100, V, rng=4))


X, Y = windows(spelled[held_out:], 3)
figure, axes = plt.subplots(1, 2, figsize=(9, 2.5), sharey=True, layout="constrained")
for place, normalized in zip(axes, (False, True), strict=True):
    h: np.ndarray = X[:512]
    for layer in network_of_three(normalized=normalized, gain=10.0)[:-1]:
        h = layer(h)
        if isinstance(layer, nn.Tanh):
            place.hist(h.ravel(), bins=40, density=True, histtype="step")
    place.set(title=f"{'with' if normalized else 'without'} batch normalization", xlabel="outputs of both tanh")
    print(f"normalized: {normalized!s:5}  of the last tanh {np.mean(abs(h) > 0.97):.0%} saturated")
plt.show()

# %% [markdown]
"""
## Training

The loop is PyTorch's but for one line. Nothing records what was computed, so there is no `loss.backward()`: the
gradient of the loss goes through the network by `model.backward(criterion.backward())`. Losses are in nats a letter;
that of pure chance is the logarithm of the number of letters, ln 27 = 3.3 for 26 and the dot.
"""


# %%
def train(model: nn.Sequential, X: np.ndarray, Y: np.ndarray) -> list[float]:
    """Stochastic gradient descent on random batches; a tenth of the rate for the last quarter. Return the losses."""
    criterion, optimizer = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1)
    batches, losses = np.random.default_rng(2), []
    for step in range(STEPS):
        rows = batches.integers(0, len(X), 64)
        losses.append(float(criterion(model(X[rows]), Y[rows])))
        model.backward(criterion.backward())
        optimizer.param_groups[0]["lr"] = 0.1 if step < 0.75 * STEPS else 0.01
        optimizer.step()
    return losses


def loss_of(model: nn.Sequential, X: np.ndarray, Y: np.ndarray) -> float:
    """Return the loss on all windows, with the running statistics of batch normalization."""
    return float(nn.CrossEntropyLoss()(model.eval()(X), Y))


def invent(model: nn.Sequential, T: int, count: int = 12) -> list[str]:
    """Draw words, letter by letter, until each comes to its dot."""
    draw, words = np.random.default_rng(3), []
    for _ in range(count):
        ids = [0] * T
        while len(ids) == T or (ids[-1] and len(ids) < T + 20):
            p = softmax(model.eval()(np.array([ids[-T:]])), dim=1)[0].astype(np.float64)
            ids.append(int(draw.choice(V, p=p / p.sum())))
        words.append("".join(letters[i] for i in ids[T:]).rstrip("."))
    return words


three = network_of_three(normalized=True)
losses = {"three letters": train(three, X, Y)}


def report(model: nn.Sequential, T: int, of_steps: list[float]) -> None:
    """Print the losses, and words that the model invents."""
    loss = loss_of(model, *windows(spelled[:held_out], T))
    print(f"loss {np.mean(of_steps[-100:]):.3f} in training, {loss:.3f} on words that were held out")
    print(*invent(model, T), sep=", ")


report(three, 3, losses["three letters"])

# %% [markdown]
"""
## More letters, two by two

One layer that saw eight letters side by side would press them together at once. Here each two letters become a vector,
each two of these vectors another, and so on until one is left. The layer that joins them shows how to write a layer:
`forward` returns the output, and `backward` takes the output's gradient and returns the input's. What is joined becomes
a row of its own, so that batch normalization takes its statistics from all pairs of the batch.
"""


# %%
class Pairs(nn.Module):
    """Join each two neighboring vectors: (N, ..., D) to (N * ... / 2, 2 D)."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return rows of two vectors each."""
        self.shape = x.shape
        return x.reshape(-1, 2 * x.shape[-1])

    def backward(self, grad: np.ndarray) -> np.ndarray:
        """Return the gradient in the shape of the input."""
        return grad.reshape(self.shape)


def joined(width_before: int, width: int, seed: int) -> list[nn.Module]:
    """Return the layers that make one vector of two."""
    linear = nn.Linear(2 * width_before, width, bias=False, rng=seed)
    return [Pairs(), linear, nn.BatchNorm1d(width), nn.Tanh()]


eight = nn.Sequential(
    nn.Embedding(V, 10, rng=1),
    *(*joined(10, 80, 2), *joined(80, 80, 3), *joined(80, 80, 4)),
    nn.Linear(80, V, rng=5),
)
X, Y = windows(spelled[held_out:], 8)
losses["eight letters, in pairs"] = train(eight, X, Y)
report(eight, 8, losses["eight letters, in pairs"])

figure, place = plt.subplots(figsize=(6, 3), layout="constrained")
for name, of_steps in losses.items():
    parts = np.array_split(of_steps, 50)  # means of neighboring steps: a batch alone is noisy
    place.plot(np.linspace(0, STEPS, 50), [part.mean() for part in parts], label=name)
place.set(xlabel="step", ylabel="loss, nats a letter")
place.legend()
plt.show()

# %% [markdown]
"""
## Word by word

The same with words instead of letters is the network of Bengio et al. (2003). Its vocabulary is every word of the text,
and most of the work is in the last layer, whose softmax goes over all of them: `LanguageModel` makes this layer, its
loss and the update of its weights in one op. Beside the network it counts which words follow which. The last twentieth
of the text is held out; perplexity says among how many equally likely words the model hesitates there.
"""

# %%
model = LanguageModel()
history = model.fit(Path(NOVEL) if NOVEL else text.text, epochs=1, progress=False)
print(model)
print(history)

# %%
last = tokens[-2_000:]
first = last.index(".") + 1
start = " ".join(last[first : first + 4])  # of a sentence that was held out
print(f"after {start!r} the network expects")
for word, probability in model.next_word(start, 5, mixture="network"):
    print(f"{probability:6.1%}  {word}")
for word in Vocabulary.from_words(tokens).words[20:24]:
    print(f"used like {word!r}:", *(other for other, cosine in model.neighbors(word, 6)))

# %%
for mixture in ("network", "counts", "all together"):
    found = model.perplexity(" ".join(last), mixture=True if mixture == "all together" else mixture)
    print(f"{mixture:12}  perplexity {found:6.1f} on the last {len(last):,} words")
print(model.generate(start, words=60, seed=1))
