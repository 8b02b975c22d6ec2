"""Writes the encoder of a checkpoint for LiteRT: `litert_graph.py CHECKPOINT F32.tflite INT8.tflite`.

Written operator by operator, because the converters that there are bring a training framework along.
The inputs are `ids` and `positions`, [tokens] each, and may be resized; the output is [tokens, hidden].
In the second file the matrices are int8 by output channel, and the runtime quantises the activations
by token.
"""

import sys
from pathlib import Path

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np

from checkpoint import Checkpoint

TYPES = {"float32": "FLOAT32", "int32": "INT32", "int8": "INT8"}
ACTIVATIONS = {
    "gelu": ("GELU", {"approximate": False}),
    "gelu_new": ("GELU", {"approximate": True}),
    "gelu_pytorch_tanh": ("GELU", {"approximate": True}),
    "relu": ("RELU", {}),
}


class Graph:
    def __init__(self, int8):
        self.int8 = int8
        self.tensors, self.operators, self.codes = [], [], []
        # The first buffer is that of tensors without content.
        self.buffers = [schema.BufferT()]

    def tensor(self, shape, dtype="float32", buffer=0, scale=None):
        tensor = schema.TensorT(
            name=f"t{len(self.tensors)}",
            shape=list(shape),
            # Any number of tokens.
            shapeSignature=[-1 if size == 1 else size for size in shape] if not buffer else None,
            type=getattr(schema.TensorType, TYPES[dtype]),
            buffer=buffer,
        )
        if scale is not None:
            zeros = np.zeros(len(scale), np.int64)
            tensor.quantization = schema.QuantizationParametersT(
                scale=scale, zeroPoint=zeros, quantizedDimension=0
            )
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, value, scale=None):
        value = np.ascontiguousarray(value)
        data = np.frombuffer(value.tobytes(), np.uint8)
        self.buffers.append(schema.BufferT(data=data))
        return self.tensor(value.shape, value.dtype.name, len(self.buffers) - 1, scale)

    def integers(self, *values):
        return self.constant(np.array(values, np.int32))

    def op(self, kind, inputs, *shapes, options=None, **fields):
        """The tensors that come out, of these shapes."""
        code = getattr(schema.BuiltinOperator, kind)
        if code not in self.codes:
            self.codes.append(code)
        operator = schema.OperatorT(
            opcodeIndex=self.codes.index(code),
            inputs=inputs,
            outputs=[self.tensor(shape) for shape in shapes],
        )
        if options:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, options + "T")(**fields)
        self.operators.append(operator)
        return operator.outputs[0] if len(shapes) == 1 else operator.outputs

    def linear(self, x, weight, bias):
        if self.int8:
            scale = np.abs(weight).max(axis=1) / np.float32(127)
            weight = self.constant(np.rint(weight / scale[:, None]).astype(np.int8), scale)
        else:
            weight = self.constant(weight)
        return self.op(
            "FULLY_CONNECTED",
            [x, weight, self.constant(bias)],
            (1, len(bias)),
            options="FullyConnectedOptions",
            asymmetricQuantizeInputs=self.int8,
        )

    def binary(self, kind, a, b, width):
        options = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions"}.get(kind)
        return self.op(kind, [a, b], (1, width), options=options)

    def norm(self, x, weight, bias, eps):
        hidden, axis = len(weight), self.integers(1)
        mean = lambda x: self.op("MEAN", [x, axis], (1, 1), options="ReducerOptions", keepDims=True)
        centred = self.binary("SUB", x, mean(x), hidden)
        variance = mean(self.binary("MUL", centred, centred, hidden))
        variance = self.binary("ADD", variance, self.constant(np.array([eps], np.float32)), 1)
        x = self.binary("MUL", centred, self.op("RSQRT", [variance], (1, 1)), hidden)
        x = self.binary("MUL", x, self.constant(weight), hidden)
        return self.binary("ADD", x, self.constant(bias), hidden)


def encoder(bert, int8):
    graph = Graph(int8)
    hidden, heads = bert.hidden, bert.heads
    head = hidden // heads
    inputs = [graph.tensor((1,), "int32") for _ in range(2)]
    swap = graph.integers(1, 0, 2)
    first = graph.integers(0)
    to_heads, merge = graph.integers(-1, 3 * heads, head), graph.integers(-1, hidden)

    def gather(table, ids):
        table = graph.constant(table)
        return graph.op("GATHER", [table, ids], (1, hidden), options="GatherOptions")

    def product(a, b, shape, transposed):
        options = {"options": "BatchMatMulOptions", "adjY": transposed}
        return graph.op("BATCH_MATMUL", [a, b], shape, **options)

    words = gather(bert("embeddings.word_embeddings.weight"), inputs[0])
    x = graph.binary("ADD", words, gather(bert.positions(), inputs[1]), hidden)
    x = graph.norm(x, *bert.linear("embeddings.LayerNorm"), bert.eps)
    for layer in bert.layer_names():
        parts = zip(*bert.query_key_value(layer))
        qkv = graph.linear(x, *(np.concatenate(part) for part in parts))
        qkv = graph.op("RESHAPE", [qkv, to_heads], (1, 3 * heads, head))
        qkv = graph.op("TRANSPOSE", [qkv, swap], (3 * heads, 1, head))
        parts = [(heads, 1, head)] * 3
        q, k, v = graph.op("SPLIT", [first, qkv], *parts, options="SplitOptions", numSplits=3)
        scores = product(q, k, (heads, 1, 1), True)
        scores = graph.op("SOFTMAX", [scores], (heads, 1, 1), options="SoftmaxOptions", beta=1.0)
        context = product(scores, v, (heads, 1, head), False)
        context = graph.op("TRANSPOSE", [context, swap], (1, heads, head))
        context = graph.op("RESHAPE", [context, merge], (1, hidden))
        context = graph.linear(context, *bert.linear(f"{layer}.attention.output.dense"))
        x = graph.binary("ADD", context, x, hidden)
        x = graph.norm(x, *bert.linear(f"{layer}.attention.output.LayerNorm"), bert.eps)
        weight, bias = bert.linear(f"{layer}.intermediate.dense")
        inner = graph.linear(x, weight, bias)
        kind, fields = ACTIVATIONS[bert.activation]
        options = {"options": "GeluOptions", **fields} if kind == "GELU" else {}
        inner = graph.op(kind, [inner], (1, len(bias)), **options)
        inner = graph.linear(inner, *bert.linear(f"{layer}.output.dense"))
        x = graph.binary("ADD", inner, x, hidden)
        x = graph.norm(x, *bert.linear(f"{layer}.output.LayerNorm"), bert.eps)

    subgraph = schema.SubGraphT(
        name="bert", tensors=graph.tensors, operators=graph.operators, inputs=inputs, outputs=[x]
    )
    # Codes from 127 stand in the second field alone.
    codes = [
        schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=1)
        for code in graph.codes
    ]
    return schema.ModelT(
        version=3, operatorCodes=codes, subgraphs=[subgraph], buffers=graph.buffers
    )


def main(checkpoint, f32, int8):
    for path, quantised in (f32, False), (int8, True):
        builder = flatbuffers.Builder(1 << 27)
        model = encoder(Checkpoint(checkpoint), quantised)
        builder.Finish(model.Pack(builder), b"TFL3")
        Path(path).write_bytes(builder.Output())


if __name__ == "__main__":
    main(*sys.argv[1:])
