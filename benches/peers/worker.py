"""A runtime with a Python interface behind the protocol of `bertlet bench --protocol`:
`worker.py RUNTIME FILE VOCAB`."""

import os
import sys
import time

THREADS = int(os.environ.get("THREADS", "1"))

# Read when the libraries are loaded.
os.environ["OMP_NUM_THREADS"] = str(THREADS)
import numpy as np


class OnnxRuntime:
    def __init__(self, path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # The fusion's kernel is slower than the two it replaces.
        self.session = onnxruntime.InferenceSession(
            path,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],
        )

    def prepare(self, ids):
        self.binding = self.session.io_binding()
        self.binding.bind_cpu_input("ids", ids)
        self.binding.bind_output("states")

    def run(self):
        self.session.run_with_iobinding(self.binding)

    def states(self):
        return self.binding.copy_outputs_to_cpu()[0]


class OpenVino:
    """Compiled for each length, which is its fastest way."""

    def __init__(self, path, precision=None):
        import openvino

        self.openvino, self.core = openvino, openvino.Core()
        self.model, self.requests = self.core.read_model(path), {}
        self.options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": THREADS,
            "NUM_STREAMS": 1,
            # The driver has chosen the cores.
            "ENABLE_CPU_PINNING": False,
        }
        if precision:
            self.options["INFERENCE_PRECISION_HINT"] = precision

    def prepare(self, ids):
        if ids.shape not in self.requests:
            model = self.model.clone()
            model.reshape(list(ids.shape))
            compiled = self.core.compile_model(model, "CPU", self.options)
            self.requests[ids.shape] = compiled.create_infer_request()
        self.request = self.requests[ids.shape]
        # The tensor borrows the array.
        self.ids = ids
        self.request.set_input_tensor(self.openvino.Tensor(ids, shared_memory=True))

    def run(self):
        self.request.infer(share_outputs=True)

    def states(self):
        return self.request.get_output_tensor(0).data


class LiteRt:
    """An interpreter for each length; a batch is one input after the other."""

    def __init__(self, path):
        from ai_edge_litert.interpreter import Interpreter

        self.make = lambda: Interpreter(model_path=path, num_threads=THREADS)
        self.interpreters = {}

    def prepare(self, ids):
        tokens = ids.shape[1]
        if tokens not in self.interpreters:
            interpreter = self.interpreters[tokens] = self.make()
            inputs = [tensor["index"] for tensor in interpreter.get_input_details()]
            for index in inputs:
                interpreter.resize_tensor_input(index, [tokens])
            interpreter.allocate_tensors()
            interpreter.set_tensor(inputs[1], np.arange(tokens, dtype=np.int32))
        self.interpreter = self.interpreters[tokens]
        self.index = self.interpreter.get_input_details()[0]["index"]
        self.ids = ids.astype(np.int32)

    def run(self):
        for ids in self.ids:
            self.interpreter.set_tensor(self.index, ids)
            self.interpreter.invoke()

    def states(self):
        return self.interpreter.get_tensor(self.interpreter.get_output_details()[0]["index"])


RUNTIMES = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "openvino-f32": lambda path: OpenVino(path, "f32"),
    "litert": LiteRt,
}


def times(runtime, vocab, tokens, repetitions, batch=1):
    row = (np.arange(1, tokens + 1) * 2_654_435_761 % vocab).astype(np.int64)
    runtime.prepare(np.tile(row, (batch, 1)))
    for _ in range(repetitions):
        begin = time.perf_counter_ns()
        runtime.run()
        yield (time.perf_counter_ns() - begin) / 1e3


def write_states(runtime, ids, states):
    with open(ids) as lines, open(states, "wb") as out:
        for line in lines:
            runtime.prepare(np.array([line.split()], np.int64))
            runtime.run()
            out.write(np.ascontiguousarray(runtime.states(), "<f4").tobytes())


def main(name, path, vocab):
    # Some runtimes greet on stdout, where the protocol has its answers.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    runtime = RUNTIMES[name](path)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "Q":
            write_states(runtime, *words[1:])
            answer = "ok"
        else:
            answer = " ".join(f"{t:.3f}" for t in times(runtime, int(vocab), *map(int, words)))
        print(answer, file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
