"""Runtimes of exported files, without Keras."""

import os
import warnings
from collections.abc import Callable

import numpy as np

from keras_vit.exporting.formats import find_format
from keras_vit.extras import require


def load_exported(
    path: str | os.PathLike[str], *, format: str | None = None, threads: int | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Loads an exported model to run on the CPU, in float32 or quantized.

    Args:
        path: file or folder that `export` has written.
        format: format of the file; `None` takes that of the ending.
        threads: number of threads; `None` leaves it to the runtime. torch and TensorFlow
            have one number for the whole process, which is not changed.

    Returns:
        A function from images, float32 (batch, …) prepared for the model, to the outputs.

    Raises:
        FileNotFoundError: if `path` does not exist.
        ImportError: if the runtime is not installed.
        ValueError: if the ending does not tell the format.
    """
    path = os.fspath(path)
    row = find_format(path, format)
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no exported model at {path!r}.")
    return _RUNTIMES[row.name](path, threads)


def _require(module):
    return require(module, "Running this format", "export")


def _saved_model(path, threads):
    tf = _require("tensorflow")
    loaded = tf.saved_model.load(path)
    return lambda images: loaded.serve(tf.convert_to_tensor(images)).numpy()


def _onnx(path, threads):
    runtime = _require("onnxruntime")
    options = runtime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    session = runtime.InferenceSession(path, options, providers=providers)
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _litert(path, threads):
    interpreter = _interpreter(path, threads)
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    shape = None

    def run(images):
        nonlocal shape
        if images.shape != shape:
            shape = images.shape
            interpreter.resize_tensor_input(given["index"], shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(made["index"])

    return run


def _interpreter(path, threads):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        Interpreter = _require("tensorflow").lite.Interpreter  # noqa: N806, a class
    with warnings.catch_warnings():  # TensorFlow announces the move to `ai_edge_litert`
        warnings.simplefilter("ignore")
        return Interpreter(model_path=path, num_threads=threads)


def _openvino(path, threads):
    openvino = _require("openvino")
    # By default OpenVINO computes in bfloat16 where the processor can.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda images: compiled([images])[0].copy()


def _torch(path, threads):
    torch = _require("torch")
    module = torch.export.load(path).module()

    def run(images):
        with torch.inference_mode():
            return module(torch.from_numpy(np.ascontiguousarray(images))).float().numpy()

    return run


_RUNTIMES = {
    "saved_model": _saved_model,
    "onnx": _onnx,
    "litert": _litert,
    "openvino": _openvino,
    "torch": _torch,
}
