"""Quantization to 8-bit weights and activations, with ranges from calibration images."""

import contextlib
import io
import logging
import os
from collections.abc import Callable

import numpy as np

from keras_vit.extras import require

BATCH_SIZE = 8


def quantizer(name: str) -> Callable[[str, str, np.ndarray], None]:
    """Returns the function that quantizes a file: (source, target, calibration images).

    Raises:
        ImportError: if the package that does it is not installed.
    """
    package, quantize = {"onnx": ("onnxruntime", _onnx), "openvino": ("nncf", _openvino)}[
        name
    ]
    require(package, f"int8 in the format {name!r}", "export")
    return quantize


def _batches(images):
    return [images[i : i + BATCH_SIZE] for i in range(0, len(images), BATCH_SIZE)]


def _onnx(source, target, images):
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    name = onnx.load(source, load_external_data=False).graph.input[0].name

    class Reader(CalibrationDataReader):
        def __init__(self):
            self._batches = iter(_batches(images))

        def get_next(self):
            batch = next(self._batches, None)
            return None if batch is None else {name: batch}

    with _quiet():
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            # Only products with kernels. Attention's products stay in float32: they are
            # few, and their ranges depend on the image.
            op_types_to_quantize=["MatMul", "Gemm"],
            extra_options={"MatMulConstBOnly": True},
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Weights of 7 bits: processors without VNNI add pairs of products in 16 bits,
            # which 8-bit weights would overflow.
            reduce_range=True,
            use_external_data_format=os.path.exists(f"{source}.data"),
        )


def _openvino(source, target, images):
    import nncf
    import openvino

    with _quiet():
        quantized = nncf.quantize(
            openvino.Core().read_model(source),
            nncf.Dataset(_batches(images)),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(_batches(images)),
        )
    openvino.save_model(quantized, target, compress_to_fp16=False)


@contextlib.contextmanager
def _quiet():
    """Hides progress bars and advice of the packages."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
