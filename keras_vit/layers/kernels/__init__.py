"""The computations that backends do differently, under one name each.

`common` has all of them in plain Keras operations. The module of a backend replaces those
for which a measurement (benchmarks/RESULTS.md) showed something quicker, and the choice is
made here, once. Layers call `kernels.attend(…)` and never ask for the backend.
"""

import keras

from keras_vit.layers.kernels.common import (
    add_product,
    apply_token_wise,
    array_for_weights,
    attend,
    attend_in_steps,
    convolve,
    dense,
    einsum_dense,
    flash_attention,
    fuses_gelu,
    gelu,
    group_norm,
    has_numpy_weights,
    layer_norm,
    max_pool,
    split_heads,
    take_tokens,
    weight_from_numpy,
    without_gradients,
)

if keras.backend.backend() == "jax":
    from keras_vit.layers.kernels.jax import (
        attend,
        flash_attention,
        has_numpy_weights,
        layer_norm,
        weight_from_numpy,
    )
elif keras.backend.backend() == "tensorflow":
    from keras_vit.layers.kernels.tensorflow import (
        apply_token_wise,
        attend,
        einsum_dense,
        gelu,
        layer_norm,
        split_heads,
    )
elif keras.backend.backend() == "torch":
    from keras_vit.layers.kernels.torch import (
        add_product,
        array_for_weights,
        attend,
        convolve,
        dense,
        einsum_dense,
        fuses_gelu,
        group_norm,
        has_numpy_weights,
        max_pool,
        split_heads,
        take_tokens,
        weight_from_numpy,
        without_gradients,
    )

__all__ = [
    "add_product",
    "apply_token_wise",
    "array_for_weights",
    "attend",
    "attend_in_steps",
    "convolve",
    "dense",
    "einsum_dense",
    "flash_attention",
    "fuses_gelu",
    "gelu",
    "group_norm",
    "has_numpy_weights",
    "layer_norm",
    "max_pool",
    "split_heads",
    "take_tokens",
    "weight_from_numpy",
    "without_gradients",
]
