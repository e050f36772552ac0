"""Verification of a model: comparison with expected arrays or with another model."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_vit.tables import shape_text, table
from keras_vit.weights.files.opening import open_tensors
from keras_vit.weights.load import variables

TOLERANCE = 1e-5
INPUT = "input"
_RESNET_STAGE = r"(stem_)?(root|stage_\d+_unit_\d+)"
_LAYER_OF_UNIT = r"(stage_\d+_unit_\d+)_\w+"  # of an EfficientNet
# Arguments that make models comparable: logits without activation, images without
# preprocessing, full precision.
COMPARABLE: dict[str, Any] = {
    "classifier_activation": None,
    "include_preprocessing": False,
    "dtype": "float32",
}


class Row(NamedTuple):
    """A comparison of two arrays.

    Attributes:
        name: name of the stage or weight.
        shape: shape of the arrays, or `"actual | expected"` if they differ.
        error: largest absolute difference, `nan` if the shapes differ.
        relative: the same, divided by the largest expected value.
        verdict: `"equal"` (bit for bit), `"ok"` (within the tolerance) or `"DIFFERS"`.
    """

    name: str
    shape: str
    error: float
    relative: float
    verdict: str


class Comparison:
    """Rows of compared arrays; prints as a table.

    Attributes:
        kind: kind of rows, `"stage"` or `"weight"`.
        rows: a tuple of `Row`.
        tolerance: the largest relative error that passes.
    """

    def __init__(
        self, kind: str, pairs: Mapping[str, tuple[Any, ...]], tolerance: float
    ) -> None:
        if not tolerance >= 0:
            raise ValueError(
                f"`tolerance` must be at least 0. Received: tolerance={tolerance}"
            )
        self.kind = kind
        self.tolerance = tolerance
        self.rows: tuple[Row, ...] = tuple(
            _row(name, *pair, tolerance) for name, pair in pairs.items()
        )

    @property
    def ok(self) -> bool:
        """True if every row is within the tolerance."""
        return not self.different

    @property
    def different(self) -> tuple[str, ...]:
        """Names of the rows that differ."""
        return tuple(row.name for row in self.rows if row.verdict == "DIFFERS")

    @property
    def equal(self) -> tuple[str, ...]:
        """Names of the rows that are equal, bit for bit."""
        return tuple(row.name for row in self.rows if row.verdict == "equal")

    def __str__(self) -> str:
        return self.text(self.rows)

    def text(self, rows: tuple[Row, ...]) -> str:
        """Table of some of the rows."""
        header = (self.kind, "shape", "max abs error", "max rel error", "")
        lines = [
            (row.name, row.shape, _number(row.error), _number(row.relative), row.verdict)
            for row in rows
        ]
        return table([header, *lines], left=(0, 1, 4))


def compare_stages(
    model: keras.Model, expected: Mapping[str, np.ndarray], tolerance: float = TOLERANCE
) -> Comparison:
    """Compares the stages of a model with arrays of the original implementation.

    Args:
        model: a `VisionTransformer` or `BiTResNet`, built with the arguments `COMPARABLE`.
        expected: `"input"`, a batch of preprocessed images with channels last, and an
            array for each name of a stage; see `stages`.
        tolerance: largest difference that passes, as a fraction of the largest expected
            value.

    Raises:
        ValueError: if the images do not fit the model, or a name is no stage of it.
    """
    expected = dict(expected)
    if INPUT not in expected:
        raise ValueError(
            f"Expected arrays must include the images, named {INPUT!r}. Received: "
            f"{', '.join(map(repr, expected)) or 'no arrays'}."
        )
    images = expected.pop(INPUT)
    layers = {**stages(model), **_other_names(model)}
    unknown = [name for name in expected if name not in layers]
    if unknown or not expected:
        raise ValueError(
            f"Expected arrays must be named as stages of the model {model.name!r}: "
            f"{', '.join(layers)}. Received: {', '.join(map(repr, unknown)) or 'none'}."
        )
    order = list(stages(model).values())
    names = sorted(expected, key=lambda name: order.index(layers[name]))
    actual = _compute(model, images, {name: layers[name] for name in names})
    pairs = {name: (actual[name], expected[name]) for name in names}
    return Comparison("stage", pairs, tolerance)


def compare_models(
    first: keras.Model, second: keras.Model, tolerance: float = TOLERANCE, seed: int = 0
) -> Comparison:
    """Compares two models on the same random images, stage by stage.

    Args:
        first: a `VisionTransformer` or `BiTResNet`, built with the arguments `COMPARABLE`.
        second: the model whose results are expected.
        tolerance: largest difference that passes, as a fraction of the largest value.
        seed: int, random seed of the images, which are uniform in [-1, 1].

    Raises:
        ValueError: if the models take images of different shapes.
    """
    shape, other = _image_shape(first), _image_shape(second)
    if shape != other:
        raise ValueError(
            f"The models take images of different shapes: {shape} and {other} (height, "
            "width, channels). Give an `image_size` for both; it resizes the positions."
        )
    images = np.random.default_rng(seed).uniform(-1, 1, (2, *shape)).astype("float32")
    outputs = [_compute(model, images, stages(model)) for model in (first, second)]
    return Comparison("stage", _paired(*outputs), tolerance)


def compare_weights(
    first: keras.Model, second: keras.Model, tolerance: float = TOLERANCE
) -> Comparison:
    """Compares the weights of two models by path; those of `second` are expected."""
    weights = [
        {path: _array(variable) for path, variable in variables(model).items()}
        for model in (first, second)
    ]
    return Comparison("weight", _paired(*weights), tolerance)


def stages(model: keras.Model) -> dict[str, str]:
    """Stages of a model: name of the stage → name of the layer whose output it is.

    `pooled` is the input of the head or of `pre_logits`.
    """
    names = [layer.name for layer in model.layers]
    resnet = [name for name in names if re.fullmatch(_RESNET_STAGE, name)]
    blocks = [name for name in names if re.fullmatch(r"block_\d+", name)]
    # The last layer of a unit gives its output.
    units = {m[1]: name for name in names if (m := re.fullmatch(_LAYER_OF_UNIT, name))}
    vit = (
        "patch_embedding",
        "patch_norm",
        "position_embedding",
        "pre_norm",
        *blocks,
        "encoder_norm",
    )
    layers = {"stem": "stem_activation", **units, "features": "top_activation"}
    layers |= {name: name for name in (*resnet, *vit, "norm", "relu")}
    layers["pooled"] = "fc_norm" if "fc_norm" in names else "pooling"
    layers |= {"pre_logits": "pre_logits", "logits": "head"}
    if "distillation_head" in names:
        # What both heads read, averaged, is no layer's output.
        del layers["pooled"]
        heads = {"logits_class": "head", "logits_distillation": "distillation_head"}
        layers |= {**heads, "logits": "head_activation"}
    return {stage: layer for stage, layer in layers.items() if layer in names}


def _other_names(model):
    """Names of stages in other projects → the layers."""
    layers = stages(model)
    if "features" in layers:
        return {}
    blocks = [name for name in layers if name.startswith("block_")]
    names = {"stem": "patch_embedding"}
    names |= {name.replace("block", "encoderblock"): name for name in blocks}
    if blocks:
        # timm's tokens have no norm if only the pooled features have one.
        encoded = layers.get("encoder_norm", blocks[-1])
    else:  # in a BiT
        encoded = [name for name in layers if re.fullmatch(_RESNET_STAGE, name)][-1]
    names |= {"encoded": encoded, "features": encoded}
    if "pre_logits" not in layers and "pooled" in layers:
        names["pre_logits"] = layers["pooled"]  # BigVision's name for the input of the head
    return names


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """Reads all arrays of an `.npz` or `.safetensors` file, by name."""
    with open_tensors(path) as file:
        return {name: file.read(name) for name in file.shapes}


def _compute(model, images, layers) -> dict[str, np.ndarray]:
    shape = _image_shape(model)
    if np.ndim(images) != 4 or np.shape(images)[1:] != shape:
        raise ValueError(
            f"The model {model.name!r} takes images (height, width, channels) of {shape}. "
            f"Received: {INPUT!r} of shape {np.shape(images)}. "
            "`image_size=(height, width)` builds a model of another size."
        )
    images = np.asarray(images, "float32")
    if model.get_config()["data_format"] == "channels_first":
        images = np.transpose(images, (0, 3, 1, 2))
    outputs = {stage: _output(model.get_layer(layer)) for stage, layer in layers.items()}
    computed = keras.Model(model.input, outputs)(images, training=False)
    if hasattr(model, "last_layers"):  # a ViT may compute only the class token there
        full = model.last_layers(images)
        computed |= {stage: full[layer] for stage, layer in layers.items() if layer in full}
    return {stage: _array(computed[stage]) for stage in layers}


def _output(layer):
    """Output of a layer; only the tokens of a block that also returns their sizes."""
    return layer.output[0] if isinstance(layer.output, list) else layer.output


def _image_shape(model):
    """(height, width, channels); the native size of a model that takes any size."""
    config = model.get_config()
    channel_axis = -1 if config["data_format"] == "channels_last" else 1
    return (*config["image_size"], model.input_shape[channel_axis])


def _array(tensor):
    return keras.ops.convert_to_numpy(tensor).astype("float32")


def _paired(first, second):
    most, fewest = sorted((first, second), key=len, reverse=True)
    names = dict.fromkeys([*most, *fewest])
    return {name: (first.get(name), second.get(name)) for name in names}


def _row(name, actual, expected, tolerance) -> Row:
    shapes = ["none" if a is None else _shape(a) for a in (actual, expected)]
    if shapes[0] != shapes[1]:
        return Row(name, " | ".join(shapes), math.nan, math.nan, "DIFFERS")
    error = float(np.abs(actual - expected).max(initial=0))
    largest = float(np.abs(expected).max(initial=0))
    relative = error / largest if error and largest else math.inf * error if error else 0.0
    verdict = "ok" if relative <= tolerance else "DIFFERS"  # also for NaN
    return Row(name, shapes[0], error, relative, "equal" if error == 0 else verdict)


def _shape(array):
    return shape_text(array.shape) or "scalar"


def _number(value):
    return "-" if math.isnan(value) else f"{value:.1e}" if value else "0"
