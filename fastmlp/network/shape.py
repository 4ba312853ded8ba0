"""The sizes and parts of a network."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from fastmlp.options import LONGEST_REACH

__all__ = ["ACTIVATIONS", "NetworkShape"]

ACTIVATIONS = ("tanh", "gelu", "relu")


@dataclass(frozen=True)
class NetworkShape:
    """The sizes and parts of a network. The defaults are those of Bengio et al. (2003) with batch normalization.

    vocabulary  V: words, "<unk>" included
    context     T: number of words just before that are read side by side
    embed       D: width of the embedding
    hidden      H: width of each hidden layer (linear, batchnorm, activation)
    averages    decays of the averages of the words before the context, each in (0, 1)
    reach       K: number of words that are averaged
    blocks      number of further hidden layers, of the last width
    residual    whether the output of a block is added to its input
    activation  "tanh", "gelu" or "relu"
    projection  whether a linear layer of width D precedes the output layer
    tied        whether the output layer's weight is the embedding's
    dropout     dropout probabilities: of the input, of each hidden layer, before the output layer
    embed_std   initial standard deviation of the embedding
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
        if self.reach > LONGEST_REACH:
            raise ValueError(f"reach: expected at most {LONGEST_REACH:,} words, got {self.reach:,}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if self.tied and not self.projection:
            raise ValueError("projection: expected one where the weights are tied")
        if len(self.dropout) != 3 or not all(0 <= share < 1 for share in self.dropout):
            raise ValueError(f"dropout: expected three shares of at least 0 and below 1, got {self.dropout}")

    @property
    def inputs(self) -> int:
        """The width of the first hidden layer's input."""
        return (self.context + len(self.averages)) * self.embed

    def to_dict(self) -> dict[str, Any]:
        """Return all fields but the vocabulary, for JSON; fields that old checkpoints lack only if not the default."""
        default = NetworkShape(self.vocabulary)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name in ("context", "embed", "hidden") or (name != "vocabulary" and value != getattr(default, name))
        }

    @classmethod
    def from_dict(cls, vocabulary: int, values: dict[str, Any]) -> "NetworkShape":
        """Make a shape from the result of `to_dict`. Raise ValueError for an unknown field or another type."""
        if not isinstance(values, dict):
            raise ValueError("its network is not described by names")
        if unknown := values.keys() - ({field.name for field in fields(cls)} - {"vocabulary"}):
            names = ", ".join(sorted(unknown))
            raise ValueError(f"its network has {names}, not known to this fastmlp; upgrade fastmlp")
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        default = cls(1)
        for name, value in given.items():
            if not _is_like(getattr(default, name), value):
                raise ValueError(f"{name}: not of the type that it has in a network: {value!r}")
        return cls(vocabulary, **given)


def _is_like(default: Any, value: Any) -> bool:
    """Whether a value, as JSON has it, is of a default's type; the default of a tuple of floats has none or floats."""
    if isinstance(default, tuple):
        numbers = int if default and isinstance(default[0], int) else (int, float)
        return isinstance(value, tuple) and all(isinstance(n, numbers) and not isinstance(n, bool) for n in value)
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(default)
