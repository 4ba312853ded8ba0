"""ONNX files, in which programs of many languages take a network: onnxruntime, TensorRT, browsers.

    near    int64 (batch, T)  ids of the T words just before; the sentence end where the text has not begun
    far     int64 (batch, K)  ids of the K words before these, the last one last; -1 where the text has not begun
    logits  float (batch, V)  of the next word

A network without averages has no `far`. The file's metadata has the words in the order of their ids ("vocabulary", in
JSON), the tokenizer's name and the number of its rules. A file is a message of protocol buffers, whose encoding is a
page long, so it is written here: https://protobuf.dev/programming-guides/encoding.
"""

import json
from collections.abc import Iterable

import numpy as np

from fastmlp import __version__
from fastmlp.errors import ModelError
from fastmlp.prediction.folded import folded_layers
from fastmlp.prediction.neural import NeuralModel

__all__ = ["onnx_bytes"]

Array = np.ndarray
IR_VERSION, OPSET = 8, 17  # of ONNX 1.12, 2022: what runs in a browser lags behind
LARGEST = 2**31 - 1  # bytes of a message
FLOAT, INT64 = 1, 7  # TensorProto.DataType
TENSOR_TYPE = {np.dtype("float32"): FLOAT, np.dtype("int64"): INT64}
OF_FLOAT, OF_INT = 1, 2  # AttributeProto.AttributeType

# ------------------------------------------------------------------------------------------------------------- messages


def varint(value: int) -> bytes:
    """Return a number of at least 0, seven bits a byte, the lowest first."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def field(number: int, value: int | float | str | bytes) -> bytes:
    """Return a field of a message; a message in it is given as its bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + np.float32(value).tobytes()
    given = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(given)) + given


def repeated(number: int, values: Iterable[int | str | bytes]) -> bytes:
    """Return a field for each of the values."""
    return b"".join(field(number, value) for value in values)


def tensor(name: str, values: Array) -> bytes:
    """Return a TensorProto: dims 1, data_type 2, name 8, raw_data 9."""
    described = repeated(1, values.shape) + field(2, TENSOR_TYPE[values.dtype]) + field(8, name)
    return described + field(9, np.ascontiguousarray(values).tobytes())


def value_info(name: str, kind: int, width: int) -> bytes:
    """Return a ValueInfoProto of (batch, width): name 1, type 2 (tensor_type 1 (elem_type 1, shape 2 (dim 1)))."""
    shape = field(1, field(2, "batch")) + field(1, field(1, width))
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, shape)))


def attribute(name: str, value: int | float) -> bytes:
    """Return an AttributeProto: name 1, f 2, i 3, type 20."""
    is_float = isinstance(value, float)
    return field(1, name) + field(2 if is_float else 3, value) + field(20, OF_FLOAT if is_float else OF_INT)


class Graph:
    """A GraphProto in the making; a value's name is how the next node takes it."""

    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self.initializers: list[bytes] = []

    def constant(self, name: str, values: Array) -> str:
        """Add an array and return its name."""
        self.initializers.append(tensor(name, values))
        return name

    def node(self, op: str, *inputs: str, out: str = "", **attributes: int | float) -> str:
        """Add a node, NodeProto: input 1, output 2, op_type 4, attribute 5; return the name of its result."""
        out = out or f"{op.lower()}_{len(self.nodes)}"
        described = repeated(5, (attribute(name, value) for name, value in attributes.items()))
        self.nodes.append(repeated(1, inputs) + field(2, out) + field(4, op) + described)
        return out


# ------------------------------------------------------------------------------------------------------------ a network


