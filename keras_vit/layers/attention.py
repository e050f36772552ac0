"""Multi-head self-attention."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops
from keras.initializers import RandomUniform

from keras_vit import arguments
from keras_vit.layers import kernels, observation
from keras_vit.layers.dense import EinsumDense
from keras_vit.layers.initial_values import initializer
from keras_vit.layers.normalization import NORMS
from keras_vit.layers.relative import RelativePositionBias
from keras_vit.layers.relative_keys import RelativeKeys
from keras_vit.layers.rotary import checked_rope, mixed_frequencies, rotate, turns
from keras_vit.layers.trainability import Composite
from keras_vit.types import Shape, Tensor

QKV_BIASES = (True, False, "qv")
KINDS = ("bias", "keys")  # of relative positions


@keras.saving.register_keras_serializable(package="keras_vit")
class SelfAttention(Composite, keras.layers.Layer):
    """Multi-head self-attention with one projection for queries, keys and values.

    Source: ViT (arXiv 2010.11929), appendix A. The projection `qkv` has a kernel of
    shape (hidden_dim, 3, num_heads, head_dim) and a bias of (3, num_heads,
    head_dim), so that tensor parallelism splits heads and never a head; the output
    `projection` has a kernel of shape (num_heads, head_dim, hidden_dim). The norms
    `query_norm` and `key_norm` keep the scores small in training (*Scaling Vision
    Transformers to 22 Billion Parameters*, arXiv 2302.05442, section 2).

    Args:
        num_heads: int, a divisor of the tokens' width.
        qkv_bias: bool, whether `qkv` has a bias; `"qv"` for a bias of queries and values
            alone, the weight `query_value_bias` (2, num_heads, head_dim), as in BEiT
            (arXiv 2106.08254) and its successors.
        qk_norm: bool, whether each head's queries and keys pass a layer norm over
            head_dim, whose weights all heads share.
        relative_grid: (rows, columns) of the patches, whose offsets have a learned bias of
            their own in each head, the layer `relative_position`, see
            `RelativePositionBias`; `None` for none.
        relative_kind: `"bias"`, or `"keys"` for an embedding of each offset, to which the
            queries attend (after a q/k norm), the layer `relative_keys`, see
            `RelativeKeys`; read only with a `relative_grid`.
        num_prefix: int, number of tokens before the patches, which only these layers read.
        norm: `"layer"` or `"rms"`, the kind of those norms.
        layer_norm_epsilon: float, added to the variance in those norms.
        rope: rotary positions of queries and keys, a dictionary as `RotaryEmbedding` takes
            it; `None` for none. With `"kind": "mixed"` the weight `frequencies` (2,
            num_heads, head_dim / 2) has the angles of one step along each axis.
        sub_norm: bool, whether the weighted values of all heads pass a layer norm
            `sub_norm` before the projection (sub-LN, *Foundation Transformers*, arXiv
            2210.06423; EVA-02's CLIP).
        projection_bias: bool, whether `projection` has a bias.
        dropout_rate: float in [0, 1), dropout of the attention weights. A positive
            rate computes them explicitly in training, without a fused kernel.

    Call arguments:
        tokens: (batch, tokens, hidden_dim), gives the queries.
        context: (batch, others, hidden_dim), gives the keys and values; `None` stands
            for `tokens` themselves. With a part of the sequence as `tokens` and the
            whole of it as `context`, only that part's outputs are computed.
        sizes: int (batch, others), how many patches each token of the context stands for,
            and counts for (proportional attention, *Token Merging*, arXiv 2210.09461,
            section 3); `None` where each stands for one.
        positions: float32, what `RotaryEmbedding` returns for the context; it must be given
            where there is a `rope`. `tokens` are then the first ones of the context.
        return_keys: bool, whether the mean of the keys over heads is returned too.
        training: bool, whether dropout is active.

    Returns:
        (batch, tokens, hidden_dim); with `return_keys` a tuple of that and of the keys,
        (batch, others, head_dim).

    Raises:
        ValueError: if the tokens' width is not divisible by `num_heads`, or `qkv_bias` is
            none of its values.
    """

    def __init__(
        self,
        num_heads: int,
        *,
        qkv_bias: bool | str = True,
        qk_norm: bool = False,
        relative_grid: tuple[int, int] | None = None,
        relative_kind: str = "bias",
        num_prefix: int = 0,
        norm: str = "layer",
        layer_norm_epsilon: float = 1e-6,
        rope: Mapping | str | None = None,
        sub_norm: bool = False,
        projection_bias: bool = True,
        dropout_rate: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = arguments.positive(num_heads, "num_heads")
        self.qkv_bias = arguments.one_of(qkv_bias, QKV_BIASES, "qkv_bias")
        self.qk_norm = qk_norm
        self.relative_grid = (
            None
            if relative_grid is None
            else arguments.pair(relative_grid, "relative_grid")
        )
        self.relative_kind = arguments.one_of(relative_kind, KINDS, "relative_kind")
        self.num_prefix = num_prefix
        self.norm = arguments.one_of(norm, tuple(NORMS), "norm")
        self.layer_norm_epsilon = layer_norm_epsilon
        self.rope = checked_rope(rope)
        self.sub_norm = sub_norm
        self.projection_bias = projection_bias
        self.dropout_rate = arguments.rate(dropout_rate, "dropout_rate")
        self.dropout = keras.layers.Dropout(
            self.dropout_rate, dtype=self.dtype_policy, name="dropout"
        )

    def build(self, tokens_shape: Shape) -> None:
        hidden_dim = tokens_shape[-1]
        head_dim = arguments.head_dim(hidden_dim, self.num_heads)
        # Glorot uniform for each of the four square projections, as in the original
        # code; Keras' own would take the fused kernel's axes for one convolution.
        limit = (6 / (2 * hidden_dim)) ** 0.5
        self.qkv = EinsumDense(
            "btd,dshk->btshk",
            output_shape=(None, 3, self.num_heads, head_dim),
            bias_axes=None if self.qkv_bias in (False, "qv") else "shk",
            kernel_initializer=initializer(RandomUniform(-limit, limit)),
            dtype=self.dtype_policy,
            name="qkv",
        )
        self.qkv.build((None, None, hidden_dim))
        if self.qkv_bias == "qv":
            self.query_value_bias = self.add_weight(
                name="query_value_bias",
                shape=(2, self.num_heads, head_dim),
                initializer="zeros",
            )
        if self.qk_norm:
            self.query_norm = self._norm("query_norm", head_dim)
            self.key_norm = self._norm("key_norm", head_dim)
        if self.sub_norm:
            self.values_norm = self._norm("sub_norm", hidden_dim)
        if self.relative_grid is not None:
            self._build_relative(hidden_dim, head_dim)
        if checked_rope(self.rope, head_dim) and self.rope["kind"] == "mixed":
            self.frequencies = self.add_weight(
                name="frequencies",
                shape=(2, self.num_heads, head_dim // 2),
                initializer=mixed_frequencies(self.rope["temperature"]),
            )
        self.projection = EinsumDense(
            "bthk,hkd->btd",
            output_shape=(None, hidden_dim),
            bias_axes="d" if self.projection_bias else None,
            kernel_initializer=initializer(RandomUniform(-limit, limit)),
            dtype=self.dtype_policy,
            name="projection",
        )
        self.projection.build((None, None, self.num_heads, head_dim))

    def _build_relative(self, hidden_dim, head_dim):
        options = {"num_prefix": self.num_prefix, "dtype": self.dtype_policy}
        if self.relative_kind == "keys":
            self.relative_keys = RelativeKeys(
                self.relative_grid, name="relative_keys", **options
            )
            self.relative_keys.build((None, self.num_heads, None, head_dim))
            return
        self.relative_position = RelativePositionBias(
            self.relative_grid, self.num_heads, name="relative_position", **options
        )
        self.relative_position.build((None, None, hidden_dim))

    def _norm(self, name, width):
        norm = NORMS[self.norm](
            epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name=name
        )
        norm.build((None, None, width))
        return norm

    def call(
        self,
        tokens: Tensor,
        context: Tensor | None = None,
        sizes: Tensor | None = None,
        positions: Tensor | None = None,
        return_keys: bool = False,
        training: bool | None = None,
    ) -> Tensor:
        # (batch, heads, tokens or others, head_dim) each
        query, key, value = self._project(tokens, context)
        if self.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        bias = self._score_bias(query, tokens, context, sizes)
        if self.rope is not None:
            query, key = self._turn(query, key, positions)
        # Before attention, which then holds no projected tensor for it.
        keys = ops.mean(key, axis=1) if return_keys else None  # (batch, others, head_dim)
        dropout = self._drop if training and self.dropout_rate else None
        attended = observation.attend(
            query, key, value, bias=bias, dropout=dropout, training=training
        )  # (batch, tokens, heads, head_dim)
        if self.sub_norm:
            shape = ops.shape(attended)
            joined = ops.reshape(attended, (*shape[:2], shape[2] * shape[3]))
            attended = ops.reshape(self.values_norm(joined), shape)
        outputs = self.projection(attended)  # (batch, tokens, hidden_dim)
        return (outputs, keys) if return_keys else outputs

    def _project(self, tokens, context):
        """Queries of the tokens, keys and values of the context, (batch, heads, …) each."""
        if context is None:
            return kernels.split_heads(self._qkv(tokens), 3)
        (query,) = kernels.split_heads(self._qkv(tokens, slice(1)), 1)
        return query, *kernels.split_heads(self._qkv(context, slice(1, None)), 2)

    def _qkv(self, tokens, part=slice(None)):
        """A part of the fused projection, (batch, tokens, 1 to 3, heads, head_dim)."""
        is_own = self.qkv_bias != "qv"  # the bias of the layer `qkv`
        if self.qkv.quantization_mode or (is_own and part == slice(None)):
            projected = self.qkv(tokens)[:, :, part]  # a quantized kernel cannot be cut
            return projected if is_own else projected + self._bias()[part]
        kernel = ops.convert_to_tensor(self.qkv.kernel)[:, part]  # (hidden_dim, 1 to 3, …)
        bias = self._bias()[part] if self.qkv_bias else None
        return kernels.einsum_dense(self.qkv.equation, tokens, kernel, bias)

    def _bias(self):
        """The bias of queries, keys and values, (3, heads, head_dim)."""
        if self.qkv_bias != "qv":
            return ops.convert_to_tensor(self.qkv.bias)
        both = ops.convert_to_tensor(self.query_value_bias)
        return ops.stack([both[0], ops.zeros_like(both[0]), both[1]])

    def _score_bias(self, query, tokens, context, sizes):
        """Bias of the scores, of a shape that broadcasts to theirs, or `None`."""
        bias = None
        if sizes is not None:
            bias = ops.log(ops.cast(sizes, "float32"))  # (batch, others)
            bias = bias[:, None, None]  # (batch, 1, 1, others)
        if self.relative_grid is None:
            return bias
        # (batch or 1, heads, tokens, others)
        if self.relative_kind == "keys":
            others = tokens if context is None else context
            offsets = self.relative_keys(query, num_keys=others.shape[1])
        else:
            offsets = self.relative_position(tokens, context)[None]
        return offsets if bias is None else offsets + bias

    def _turn(self, query, key, positions):
        """Queries and keys, turned by the angles of their tokens."""
        pairs = self.rope["pairs"]
        if positions is None:
            raise ValueError(
                f"Attention with `rope` must be given `positions`. Received: "
                f"positions=None for rope={self.rope}. `RotaryEmbedding` returns them."
            )
        if self.rope["kind"] == "mixed":
            places = ops.cast(positions, "float32")  # (others, 2)
            along = ops.cast(self.frequencies, "float32")[:, :, None]  # (2, heads, 1, …)
            angles = places[:, :1] * along[0] + places[:, 1:] * along[1]
            positions = turns(angles, pairs)  # (2, heads, others, head_dim)
        cosines, sines = positions[0], positions[1]  # (…, others, head_dim) each
        key = rotate(key, cosines, sines, pairs)
        tokens = ops.shape(query)[2]
        first = (..., slice(tokens), slice(None))
        return rotate(query, cosines[first], sines[first], pairs), key

    def _drop(self, weights):
        return self.dropout(weights, training=True)

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        return tuple(tokens_shape)

    def compute_output_spec(
        self,
        tokens: keras.KerasTensor,
        context: keras.KerasTensor | None = None,
        sizes: keras.KerasTensor | None = None,
        positions: keras.KerasTensor | None = None,
        return_keys: bool = False,
        training: bool | None = None,
    ) -> keras.KerasTensor | tuple[keras.KerasTensor, keras.KerasTensor]:
        outputs = keras.KerasTensor(tokens.shape, self.compute_dtype)
        if not return_keys:
            return outputs
        *others, hidden_dim = (tokens if context is None else context).shape
        shape = (*others, hidden_dim // self.num_heads)
        return outputs, keras.KerasTensor(shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "qkv_bias": self.qkv_bias,
            "qk_norm": self.qk_norm,
            "relative_grid": self.relative_grid,
            "relative_kind": self.relative_kind,
            "num_prefix": self.num_prefix,
            "norm": self.norm,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "rope": self.rope,
            "sub_norm": self.sub_norm,
            "projection_bias": self.projection_bias,
            "dropout_rate": self.dropout_rate,
        }
