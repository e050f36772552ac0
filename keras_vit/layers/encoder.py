"""The encoder block."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_vit import arguments
from keras_vit.layers.attention import SelfAttention
from keras_vit.layers.layer_positions import own_positions as positions_of
from keras_vit.layers.merging import count_merged, merge_tokens
from keras_vit.layers.mlp import ACTIVATIONS, MLP
from keras_vit.layers.normalization import NORMS
from keras_vit.layers.regularization import DropPath, LayerScale, drop
from keras_vit.layers.trainability import Composite
from keras_vit.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_vit")
class EncoderBlock(Composite, keras.layers.Layer):
    """Pre-LN transformer block: attention, then MLP, each added to its input.

    Source: ViT (arXiv 2010.11929), section 3.1, equations 2 and 3. Between attention and
    MLP it may merge tokens that are alike, see `layers.merging.merge_tokens`. The norms may
    come after the two instead, inside the branches (*Swin Transformer V2*, arXiv
    2111.09883, section 3.2, residual post-normalization).

    Args:
        num_heads: int, a divisor of the tokens' width.
        mlp_dim: int, width of the MLP's hidden layer.
        mlp: str, the activation of the MLP, see `MLP`.
        gelu_approximate: bool, see `MLP`.
        qkv_bias: bool or `"qv"`, see `SelfAttention`.
        qk_norm: bool, see `SelfAttention`.
        relative_grid: (rows, columns) of the patches, see `SelfAttention`; no block
            before can have merged tokens.
        relative_kind: `"bias"` or `"keys"`, see `SelfAttention`.
        rope: rotary positions, see `SelfAttention`.
        attention_sub_norm: bool, `sub_norm` of `SelfAttention`.
        mlp_sub_norm: bool, `sub_norm` of `MLP`.
        mlp_bias: bool, whether the dense layers of the MLP have a bias.
        projection_bias: bool, see `SelfAttention`.
        norm: `"layer"` or `"rms"`, the kind of every norm in the block.
        norm_after: bool, whether the norms come after attention and MLP, before they are
            added, instead of before attention and MLP.
        layer_scale: float, initial value of a `LayerScale` on each branch, or `None`
            for none.
        layer_norm_epsilon: float, added to the variance in the layer norms.
        dropout_rate: float in [0, 1), dropout of the attention's output and in the
            MLP.
        attention_dropout_rate: float in [0, 1), dropout of the attention weights.
        drop_path_rate: float in [0, 1), see `DropPath`.
        rematerialize: bool, whether training keeps only the block's inputs, and the
            backward pass computes the rest once more (*Training Deep Nets with Sublinear
            Memory Cost*, arXiv 1604.06174), with the same dropout.
        merged_tokens: int, number of tokens that are merged into others, at most half of
            those after the prefix; 0 for none.
        num_prefix: int, number of tokens before the patches (class token, registers),
            which are never merged, and whose offsets from others are all alike.
        own_positions: learned positions that the block adds to its inputs (ViT, appendix
            D.4), the layer `layer_positions`: a dictionary of arguments of
            `LayerPositions`, `"grid_size"` among them; `None` for none. No block before
            can have merged tokens.

    Call arguments:
        tokens: (batch, tokens, hidden_dim).
        context: `None`, or the whole sequence (batch, others, hidden_dim) where
            `tokens` is a part of it: then only the outputs of that part are computed, the
            same as in the whole, and no token is merged.
        sizes: int32 (batch, tokens), how many patches each token stands for, or each token
            of the `context`; `None` where blocks before have merged none.
        positions: float32, what `RotaryEmbedding` returns for the tokens, or for the
            `context`; it must be given where there is a `rope`.
        layer_positions: (tokens, hidden_dim), what `LayerPositions` returns for the tokens,
            or for the `context`, which the block adds to them; `None` for none.
        training: bool, whether dropout and drop path are active.

    Returns:
        (batch, tokens, hidden_dim); with `merged_tokens` and no `context` a tuple of the
        tokens that are left and of their sizes.

    Raises:
        ValueError: if tokens are merged and their number is not known at build.
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        *,
        mlp: str = "gelu",
        gelu_approximate: bool = True,
        qkv_bias: bool | str = True,
        qk_norm: bool = False,
        relative_grid: tuple[int, int] | None = None,
        relative_kind: str = "bias",
        rope: Mapping | str | None = None,
        attention_sub_norm: bool = False,
        mlp_sub_norm: bool = False,
        mlp_bias: bool = True,
        projection_bias: bool = True,
        norm: str = "layer",
        norm_after: bool = False,
        layer_scale: float | None = None,
        layer_norm_epsilon: float = 1e-6,
        dropout_rate: float = 0.0,
        attention_dropout_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        rematerialize: bool = False,
        merged_tokens: int = 0,
        num_prefix: int = 0,
        own_positions: Mapping[str, Any] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = arguments.positive(num_heads, "num_heads")
        self.mlp_dim = arguments.positive(mlp_dim, "mlp_dim")
        self.gelu_approximate = gelu_approximate
        self.qkv_bias = qkv_bias
        self.qk_norm = qk_norm
        self.layer_scale = layer_scale
        self.layer_norm_epsilon = layer_norm_epsilon
        self.dropout_rate = arguments.rate(dropout_rate, "dropout_rate")
        self.attention_dropout_rate = arguments.rate(
            attention_dropout_rate, "attention_dropout_rate"
        )
        self.drop_path_rate = arguments.rate(drop_path_rate, "drop_path_rate")
        self.rematerialize = rematerialize
        self.merged_tokens = merged_tokens
        self.num_prefix = num_prefix

        self.norm = arguments.one_of(norm, tuple(NORMS), "norm")
        self.norm_after = norm_after

        policy = self.dtype_policy
        self.own_positions = None if own_positions is None else dict(own_positions)
        self.layer_positions = positions_of(own_positions, num_prefix, policy)
        options = {"epsilon": layer_norm_epsilon, "dtype": policy}
        self.attention_norm = NORMS[norm](**options, name="attention_norm")
        self.attention = SelfAttention(
            num_heads,
            qkv_bias=qkv_bias,
            qk_norm=qk_norm,
            relative_grid=relative_grid,
            relative_kind=relative_kind,
            num_prefix=num_prefix,
            rope=rope,
            sub_norm=attention_sub_norm,
            projection_bias=projection_bias,
            norm=norm,
            layer_norm_epsilon=layer_norm_epsilon,
            dropout_rate=attention_dropout_rate,
            dtype=policy,
            name="attention",
        )
        self.mlp_norm = NORMS[norm](**options, name="mlp_norm")
        self.mlp = MLP(
            mlp_dim,
            activation=arguments.one_of(mlp, ACTIVATIONS, "mlp"),
            gelu_approximate=gelu_approximate,
            sub_norm=mlp_sub_norm,
            use_bias=mlp_bias,
            norm=norm,
            layer_norm_epsilon=layer_norm_epsilon,
            dropout_rate=dropout_rate,
            dtype=policy,
            name="mlp",
        )
        self.dropout = keras.layers.Dropout(dropout_rate, dtype=policy, name="dropout")
        self.drop_path = DropPath(drop_path_rate, dtype=policy, name="drop_path")
        if layer_scale is not None:
            self.attention_scale = LayerScale(
                layer_scale, dtype=policy, name="attention_scale"
            )
            self.mlp_scale = LayerScale(layer_scale, dtype=policy, name="mlp_scale")

    def build(self, tokens_shape: Shape) -> None:
        if self.merged_tokens and tokens_shape[1] is None:
            raise ValueError(
                "A block that merges tokens must know their number. Received: "
                f"merged_tokens={self.merged_tokens}, tokens_shape={tuple(tokens_shape)}. "
                "Build the model for images of one size, or use merged_tokens=0."
            )
        shape = (None, None, tokens_shape[-1])
        if self.layer_positions is not None:
            grid = self.layer_positions.grid_size
            self.layer_positions.build((None, *grid, tokens_shape[-1]))
        self.attention_norm.build(shape)
        self.attention.build(shape)
        self.mlp_norm.build(shape)
        self.mlp.build(shape)
        self.drop_path.build(shape)
        if self.layer_scale is not None:
            self.attention_scale.build(shape)
            self.mlp_scale.build(shape)

    def call(
        self,
        tokens: Tensor,
        context: Tensor | None = None,
        sizes: Tensor | None = None,
        positions: Tensor | None = None,
        layer_positions: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        inputs = {"tokens": tokens, "context": context, "added": layer_positions}
        if self.rematerialize and training:
            return self._rematerialized(inputs, sizes, positions)
        return self._encode(**inputs, sizes=sizes, positions=positions, training=training)

    def _rematerialized(self, inputs, sizes, positions):
        # Keras 3.15's own `RematScope` wraps `call`, and with it the steps of the seed
        # generators. With drop path it raises on JAX and TensorFlow, and on torch the
        # backward pass drops other branches than the forward pass. Here the wrapped
        # function has no effects: the seeds come from outside, and their next states are
        # returned.
        weights, seeds = self.weights, self._seeds()
        # Copies, because torch assigns in place.
        before = [ops.copy(seed.value) for seed in seeds]

        inputs = _given(**inputs)  # in the order of the call's tensors
        options = {"sizes": sizes, "positions": positions, "training": True}

        def encode(values, *tensors):
            mapping = zip((*weights, *seeds), (*values, *before), strict=True)
            given = dict(zip(inputs, tensors, strict=True))
            with keras.StatelessScope(mapping, initialize_variables=False) as scope:
                outputs = self._encode(**given, **options)
            return outputs, [scope.get_current_value(seed) for seed in seeds]

        values = [weight.value for weight in weights]
        outputs, after = keras.remat(encode)(values, *inputs.values())
        for seed, value in zip(seeds, after, strict=True):
            seed.assign(value)
        return outputs

    def _seeds(self):
        """The states of the block's seed generators."""
        weights = {id(weight) for weight in self.weights}
        return [variable for variable in self.variables if id(variable) not in weights]

    def _encode(
        self, tokens, context=None, added=None, sizes=None, positions=None, training=None
    ):
        merges = self._merges(context)
        if self.layer_positions is not None:
            added = self._own_positions(tokens if context is None else context)
        if added is not None:
            context = None if context is None else context + added
            tokens = tokens + added[: ops.shape(tokens)[1]]
        if context is not None and not self.norm_after:
            context = self.attention_norm(context)
        options = _given(
            context=context,
            sizes=sizes,
            positions=positions,
            return_keys=merges,
            training=training,
        )
        branch = tokens if self.norm_after else self.attention_norm(tokens)
        branch = self.attention(branch, **options)
        if merges:
            branch, keys = branch
        branch = drop(self.dropout, branch, training)
        if self.norm_after:
            branch = self.attention_norm(branch)
        if self.layer_scale is not None:
            branch = self.attention_scale(branch)
        tokens = tokens + drop(self.drop_path, branch, training)
        if merges:
            tokens, sizes = merge_tokens(
                tokens, keys, self.merged_tokens, num_prefix=self.num_prefix, sizes=sizes
            )

        branch = tokens if self.norm_after else self.mlp_norm(tokens)
        branch = self.mlp(branch, **_given(training=training))
        if self.norm_after:
            branch = self.mlp_norm(branch)
        if self.layer_scale is not None:
            branch = self.mlp_scale(branch)
        tokens = tokens + drop(self.drop_path, branch, training)
        return (tokens, sizes) if merges else tokens

    def _own_positions(self, tokens):
        """The positions of a whole sequence, (tokens, hidden_dim)."""
        rows, columns = self.layer_positions.grid_size
        known = self.num_prefix + rows * columns
        if tokens.shape[1] not in (None, known):
            raise ValueError(
                f"Positions of {rows} x {columns} patches with {self.num_prefix} tokens "
                f"before them are for {known} tokens. Received: {tokens.shape[1]} tokens. "
                "Build the block with the grid of the patches; merged tokens have no place."
            )
        return self.layer_positions.of_sequence(rows, columns, tokens.shape[-1])

    def _merges(self, context):
        return self.merged_tokens > 0 and context is None

    def compute_output_shape(
        self, tokens_shape: Shape, context_shape: Shape | None = None
    ) -> Shape:
        if not self._merges(context_shape):
            return tuple(tokens_shape)
        batch, tokens, hidden_dim = tokens_shape
        tokens -= count_merged(self.merged_tokens, tokens, self.num_prefix)
        return (batch, tokens, hidden_dim), (batch, tokens)

    def compute_output_spec(
        self,
        tokens: keras.KerasTensor,
        context: keras.KerasTensor | None = None,
        sizes: keras.KerasTensor | None = None,
        positions: keras.KerasTensor | None = None,
        layer_positions: keras.KerasTensor | None = None,
        training: bool | None = None,
    ) -> keras.KerasTensor | tuple[keras.KerasTensor, ...]:
        shape = self.compute_output_shape(tokens.shape, getattr(context, "shape", None))
        if not self._merges(context):
            return keras.KerasTensor(shape, self.compute_dtype)
        return tuple(map(keras.KerasTensor, shape, (self.compute_dtype, "int32")))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "mlp": self.mlp.activation,
            "gelu_approximate": self.gelu_approximate,
            "qkv_bias": self.qkv_bias,
            "qk_norm": self.qk_norm,
            "relative_grid": self.attention.relative_grid,
            "relative_kind": self.attention.relative_kind,
            "rope": self.attention.rope,
            "attention_sub_norm": self.attention.sub_norm,
            "mlp_sub_norm": self.mlp.sub_norm,
            "mlp_bias": self.mlp.use_bias,
            "projection_bias": self.attention.projection_bias,
            "norm": self.norm,
            "norm_after": self.norm_after,
            "layer_scale": self.layer_scale,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "dropout_rate": self.dropout_rate,
            "attention_dropout_rate": self.attention_dropout_rate,
            "drop_path_rate": self.drop_path_rate,
            "rematerialize": self.rematerialize,
            "merged_tokens": self.merged_tokens,
            "num_prefix": self.num_prefix,
            "own_positions": self.own_positions,
        }


def _given(**options):
    """Drops unset options: passing them makes Keras' calls about 1.5 times slower.

    Where `training` is left out, Keras takes that of the outer call.
    """
    return {
        name: value
        for name, value in options.items()
        if value is not None and value is not False
    }