def onnx_bytes(model: NeuralModel) -> bytes:
    """Return a network as an ONNX file. Raise ModelError for one of more than 2 GB, which such a file cannot hold."""
    if sum(array.nbytes for array in model.network.parameters.values()) > LARGEST:
        raise ModelError("an ONNX file holds 2 GB, and this network is larger")
    shape, graph = model.network.shape, Graph()
    x = _layers(graph, model, _context(graph, model))
    output = model.network.layers.output
    assert output.bias is not None
    head = "embedding" if shape.tied else graph.constant("output.weight", output.weight)
    graph.node("Gemm", x, head, graph.constant("output.bias", output.bias), out="logits", transB=1)
    inputs = [value_info("near", INT64, shape.context)]
    if shape.averages:
        inputs.append(value_info("far", INT64, shape.reach))
    body = repeated(1, graph.nodes) + field(2, "fastmlp") + repeated(5, graph.initializers)
    body += repeated(11, inputs) + field(12, value_info("logits", FLOAT, shape.vocabulary))
    said = {
        "vocabulary": json.dumps(model.vocabulary.words, ensure_ascii=False),
        "tokenizer": model.tokenizer.name,
        "rules": str(model.tokenizer.rules),
    }
    return (
        field(1, IR_VERSION)
        + field(2, "fastmlp")
        + field(3, __version__)
        + field(7, body)
        + field(8, field(1, "") + field(2, OPSET))
        + repeated(14, (field(1, name) + field(2, value) for name, value in said.items()))
    )


def _context(graph: Graph, model: NeuralModel) -> str:
    """Add the input of the first layer (batch, I): embeddings of the words just before, averages of those further back.

    Where training never saw `<unk>`, the mean embedding is read for it, and averages leave it out.
    """
    shape, unknown = model.network.shape, model.unknown_embedding()
    embedding = graph.constant("embedding", model.network.layers.embedding.weight)
    unk = graph.constant("unk", np.array(shape.vocabulary - 1))
    x = graph.node("Gather", embedding, "near")
    if unknown is not None:
        is_unk = graph.node("Unsqueeze", graph.node("Equal", "near", unk), graph.constant("last", np.array([2])))
        x = graph.node("Where", is_unk, graph.constant("unknown", unknown), x)
    flat = graph.constant("flat", np.array([0, -1]))
    x = graph.node("Reshape", x, flat)
    if not shape.averages:
        return x
    nothing = graph.constant("nothing", np.array(-1))
    counts = graph.node("Greater", "far", nothing)
    if unknown is not None:
        counts = graph.node("And", counts, graph.node("Less", "far", unk))
    word = graph.node("Where", counts, "far", graph.constant("any", np.array(0)))
    mask = graph.node("Unsqueeze", graph.node("Cast", counts, to=FLOAT), graph.constant("width", np.array([2])))
    emb = graph.node("Mul", graph.node("Gather", embedding, word), mask)
    decays = np.array(shape.averages)[:, None]
    weights = np.sqrt(1 - decays) * decays ** np.arange(shape.reach)[::-1]  # the last word counts most
    averages = graph.node("MatMul", graph.constant("decays", weights.astype(np.float32)), emb)
    return graph.node("Concat", x, graph.node("Reshape", averages, flat), axis=1)


def _layers(graph: Graph, model: NeuralModel, x: str) -> str:
    """Add the layers between the embeddings and the output layer."""
    for number, layer in enumerate(folded_layers(model.network)):
        weight, bias = (
            graph.constant(f"{number}.{name}", values.astype(np.float32))
            for name, values in (("weight", layer.weight), ("bias", layer.bias))
        )
        y = graph.node("Gemm", x, weight, bias, transB=1)
        if layer.activated:
            y = _activation(graph, model.network.shape.activation, y)
        x = graph.node("Add", x, y) if layer.residual else y
    return x


def _activation(graph: Graph, name: str, x: str) -> str:
    if name != "gelu":
        return graph.node(name.capitalize(), x)
    root = graph.constant(f"root of 2 for {x}", np.array(np.sqrt(2), np.float32))
    half = graph.constant(f"half for {x}", np.array(0.5, np.float32))
    one = graph.constant(f"one for {x}", np.array(1, np.float32))
    factor = graph.node("Add", graph.node("Erf", graph.node("Div", x, root)), one)
    return graph.node("Mul", graph.node("Mul", x, half), factor)
