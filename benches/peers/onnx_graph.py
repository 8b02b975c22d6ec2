"""Writes the encoder of a checkpoint as ONNX graphs: `onnx_graph.py CHECKPOINT F32.onnx INT8.onnx`.

The input is `ids` [batch, tokens], the output `states` [batch, tokens, hidden]. The graph computes what
the timed inputs need and no more: no mask, token type 0. The second file is the first through ONNX
Runtime's dynamic quantisation, per channel.
"""

import logging
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from checkpoint import Checkpoint

ACTIVATIONS = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}
# Of [batch, tokens, heads, head] for the queries, the keys transposed, the values.
ORDERS = [0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]


class Graph:
    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(self, kind, *inputs, **attributes):
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def linear(self, x, weight, bias):
        product = self.op("MatMul", x, self.constant(weight.T))
        return self.op("Add", product, self.constant(bias))


def encoder(bert):
    graph = Graph()
    op, constant = graph.op, graph.constant
    split = constant(np.array([0, 0, bert.heads, bert.hidden // bert.heads]))
    merge = constant(np.array([0, 0, bert.hidden]))
    zero = constant(np.array([0]))

    def norm(x, name):
        weight, bias = (constant(part) for part in bert.linear(name))
        return op("LayerNormalization", x, weight, bias, axis=-1, epsilon=bert.eps)

    words = op("Gather", constant(bert("embeddings.word_embeddings.weight")), "ids")
    tokens = op("Shape", "ids", start=1, end=2)
    positions = op("Slice", constant(bert.positions()), zero, tokens)
    x = norm(op("Add", words, positions), "embeddings.LayerNorm")
    for layer in bert.layer_names():
        # As other exporters write it: runtimes look for this pattern.
        q, k, v = (
            op("Transpose", op("Reshape", graph.linear(x, *part), split), perm=perm)
            for part, perm in zip(bert.query_key_value(layer), ORDERS)
        )
        scores = op("MatMul", q, k)
        context = op("MatMul", op("Softmax", scores, axis=-1), v)
        context = op("Reshape", op("Transpose", context, perm=[0, 2, 1, 3]), merge)
        context = graph.linear(context, *bert.linear(f"{layer}.attention.output.dense"))
        x = norm(op("Add", context, x), f"{layer}.attention.output.LayerNorm")
        kind, attributes = ACTIVATIONS[bert.activation]
        inner = op(kind, graph.linear(x, *bert.linear(f"{layer}.intermediate.dense")), **attributes)
        inner = graph.linear(inner, *bert.linear(f"{layer}.output.dense"))
        x = norm(op("Add", inner, x), f"{layer}.output.LayerNorm")
    graph.nodes[-1].output[0] = "states"

    value = helper.make_tensor_value_info
    inputs = [value("ids", TensorProto.INT64, ["batch", "tokens"])]
    outputs = [value("states", TensorProto.FLOAT, ["batch", "tokens", bert.hidden])]
    graph = helper.make_graph(graph.nodes, "bert", inputs, outputs, graph.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def main(checkpoint, f32, int8):
    model = encoder(Checkpoint(checkpoint))
    onnx.checker.check_model(model)
    onnx.save(model, f32)

    from onnxruntime.quantization import QuantType, quantize_dynamic

    # It advises steps that change the graph of other models.
    logging.disable(logging.WARNING)
    quantize_dynamic(
        f32,
        int8,
        op_types_to_quantize=["MatMul", "Gather"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
