"""Base of the models: images in, pixel values rescaled, a head, and the config."""

import os
from collections.abc import Collection
from types import MappingProxyType, SimpleNamespace
from typing import Any

import keras
import numpy as np

from keras_vit import arguments, weight_paths
from keras_vit.keras_internals.keras_tensors import is_input
from keras_vit.keras_internals.torch_parameters import NamedParameters
from keras_vit.layers.dense import Dense
from keras_vit.layers.trainability import (
    TRAINABLE_PARTS,
    set_trainable,
    set_trainable_parts,
    trainable_parts,
)
from keras_vit.models.notes import NOTES, check_notes, without_empty
from keras_vit.models.quantized import QUANTIZATION, quantization_of, quantize_layers
from keras_vit.models.torch_listing import check_listed
from keras_vit.types import Tensor

LEGACY = (".h5", ".hdf5")  # of Keras before its version 3
KERAS_ARGUMENTS = ("dtype", "name", "trainable")  # which Keras' base class keeps


class ImageModel(NamedParameters, keras.Model):
    """A functional model whose config is the arguments of its `__init__`."""

    def _keep_config(self, config, fields, resolved, policy):
        """Keeps the arguments as given, and `resolved` ones as checked.

        Resolved are those that a default or another session could change.
        """
        self.dtype_policy = policy
        config |= {key: getattr(fields, key) for key in (*resolved, *NOTES)}
        if config["input_shape"] is not None:
            config["input_shape"] = tuple(config["input_shape"])
        # Read-only, which also keeps Keras' attribute tracking from wrapping it.
        self._config = MappingProxyType(without_empty(config))
        weight_paths.mark_layers(self)
        self.name_parameters()  # by paths that are known now
        if not self.trainable:  # Keras has told it before the model had its layers
            set_trainable(self, False)

    def note(self, **notes: Any) -> None:
        """Changes facts that the model's file keeps and its computation does not use.

        Args:
            **notes: new values of `class_names`, `probabilities` or `preprocessing`;
                `None` removes one.

        Raises:
            ValueError: if a value is out of its range, or there is no such argument.
        """
        if unknown := set(notes) - set(NOTES):
            raise ValueError(
                f"`note` takes {', '.join(NOTES)}. Received: {', '.join(sorted(unknown))}"
            )
        fields = SimpleNamespace(
            **{**dict.fromkeys(NOTES), **self._config, **notes},
        )
        check_notes(fields)
        noted = {key: getattr(fields, key) for key in NOTES}
        self._config = MappingProxyType(without_empty({**self._config, **noted}))

    @property
    def arguments(self) -> dict[str, Any]:
        """The model's own arguments, to which `get_config` adds those of every model.

        Keras imports TensorFlow to serialize these, also on torch.
        """
        return dict(self._config)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same model, without its weights.

        `class_names`, `probabilities` and `preprocessing` are there if they are known.
        After `quantize`, `"quantization"` names the layers and their modes. If only parts
        of the model are trained, `"trainable_parts"` names them, see
        `layers.trainability`. `from_config` reads both.
        """
        config = {
            **self._config,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "name": self.name,
            "trainable": self.trainable,
        }
        if ways := quantization_of(self):
            config[QUANTIZATION] = ways
        if parts := trainable_parts(self):
            config[TRAINABLE_PARTS] = parts
        return config

    @property
    def pooled_output(self) -> Tensor:
        """Symbolic tensor of the pooled features, (batch, dim), that a head reads.

        Raises:
            ValueError: if the model has no pooling.
        """
        if self._config["pooling"] is None:
            raise ValueError(
                "Pooled features need a pooling. Received: a model with pooling=None. "
                "Build it with another: keras_vit.from_pretrained(model, pooling='gap')."
            )
        return self.get_layer("pooling").output

    def set_state_tree(self, state_tree: dict[str, Any]) -> None:
        """As Keras', also from a model of another name."""
        ours = {weight_paths.public_path(v.path): v.path for v in self.variables}
        if getattr(self, "optimizer", None) is not None:
            slots = (v.path for v in self.optimizer.variables)
            ours |= dict(zip(weight_paths.slot_paths(self), slots, strict=True))
        groups = {group: dict(_flat(tree)) for group, tree in state_tree.items()}
        weights = ("trainable_variables", "non_trainable_variables")
        theirs = {
            p: weight_paths.public_path(p)
            for group in weights
            for p in groups.get(group, ())
        }
        slots = list(groups.get("optimizer_variables", ()))
        theirs |= dict(
            zip(slots, weight_paths.shorten_slot_paths(slots, theirs), strict=True)
        )

        def renamed(path):
            return ours.get(theirs.get(path), path)

        super().set_state_tree(
            {
                group: {renamed(path): value for path, value in tree.items()}
                for group, tree in groups.items()
            }
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        check_listed(self)
        return super().__call__(*args, **kwargs)

    def save(self, filepath: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Saves the model as Keras does, except in its legacy HDF5 format.

        Raises:
            ValueError: if the file ends in `.h5` or `.hdf5`; nothing is written.
        """
        if str(filepath).endswith(LEGACY):
            raise ValueError(
                "Keras' legacy HDF5 files name a class without its package, so that "
                f"`load_model` does not find {type(self).__name__} again. Received: "
                f"filepath={str(filepath)!r}. Save the model as .keras, or its weights by "
                "`model.save_weights` as .weights.h5."
            )
        super().save(filepath, *args, **kwargs)

    def load_weights(self, filepath: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Loads weights as Keras does, and resizes positions of another grid.

        Positions in a legacy HDF5 file are not resized.

        Raises:
            ValueError: if the file does not fit. A legacy HDF5 file leaves the model
                unchanged then.
        """
        path = str(filepath)
        if not path.endswith(LEGACY) or path.endswith(".weights.h5"):
            return super().load_weights(filepath, *args, **kwargs)
        before = self.get_weights()
        try:
            return super().load_weights(filepath, *args, **kwargs)
        except ValueError as error:
            self.set_weights(before)
            raise ValueError(
                f"{path!r} does not fit the model {self.name!r}, which is unchanged: "
                f"{error}. keras_vit.load_weights(model, path) resizes positions, and "
                "leaves out a head of another size."
            ) from error

    # The names of a torch state dict.
    def parameter_names(self) -> list[str]:
        names = weight_paths.inner_paths(self)
        return [names[id(variable)] for variable in self.variables]

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "ImageModel":
        """Builds the model of a `get_config`, with new weights."""
        fields = dict(config)
        ways, parts = fields.pop(QUANTIZATION, []), fields.pop(TRAINABLE_PARTS, {})
        model = super().from_config(fields, custom_objects)
        quantize_layers(model, ways)
        set_trainable_parts(model, parts)
        return model


def _flat(tree, before=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}/")
        else:
            yield f"{before}{key}", value


def config_of(arguments_: dict[str, Any]) -> dict[str, Any]:
    """The config of a model, from the `locals()` of its `__init__`."""
    left_out = {"self", "__class__", "input_tensor", *KERAS_ARGUMENTS}
    return {key: value for key, value in arguments_.items() if key not in left_out}


def check_images(c: SimpleNamespace) -> None:
    """Checks the fields of the images, and brings each into one form.

    Raises:
        ValueError: if they do not fit together.
    """
    c.image_size = arguments.pair(c.image_size, "image_size")
    c.data_format = arguments.image_data_format(c.data_format)
    c.input_shape = _checked_input_shape(c)
    channels = c.input_shape[-1 if c.data_format == "channels_last" else 0]
    c.image_mean = arguments.per_channel(c.image_mean, channels, "image_mean")
    c.image_std = arguments.per_channel(c.image_std, channels, "image_std")


def check_head(c: SimpleNamespace, poolings: Collection[str | None]) -> None:
    """Checks pooling, head and notes, and brings each into one form.

    Raises:
        ValueError: if a field is out of its range, or two do not fit together.
    """
    if c.pooling == "avg":  # as `keras.applications` calls it
        c.pooling = "gap"
    if c.pooling == "max":
        raise ValueError(
            "Max pooling is not offered: no published model of these families was trained "
            f"with it. Received: pooling='max'. Use pooling={_listed(poolings)}, or "
            "pooling=None and pool the features yourself."
        )
    arguments.one_of(c.pooling, poolings, "pooling")
    if c.classes < 0:
        raise ValueError(
            f"`classes` must be positive, or 0 for no head. Received: classes={c.classes}"
        )
    if c.classes and c.pooling is None:
        raise ValueError(
            "A head needs a `pooling` to read from. Received: "
            f"classes={c.classes}, pooling=None. Use pooling={_listed(poolings)}, or "
            "classes=0 to get what comes before it."
        )
    check_notes(c)
    if callable(c.classifier_activation):
        c.classifier_activation = keras.activations.serialize(c.classifier_activation)


def _listed(choices):
    *others, last = (repr(choice) for choice in choices if choice)
    return f"{', '.join(others)} or {last}" if others else last


def _checked_input_shape(c) -> tuple[int | None, ...]:
    """Shape of one image in the model's data format."""
    channels_last = c.data_format == "channels_last"
    if c.input_shape is None:
        return (*c.image_size, 3) if channels_last else (3, *c.image_size)
    shape = tuple(c.input_shape)
    size, channels = (shape[:2], shape[2:]) if channels_last else (shape[1:], shape[:1])
    layout = "(height, width, channels)" if channels_last else "(channels, height, width)"
    if len(shape) != 3 or not isinstance(channels[0], int) or channels[0] <= 0:
        raise ValueError(
            f"`input_shape` must be {layout} with data_format={c.data_format!r}, and "
            f"the number of channels must be given. Received: input_shape={shape}"
        )
    if any(s not in (None, i) for s, i in zip(size, c.image_size, strict=True)):
        raise ValueError(
            f"`input_shape` {layout} must repeat `image_size` (height, width), or give "
            "None for a height or width that may vary. Received: "
            f"input_shape={shape}, image_size={c.image_size}"
        )
    return shape


def image_input(c: SimpleNamespace, input_tensor: Tensor | None) -> Tensor:
    """The model's input: a new one, or the given `keras.Input`."""
    if input_tensor is None:
        return keras.Input(c.input_shape, name="images")
    if not is_input(input_tensor):
        raise ValueError(
            "`input_tensor` must be a `keras.Input`: what comes before the model would "
            f"be missing from its config. Received: input_tensor={input_tensor}. Call "
            "the model on that tensor instead: outputs = model(tensor)."
        )
    if tuple(input_tensor.shape[1:]) != c.input_shape:
        raise ValueError(
            "`input_tensor` must have the model's input shape. Received: a tensor of "
            f"shape {tuple(input_tensor.shape)} for input_shape={c.input_shape}"
        )
    return input_tensor


def rescaling(c: SimpleNamespace) -> keras.layers.Rescaling:
    """The layer `preprocessing`: pixel values from 0 to 255, minus mean, by deviation."""
    mean, std = np.asarray(c.image_mean), np.asarray(c.image_std)
    scale, offset = 1 / (255 * std), -mean / std
    axes = (1, 1, -1) if c.data_format == "channels_last" else (-1, 1, 1)
    scale, offset = (v.reshape(axes) if v.ndim else v for v in (scale, offset))
    return keras.layers.Rescaling(
        scale.tolist(), offset.tolist(), dtype="float32", name="preprocessing"
    )


def to_channels_last(images: Tensor, c: SimpleNamespace) -> Tensor:
    """Images as convolutions take them: (batch, height, width, channels)."""
    if c.data_format == "channels_last":
        return images
    return keras.layers.Permute((2, 3, 1), dtype=images.dtype, name="channels_last")(images)


def head(features: Tensor, c: SimpleNamespace) -> Tensor:
    """The outputs of a new layer `head`, float32 (batch, classes)."""
    return _head(features, c, "head", c.classifier_activation)


def two_heads(
    class_token: Tensor, distillation_token: Tensor, c: SimpleNamespace
) -> Tensor:
    """The averaged outputs of two new layers, `head` and `distillation_head`.

    Returns:
        float32 (batch, classes): the activation of the averaged logits.
    """
    logits = [
        _head(class_token, c, "head", None),
        _head(distillation_token, c, "distillation_head", None),
    ]
    outputs = keras.layers.Average(dtype="float32", name="head_average")(logits)
    return keras.layers.Activation(
        c.classifier_activation, dtype="float32", name="head_activation"
    )(outputs)


def _head(features, c, name, activation):
    # Zero at the start (section 3.2 of the paper); in float32 under every policy.
    return Dense(
        c.classes,
        activation=activation,
        kernel_initializer="zeros",
        dtype="float32",
        name=name,
    )(features)
