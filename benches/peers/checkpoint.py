"""What all converters read of a checkpoint: its shape and its weights, in f32."""

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open


class Checkpoint:
    def __init__(self, folder):
        config = json.loads((Path(folder) / "config.json").read_text())
        self.hidden = config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.layers = config["num_hidden_layers"]
        self.eps = config.get("layer_norm_eps", 1e-12)
        self.activation = config.get("hidden_act", "gelu")
        file = safe_open(Path(folder) / "model.safetensors", framework="numpy")
        self.tensors = {name.removeprefix("bert."): name for name in file.keys()}
        self.file = file

    def __call__(self, name):
        return self.file.get_tensor(self.tensors[name]).astype(np.float32)

    def linear(self, name):
        """`[outputs, inputs]`, `[outputs]`."""
        return self(name + ".weight"), self(name + ".bias")

    def query_key_value(self, layer):
        """Their matrices; that of the queries has the attention's 1 / sqrt(head) in it."""
        parts = [self.linear(f"{layer}.attention.self.{name}") for name in ("query", "key", "value")]
        scale = np.float32((self.hidden // self.heads) ** -0.5)
        return [tuple(part * scale for part in parts[0]), *parts[1:]]

    def positions(self):
        """`[positions, hidden]`, with token type 0 added: no input here has another."""
        embeddings = "embeddings.{}_embeddings.weight"
        return self(embeddings.format("position")) + self(embeddings.format("token_type"))[0]

    def layer_names(self):
        return [f"encoder.layer.{i}" for i in range(self.layers)]
