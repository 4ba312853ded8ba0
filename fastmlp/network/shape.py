"""How large a network is, and what its parameters are called."""

import math
from dataclasses import dataclass

__all__ = ["NetworkShape"]

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class NetworkShape:
    """How large the network is.

    vocabulary  V: words, "<unk>" included
    context     T: words that are looked at
    embed       D: width of the embedding
    hidden      H of each hidden layer
    """

    vocabulary: int
    context: int = 4
    embed: int = 30
    hidden: tuple[int, ...] = (300, 300)

    def __post_init__(self) -> None:
        for name, size in (("vocabulary", self.vocabulary), ("context", self.context), ("embed", self.embed)):
            if size < 1:
                raise ValueError(f"{name}: expected at least 1, got {size}")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden: expected one width or more, each at least 1, got {self.hidden}")

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each parameter, in the order of the network."""
        shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (self.vocabulary, self.embed)}
        inputs = self.context * self.embed
        for i, width in enumerate(self.hidden):
            shapes[f"hidden.{i}.linear.weight"] = (width, inputs)
            shapes[f"hidden.{i}.batchnorm.weight"] = (width,)
            shapes[f"hidden.{i}.batchnorm.bias"] = (width,)
            inputs = width
        shapes["output.weight"] = (self.vocabulary, inputs)
        shapes["output.bias"] = (self.vocabulary,)
        return shapes

    def statistics(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each running statistic of the batchnorms."""
        return {
            f"hidden.{i}.batchnorm.{name}": () if name == "num_batches_tracked" else (width,)
            for i, width in enumerate(self.hidden)
            for name in STATISTICS
        }

    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(math.prod(shape) for shape in self.parameters().values())
