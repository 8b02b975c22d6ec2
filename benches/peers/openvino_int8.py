"""OpenVINO's int8 by post-training quantisation: `openvino_int8.py F32.onnx INT8.xml IDS`.

It calibrates on the inputs in IDS, a line of token ids each.
"""

import sys

import nncf
import numpy as np
import openvino


def main(f32, int8, ids):
    with open(ids) as lines:
        inputs = [np.array([line.split()], np.int64) for line in lines]
    model = nncf.quantize(
        openvino.Core().read_model(f32),
        nncf.Dataset(inputs),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(inputs),
    )
    openvino.save_model(model, int8, compress_to_fp16=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
