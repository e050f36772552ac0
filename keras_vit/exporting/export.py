"""Export of a model to another runtime, compared with the model before it is kept."""

import contextlib
import itertools
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import ArrayLike

from keras_vit.exporting.formats import Format, check_can_write, find_format
from keras_vit.exporting.int8 import BATCH_SIZE, quantizer
from keras_vit.exporting.metadata import attach, metadata_of
from keras_vit.exporting.runtimes import load_exported
from keras_vit.exporting.telemetry import kept_offline
from keras_vit.exporting.writers import writer
from keras_vit.log import log
from keras_vit.models.quantized import quantization_of
from keras_vit.output_paths import check_free
from keras_vit.tables import table

# Largest difference, as a fraction of the largest output. float32: B/16 has 2e-6 in the
# worst of the formats. Half precision rounds in another order.
TOLERANCE, HALF_TOLERANCE = 1e-4, 5e-2
GENERATED = 4  # images that are generated where none are given
# Calibration images below which a warning is given, and the most that are compared.
ENOUGH, COMPARED = 32, 128


@dataclass(frozen=True)
class ExportReport:
    """Result of an export and of the comparison with the model; prints as a table.

    Attributes:
        path: path of the file or folder.
        format: one of `FORMATS`.
        bytes: size of all files that were written.
        int8: `True` if weights and activations are quantized.
        num_images: number of images in the comparison.
        generated: `True` if these images were generated, because none were given.
        difference: largest difference of an output, as a fraction of the largest output.
        agreement: share of images with the same predicted class; `None` if the outputs do
            not have the shape (images, classes).
    """

    path: str
    format: str
    bytes: int
    int8: bool
    num_images: int
    generated: bool
    difference: float
    agreement: float | None

    def __str__(self) -> str:
        kind = f"{self.format}, int8" if self.int8 else self.format
        images = "generated images" if self.generated else "images"
        facts = [
            ("written", f"{self.path} ({kind}, {self.bytes / 1e6:,.1f} MB)"),
            ("compared", f"with the model on {self.num_images} {images}, in its runtime"),
            ("", f"largest difference {self.difference:.1e} of the largest output"),
        ]
        if self.agreement is not None:
            facts.append(("", f"the same class on {100 * self.agreement:.1f} %"))
        return table(facts, left=(0, 1))


