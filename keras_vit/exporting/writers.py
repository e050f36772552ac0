"""Writers of models, one for each export format."""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable

import keras

STABLEHLO = "1.13.0"  # the newest that TensorFlow 2.21 reads; later ones read it, too
INPUT, OUTPUT = "images", "outputs"
# Largest ONNX file (a protocol buffer); larger models have their weights in a second file.
MOST_BYTES = 2**31 - 2**20


def writer(name: str) -> Callable[[keras.Model, str], None]:
    """Returns the function that writes a model to a path in a format."""
    return {
        "saved_model": _saved_model,
        "onnx": _onnx,
        "litert": _litert,
        "openvino": _openvino,
        "torch": _torch,
    }[name]


def _saved_model(model, path):
    with _quiet(), _stablehlo_of_tensorflow():
        model.export(path, format="tf_saved_model", verbose=False)


@contextlib.contextmanager
def _stablehlo_of_tensorflow():
    """Makes JAX write programs in a version of StableHLO that TensorFlow reads.

    JAX (0.12) writes the version of four weeks before its release; the latest TensorFlow
    may be older. JAX has no argument for it.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    from jaxlib.mlir.dialects import stablehlo

    name = "get_version_from_compatibility_requirement"
    chosen = getattr(stablehlo, name)

    def known(requirement):
        return min(chosen(requirement), STABLEHLO, key=_numbers)

    setattr(stablehlo, name, known)
    try:
        yield
    finally:
        setattr(stablehlo, name, chosen)


def _numbers(version):
    return [int(part) for part in version.split(".")]


def _litert(model, path):
    with _quiet("tensorflow", "absl"):
        model.export(path, format="litert", verbose=False)


def _torch(model, path):
    import torch

    torch.export.save(_program(model), path)


def _onnx(model, path):
    """Writes ONNX by torch's exporter; for dynamic batches Keras uses a deprecated one."""
    import onnx_ir
    import torch
    from onnxscript import optimizer

    with _quiet("torch.onnx"):
        exported = torch.onnx.export(
            _program(model),
            (),
            dynamo=True,
            optimize=False,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
        # Fold kernels of any size into constants: quantization looks for constants.
        optimizer.optimize(
            exported.model, input_size_limit=MOST_BYTES, output_size_limit=MOST_BYTES
        )
    graph = exported.model.graph
    _keep_zeros_beside_pools(graph)
    size = sum(constant.const_value.nbytes for constant in graph.initializers.values())
    weights = f"{os.path.basename(path)}.data" if size > MOST_BYTES else None
    onnx_ir.save(exported.model, path, external_data=weights)


def _keep_zeros_beside_pools(graph):
    """Inserts an operation without effect between padding and pooling.

    ONNX Runtime (1.31) fuses padded zeros into a following `MaxPool`, which pads with minus
    infinity instead: BiT would give other results.
    """
    import onnx_ir

    for node in list(graph):
        if node.op_type == "MaxPool":
            value = node.inputs[0]
            nothing = onnx_ir.node("Max", [value])
            nothing.outputs[0].shape, nothing.outputs[0].type = value.shape, value.type
            graph.insert_before(node, nothing)
            node.replace_input_with(0, nothing.outputs[0])


def _openvino(model, path):
    import openvino

    if keras.backend.backend() == "torch":
        with _quiet(), _tensorflow_told(), _root_logger_kept():
            converted = openvino.convert_model(_program(model))
    else:
        with tempfile.TemporaryDirectory() as folder, _root_logger_kept():
            _saved_model(model, folder)
            converted = openvino.convert_model(folder)
    converted.inputs[0].tensor.set_names({INPUT})
    converted.outputs[0].tensor.set_names({OUTPUT})
    openvino.save_model(converted, path, compress_to_fp16=False)


@contextlib.contextmanager
def _root_logger_kept():
    """Restores the root logger, which OpenVINO leaves silent after an error."""
    root = logging.getLogger()
    before = root.level, root.handlers[:], root.filters[:]
    try:
        yield
    finally:
        root.setLevel(before[0])
        root.handlers[:], root.filters[:] = before[1:]


@contextlib.contextmanager
def _tensorflow_told():
    """Tells OpenVINO which TensorFlow is imported.

    OpenVINO (2026.4) looks it up in every conversion if TensorFlow is imported, in a way
    that fails on Python 3.13: "name 'tensorflow' is not defined".
    """
    utils = sys.modules.get("openvino.frontend.tensorflow.utils")
    tensorflow = sys.modules.get("tensorflow")
    if utils is None or tensorflow is None:
        yield
        return
    asked = utils.get_environment_setup

    def environment(framework):
        try:
            return asked(framework)
        except NameError:
            return {"tensorflow": tensorflow.__version__, "sys_platform": sys.platform}

    utils.get_environment_setup = environment
    try:
        yield
    finally:
        utils.get_environment_setup = asked


def _program(model):
    """Exports a model with `torch.export`, for any number of images."""
    import torch

    class Module(torch.nn.Module):
        # The model is no submodule: its weights become constants of the program, since
        # `torch.export` does not follow Keras' variables; as parameters they would be
        # stored a second time.
        def forward(self, images):
            return model(images, training=False)

    # Two images: torch takes a size of one for a constant.
    inputs = keras.ops.zeros((2, *model.input_shape[1:]), model.inputs[0].dtype)
    sizes = ({0: torch.export.Dim.DYNAMIC},)
    with _quiet():
        return torch.export.export(Module().eval(), (inputs,), dynamic_shapes=sizes)


@contextlib.contextmanager
def _quiet(*loggers):
    """Hides warnings of packages about themselves, which a user cannot act on."""
    loggers = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
