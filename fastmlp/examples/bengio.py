"""Train the network of `--hidden 300,300` without the trainer: python -m fastmlp.examples.bengio [TEXT.txt].

This is the network of Bengio, Ducharme, Vincent and Jauvin (2003) with batch normalization, built of fastmlp.nn and
trained with fastmlp.optim: the same kernels as in `python -m fastmlp.train`, and the same bits from the same weights.
The program prints the loss and a text that the network writes.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastmlp import cli
from fastmlp.options import whole

if TYPE_CHECKING:
    import numpy as np

    from fastmlp.nn import Sequential
    from fastmlp.text import Vocabulary

T, D, H = 4, 30, 300  # words of context, width of an embedding, width of a hidden layer
BATCH_SIZE = 128


def train(ids: "np.ndarray", vocabulary: "Vocabulary", steps: int) -> "Sequential":
    """Train a network on the windows of a text and print its loss. Return it: a module for the next word's logits.

    ids         (N,)  the text
    vocabulary        its words
    """
    from fastmlp import nn, optim
    from fastmlp.data import RandomBatches, Windows

    batches, V = RandomBatches(Windows(ids, T), BATCH_SIZE, seed=1), len(vocabulary)
    body = nn.Sequential(
        *(nn.Embedding(V, D, rng=1), nn.Flatten()),
        *(nn.Linear(T * D, H, bias=False, rng=2), nn.BatchNorm1d(H), nn.Tanh()),
        *(nn.Linear(H, H, bias=False, rng=3), nn.BatchNorm1d(H), nn.Tanh()),
    )
    criterion = nn.LinearCrossEntropyLoss(H, V, bias=True, rng=4)
    optimizer = optim.AdamW(body.parameters() + criterion.parameters(), lr=0.002)
    for step in range(1, steps + 1):
        batch = batches.batch(step - 1)
        loss = criterion.step(
            body(batch.near), batch.targets, optimizer
        )  # updates the output layer's weight too: 98 % of the work
        body.backward(criterion.backward())
        optimizer.step()
        if step in (1, steps) or step % 100 == 0:
            print(f"step {step:,}/{steps:,}  loss {loss:.3f}", flush=True)
    return nn.Sequential(*body, criterion.linear).eval()


def write(model: "Sequential", vocabulary: "Vocabulary", start: list[str], words: int) -> list[str]:
    """Return `start` and the words that follow, each drawn from the network's probabilities."""
    import numpy as np

    from fastmlp.functional import softmax

    rng, ids = np.random.default_rng(1), vocabulary.encode(start).tolist()
    while len(ids) < len(start) + words:
        p = softmax(model([ids[-T:]]), dim=1)[0].astype(np.float64)
        ids.append(int(rng.choice(len(p), p=p / p.sum())))
    return [vocabulary.words[word] for word in ids]


def train_on(arguments: argparse.Namespace) -> int:
    """Read the text, train, and print a text that the network writes."""
    from fastmlp.text import Vocabulary, get_tokenizer, read_text, standard_library_text

    text = read_text([arguments.text]) if arguments.text else standard_library_text()
    tokenizer = get_tokenizer("words")
    words = tokenizer.split(text.text)
    vocabulary = Vocabulary.from_words(words)
    model = train(vocabulary.encode(words), vocabulary, arguments.steps)
    print(tokenizer.join(write(model, vocabulary, words[:T], 30)))
    return cli.DONE


def make_parser(prog: str) -> cli.Parser:
    """Return the parser of the command's arguments."""
    parser = cli.Parser(prog=prog, description="Train the network of Bengio et al. (2003), built of fastmlp.nn.")
    parser.add_argument(
        "text", nargs="?", metavar="TEXT.txt", help="a text (default: the standard library's documentation)"
    )
    steps = cli.typed(whole(1))
    parser.add_argument("--steps", type=steps, metavar="N", default=500, help="number of training steps (default: 500)")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fastmlp.examples.bengio") -> int:
    """Run the command."""
    return cli.run(train_on, make_parser(prog), arguments)


if __name__ == "__main__":
    sys.exit(main())