@kept_offline()
def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    images: ArrayLike | None = None,
    calibration: ArrayLike | None = None,
    tolerance: float | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Writes a model for another runtime, runs it there and compares the outputs.

    The file takes batches of any size. It also holds class names, and mean, standard
    deviation, size and crop of the images, where the model knows them (`read_metadata`).
    A file at `path` is replaced at the end, after the comparison.

    Args:
        model: a model of this package, or any built `keras.Model` with one input, images
            of a known size, and one output.
        path: file to write: `.onnx`, `.tflite` (LiteRT), `.xml` (OpenVINO, with a `.bin`
            beside it) or `.pt2` (torch); or folder of a SavedModel.
        format: `"saved_model"`, `"onnx"`, `"litert"`, `"openvino"` or `"torch"`; `None`
            takes the format of the ending.
        images: images to compare on, float (n, …), prepared for the model; `None` takes the
            calibration images, or generates a few smooth images.
        calibration: images to quantize with, float (n, …), prepared for the model; about
            100 or more of the kind that the model is for (fewer than 32 give a warning).
            Weights and activations become int8 in the ranges measured on them. For ONNX and
            OpenVINO. `None` leaves the model in float32.
        tolerance: largest allowed difference, as a fraction of the largest output; `None`
            is 1e-4, in half precision 5e-2, and unlimited for int8.
        overwrite: `True` replaces a file at `path`.

    Returns:
        An `ExportReport`.

    Raises:
        ImportError: if a package is missing.
        FileNotFoundError: if the folder of `path` does not exist.
        ValueError: if the backend does not write the format, the model or the images do
            not fit, `path` exists, or the outputs differ by more than `tolerance`.
    """
    path = os.path.normpath(os.fspath(path))
    row = find_format(path, format)
    check_can_write(row)
    _check_model(model, row, int8=calibration is not None)
    check_targets(row, path, overwrite)
    quantize = None
    if calibration is not None:
        calibration = _checked(calibration, model, "calibration")
        _warn_of_few(calibration)
        quantize = quantizer(row.name)
        if images is None:
            images = calibration[:COMPARED]
    generated = images is None
    images = _generated(model) if generated else _checked(images, model, "images")
    if tolerance is None:
        tolerance = _tolerance(model, quantize)
    # Write into a folder beside `path`; move the files once they are complete and compared.
    folder = os.path.dirname(os.path.abspath(path))
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as beside:
        made = os.path.join(beside, "made")
        os.mkdir(made)
        file = os.path.join(made, os.path.basename(path))
        with _converting(model, row):
            write = _outside_of_strategies(writer(row.name))
            if quantize is None:
                write(model, file)
            else:
                float32 = os.path.join(beside, os.path.basename(path))
                write(model, float32)
                quantize(float32, file, calibration)
            attach(row, file, metadata_of(model))
            actual = _outside_of_strategies(_run)(file, row, images)
        difference, agreement = _compare(actual, _outputs(model, images))
        if not difference <= tolerance:
            raise ValueError(
                "The exported model computes something else: its outputs differ by "
                f"{difference:.2g} of the largest, and {tolerance:g} is allowed "
                f"(`tolerance`).{_advice(model, row)} Nothing was written."
            )
        size = sum(_sizes(made))
        _move(made, folder, os.path.basename(path))
    return ExportReport(
        path=path,
        format=row.name,
        bytes=size,
        int8=quantize is not None,
        num_images=len(images),
        generated=generated,
        difference=difference,
        agreement=agreement,
    )


def _warn_of_few(calibration):
    if len(calibration) < ENOUGH:
        log.warning(
            "Ranges of activations are measured on only %d images; outputs for others may "
            "be far off. Calibrate on 100 or more images of those that the model is for.",
            len(calibration),
        )


def _outside_of_strategies(function):
    """Wraps a function to run in another thread if a strategy of TensorFlow is active.

    Within `mirrored` a SavedModel would be written or run as one of its replicas. A
    strategy is active in one thread only.
    """

    def call(*arguments):
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(function, *arguments).result()

    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return call if tf.distribute.has_strategy() else function


def _check_model(model, row: Format, int8):
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"`model` must be a built `keras.Model`. Received: {model!r}")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "The model must have one input and one output. Received: "
            f"{len(model.inputs)} and {len(model.outputs)} of the model {model.name!r}"
        )
    if None in model.input_shape[1:]:
        raise ValueError(
            "An exported model takes images of one size. Received: a model with "
            f"input_shape={model.input_shape[1:]}. Give it a size: "
            "`keras_vit.from_pretrained(model, input_shape=(384, 384, 3))`."
        )
    dtype = model.dtype_policy.compute_dtype
    if dtype != "float32" and not row.half_precision:
        raise ValueError(
            f"Models of the format {row.name!r} are written in float32. Received: a model "
            f"of dtype {model.dtype_policy.name!r}. Make a float32 model: "
            "`keras_vit.from_pretrained(model, dtype='float32')`."
        )
    if int8 and not row.int8:
        raise ValueError(
            "`calibration` is for the formats onnx and openvino. Received: "
            f"format={row.name!r}"
        )
    if int8 and quantization_of(model):
        raise ValueError(
            f"The model {model.name!r} is already quantized by Keras. Export the model "
            "from before `quantize`, or leave out `calibration`."
        )


def check_targets(row: Format, path: str, overwrite: bool) -> None:
    """Checks that the files of a format may be written.

    Raises:
        ValueError: if one exists, and not `overwrite`, or a folder is no SavedModel.
        FileNotFoundError: if the folder of `path` does not exist.
    """
    for target in row.paths(path):
        check_free(target, overwrite)
        _check_replaceable(target)


def _check_replaceable(path):
    """Refuses a folder that is no SavedModel, such as a home folder: it would be lost."""
    is_model = os.path.exists(os.path.join(path, "saved_model.pb"))
    if os.path.isdir(path) and os.listdir(path) and not is_model:
        raise ValueError(
            f"{path!r} is a folder and no SavedModel, so it is not replaced. Choose "
            "another path."
        )


def _checked(images, model, name) -> np.ndarray:
    images = np.asarray(images, "float32")
    if images.ndim != len(model.input_shape) or images.shape[1:] != model.input_shape[1:]:
        raise ValueError(
            f"`{name}` must have the shape (n, {str(model.input_shape[1:])[1:]}, as the "
            f"model takes them. Received: shape {images.shape}"
        )
    if not len(images) or not np.isfinite(images).all():
        what = "NaN or infinity" if len(images) else "no image"
        raise ValueError(f"`{name}` must hold images of finite numbers. Received: {what}")
    return images


def _generated(model) -> np.ndarray:
    """Generates smooth images in the model's range of values: sums of a few waves."""
    rng = np.random.default_rng(0)
    lines = [np.linspace(0, 1, size) for size in model.input_shape[1:]]
    places = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)

    def waves():
        frequencies, phases = rng.uniform(-20, 20, (3, 8)), rng.uniform(0, 6, 8)
        return np.sin(places @ frequencies + phases).mean(axis=-1)

    images = np.stack([waves() for _ in range(GENERATED)]).astype("float32")
    config = model.get_config()
    return 127.5 + 127.5 * images if config.get("include_preprocessing") else images


