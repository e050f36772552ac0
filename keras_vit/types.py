"""Names for the types of arguments that Keras leaves open."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any  # of the backend, or a KerasTensor while a model is built
Shape: TypeAlias = tuple[int | None, ...]  # with None where a size is unknown
Initializer: TypeAlias = Any  # a keras.initializers.Initializer, or its name or config
