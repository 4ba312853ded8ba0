"""How large a network is."""

from dataclasses import dataclass

__all__ = ["NetworkShape"]


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
