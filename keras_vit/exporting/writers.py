"""A model into a file, by format."""

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
# Of one file of ONNX (a protocol buffer); what is larger has its weights in a second one.
MOST_BYTES = 2**31 - 2**20


def writer(name: str) -> Callable:
    """What writes a model (a `keras.Model`) to a path in the format of that name."""
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
    """Has JAX write programs in a version of StableHLO that TensorFlow reads.

    JAX (0.12) writes the version of four weeks before its release, and TensorFlow's last
    release may be older. There is no argument for it.
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
    """By torch's exporter, as Keras' own takes a deprecated one for any batch size."""
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
        # Kernels as products of matrices read them, whatever their size: what quantizes
        # looks for such a constant.
        optimizer.optimize(
            exported.model, input_size_limit=MOST_BYTES, output_size_limit=MOST_BYTES
        )
    graph = exported.model.graph
    _keep_zeros_beside_pools(graph)
    size = sum(constant.const_value.nbytes for constant in graph.initializers.values())
    weights = f"{os.path.basename(path)}.data" if size > MOST_BYTES else None
    onnx_ir.save(exported.model, path, external_data=weights)


def _keep_zeros_beside_pools(graph):
    """Puts an operation that does nothing between padding and pooling.

    ONNX Runtime (1.31) takes zeros that are padded in front of a `MaxPool` for its own
    padding, which is less than any number: other results, in BiT.
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
    """Undoes what OpenVINO does to the root logger, which it leaves so after an error.

    No warning of any package would be heard from then on.
    """
    root = logging.getLogger()
    before = root.level, root.handlers[:], root.filters[:]
    try:
        yield
    finally:
        root.setLevel(before[0])
        root.handlers[:], root.filters[:] = before[1:]


@contextlib.contextmanager
def _tensorflow_told():
    """Has OpenVINO know which TensorFlow is imported.

    It (2026.4) asks whenever there is one, whatever is to be converted, in a way that
    Python 3.13 has ended: "name 'tensorflow' is not defined".
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
    """What `torch.export` makes of a model, for any number of images."""
    import torch

    class Module(torch.nn.Module):
        # Not its part: the weights come into the program as constants, as `torch.export`
        # follows Keras' variables no further, and as parameters they would once more.
        def forward(self, images):
            return model(images, training=False)

    # Two, as torch takes a size of one for a constant.
    inputs = keras.ops.zeros((2, *model.input_shape[1:]), model.inputs[0].dtype)
    sizes = ({0: torch.export.Dim.DYNAMIC},)
    with _quiet():
        return torch.export.export(Module().eval(), (inputs,), dynamic_shapes=sizes)


@contextlib.contextmanager
def _quiet(*loggers):
    """Without warnings of packages about themselves, which a user can do nothing about."""
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
