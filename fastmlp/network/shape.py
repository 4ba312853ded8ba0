"""What a network is made of: its sizes and its parts."""

from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["ACTIVATIONS", "NetworkShape"]

ACTIVATIONS = ("tanh", "gelu", "relu")


@dataclass(frozen=True)
class NetworkShape:
    """What a network is made of. The defaults are the network of Bengio et al. (2003) with batch normalization.

    vocabulary  V: words, "<unk>" included
    context     T: the words just before that are looked at, side by side
    embed       D: width of the embedding
    hidden      H of each hidden layer: linear, batchnorm, activation
    averages    decays of the averages of the words before the context, each in (0, 1)
    reach       K: how many words these averages are made of
    blocks      how many more hidden layers of the last width follow
    residual    whether such a block is added to its input
    activation  "tanh", "gelu" or "relu"
    projection  whether a linear layer of width D precedes the output layer
    tied        whether the output layer's weight is the embedding's
    dropout     shares left out in training: of the input, of each hidden layer, before the output layer
    embed_std   standard deviation of the embedding at the start
    """

    vocabulary: int
    context: int = 4
    embed: int = 30
    hidden: tuple[int, ...] = (300, 300)
    averages: tuple[float, ...] = ()
    reach: int = 0
    blocks: int = 0
    residual: bool = False
    activation: str = "tanh"
    projection: bool = False
    tied: bool = False
    dropout: tuple[float, float, float] = (0.0, 0.0, 0.0)
    embed_std: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("vocabulary", 1), ("context", 1), ("embed", 1), ("blocks", 0)):
            if (size := getattr(self, name)) < least:
                raise ValueError(f"{name}: expected at least {least}, got {size}")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden: expected one width or more, each at least 1, got {self.hidden}")
        if not all(0 < decay < 1 for decay in self.averages):
            raise ValueError(f"averages: expected decays between 0 and 1, got {self.averages}")
        if bool(self.averages) != bool(self.reach) or self.reach < 0:
            raise ValueError(f"reach: expected at least 1 with averages and 0 without, got {self.reach}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if self.tied and not self.projection:
            raise ValueError("projection: expected one where the weights are tied")
        if len(self.dropout) != 3 or not all(0 <= share < 1 for share in self.dropout):
            raise ValueError(f"dropout: expected three shares of at least 0 and below 1, got {self.dropout}")

    @property
    def inputs(self) -> int:
        """The width of what the first hidden layer reads."""
        return (self.context + len(self.averages)) * self.embed

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, but for the vocabulary; what was not known to the first checkpoints only if it is used."""
        default = NetworkShape(self.vocabulary)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name in ("context", "embed", "hidden") or (name != "vocabulary" and value != getattr(default, name))
        }

    @classmethod
    def from_dict(cls, vocabulary: int, values: dict[str, Any]) -> "NetworkShape":
        """What `to_dict` gave. Raises ValueError for what this version does not know."""
        if unknown := values.keys() - {field.name for field in fields(cls)}:
            names = ", ".join(sorted(unknown))
            raise ValueError(f"its network has {names}, not known to this fastmlp; upgrade fastmlp")
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(vocabulary, **given)