def _tolerance(model, quantize):
    if quantize is not None:
        return np.inf
    half = model.dtype_policy.compute_dtype != "float32"
    return HALF_TOLERANCE if half else TOLERANCE


@contextlib.contextmanager
def _converting(model, row):
    """Turns an error of a converter or runtime into one that names model and format."""
    try:
        yield
    except Exception as error:  # each package has its own
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        modes = {way["mode"] for way in quantization_of(model)}
        reason = _reason(cause)
        if modes:  # the converter's message names operations that Keras inserted
            reason = f"its layers are quantized by Keras ({', '.join(sorted(modes))})"
        raise ValueError(
            f"The model {model.name!r} cannot be exported as {row.name}: "
            f"{reason}{'' if reason.endswith('.') else '.'}{_advice(model, row)} Nothing "
            "was written."
        ) from error


def _reason(error) -> str:
    """First line of an error's message that does not end in a colon."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return next((line for line in lines if not line.endswith(":")), type(error).__name__)


def _advice(model, row) -> str:
    """Sentence on the way out, or an empty string."""
    advice = ""
    if quantization_of(model):
        advice += (
            " Not every format knows layers that Keras has quantized. Export the model "
            "from before `quantize`; for int8 give `calibration`, with onnx or openvino."
        )
    if any(np.ravel(model.get_config().get("merged_tokens", 0))):
        advice += " Not every format can merge tokens; turn it off with merged_tokens=0."
    if row.name == "saved_model" and keras.backend.backend() == "jax":
        advice += (
            " The installed TensorFlow may not read the programs that the installed JAX "
            "writes. Save the model with `model.save('model.keras')` and run: "
            "KERAS_BACKEND=tensorflow keras-vit export model.keras FOLDER."
        )
    return advice


def _outputs(model, images) -> np.ndarray:
    return np.asarray(model.predict(images, batch_size=BATCH_SIZE, verbose=0), "float32")


def _run(file, row, images) -> np.ndarray:
    """Runs a file on a batch of one image, then on full batches: any size must work."""
    run = load_exported(file, format=row.name)
    starts = [0, *range(1, len(images), BATCH_SIZE), len(images)]
    return np.concatenate([run(images[i:j]) for i, j in itertools.pairwise(starts)])


def _compare(actual, expected) -> tuple[float, float | None]:
    """Returns the largest relative difference and the share of equal predicted classes."""
    if actual.shape != expected.shape:
        return np.inf, None
    difference = np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30)
    if expected.ndim != 2 or expected.shape[1] == 1:
        return float(difference), None
    return float(difference), float((actual.argmax(1) == expected.argmax(1)).mean())


def _sizes(folder):
    for root, _, files in os.walk(folder):
        yield from (os.path.getsize(os.path.join(root, name)) for name in files)


def _move(made, folder, last):
    """Moves files into place; the file that refers to the others comes last."""
    for name in sorted(os.listdir(made), key=last.__eq__):
        target = os.path.join(folder, name)
        if os.path.isdir(target) and not os.path.islink(target):
            shutil.rmtree(target)
        os.replace(os.path.join(made, name), target)
