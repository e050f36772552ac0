"""The Vision Transformer."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import Any

import keras
import numpy as np

from keras_vit.layers import (
    AttentionPooling,
    ClassToken,
    EncoderBlock,
    LayerPositions,
    MeanPooling,
    PatchEmbedding,
    PositionEmbedding,
    QueryPooling,
    Registers,
    RotaryEmbedding,
    TokenMeanPooling,
    TokenPooling,
)
from keras_vit.layers.dense import Dense
from keras_vit.layers.initial_values import initializer
from keras_vit.layers.mlp import GATED
from keras_vit.layers.normalization import NORMS
from keras_vit.models.encoding import apply_block
from keras_vit.models.fields import (
    ABSOLUTE,
    RELATIVE,
    checked_fields,
    has_own_positions,
    num_prefix,
)
from keras_vit.models.images import (
    ImageModel,
    config_of,
    head,
    image_input,
    rescaling,
    to_channels_last,
    two_heads,
)
from keras_vit.models.resnet_stem import resnet
from keras_vit.models.sizes import grid_size
from keras_vit.models.token_features import Stages
from keras_vit.types import Tensor
from keras_vit.weight_paths import automatic_name


@keras.saving.register_keras_serializable(package="keras_vit")
class VisionTransformer(ImageModel):
    """Vision Transformer of any size: a functional model whose config is its arguments.

    Source: ViT (arXiv 2010.11929), section 3.1. The layers, in the order in which an
    image passes them: `preprocessing` (if included), `patch_embedding`, `patch_norm`,
    `class_token`, `distillation_token`, `registers`, `position_embedding`,
    `embedding_dropout`, `pre_norm`, `rotary_embedding` and `layer_positions` (of the
    patches, for the blocks),
    `block_0`, `block_1`, …, `encoder_norm`, `pooling`, `fc_norm`, `pre_logits`, `head`,
    `distillation_head`. The arguments say which of them there are; it is either
    `encoder_norm` or `fc_norm`, or neither.

    Args:
        image_size: int or (height, width), in pixels; gives the position grid its size.
        patch_size: int or (height, width), in pixels.
        hidden_dim: int, width of the tokens.
        num_layers: int, number of encoder blocks.
        num_heads: int, attention heads of each block, a divisor of `hidden_dim`.
        mlp_dim: int, width of the MLPs' hidden layers: what `dense_2` reads, under
            `mlp="swiglu"` or `"geglu"` half of what `dense_1` computes.
        classes: int, outputs of the head; 0 for no head.
        pooling: `"token"` (the class token), `"gap"` (mean of the patch tokens, also
            `"avg"`, as `keras.applications` calls it), `"map"` (attention pooling of
            them, see `layers.AttentionPooling`), `"token_gap"` (class token and mean side
            by side, 2 * hidden_dim wide, which DINOv2's classifiers read), `"query"`
            (attention pooling by a probe that is not projected, see
            `layers.QueryPooling`), or `None`: the model returns every token.
        pooling_num_heads: int, attention heads of `pooling="map"` or `"query"`, a divisor
            of `hidden_dim`; `None` for `num_heads`.
        pooling_mlp_dim: int, width of the hidden layer of the MLP of `pooling="map"`;
            `None` for `mlp_dim`.
        pooling_prefix: bool, whether `pooling="gap"`, `"map"` or `"query"` pools the
            tokens before the patches, too (class token and registers): the Perception
            Encoder's core (arXiv 2504.13181), timm's `pool_include_prefix`.
        class_token: bool, whether there is a class token; `None` gives one where
            `pooling` is `"token"`, `"token_gap"` or `None`.
        distilled: bool, whether there is a distillation token after the class token, with
            a head of its own (DeiT, arXiv 2012.12877, section 4, where that head learns
            from a teacher). The model returns the activation of both heads' averaged
            logits; without a head the mean of the two tokens. `fit` trains this average.
            The logits of one head are `get_layer("head").output` (class token) and
            `get_layer("distillation_head").output`, for a loss on each. Needs
            `pooling="token"` or `None`.
        num_registers: int, number of register tokens after these.
        num_prefix_positions: int, how many tokens before the patches (class token,
            distillation token, then registers), from the first, own a learned position: 0
            in BigVision and under timm's `no_embed_class`, `1 + num_registers` in timm's
            default with registers. `None` gives one to class token and distillation token
            where positions are learned.
        representation_size: int, width of the tanh layer `pre_logits` before the head,
            or `None` for none.
        classifier_activation: activation of the head; `None` returns logits.
        position: `"learned"` (the paper's 1-D), `"learned2d"` (half for the column, half
            for the row; appendix D.4), `"sincos"`, `"sincos2d"` (fixed, in raster order or
            by column and row) or `"none"`, see `layers.PositionEmbedding`; or
            `"relative"` (BEiT, arXiv 2106.08254): nothing is added to the tokens, and the
            attention of each block has a bias for each offset between two patches, see
            `layers.RelativePositionBias`; or `"relative_key"` (the relative positions of
            appendix D.4): the queries of each block also attend to an embedding of each
            offset in raster order, see `layers.RelativeKeys`.
        position_at: the place at which positions are added (appendix D.4): at the `"stem"`,
            to the embeddings of the patches; or at the beginning of each block, by weights
            of its own (`"each_layer"`) or by the same ones (`"each_layer_shared"`), and
            not at the stem. See `layers.LayerPositions`.
        position_interpolation: how a position grid is resized, `"linear"` (aligned
            corners, the ViT paper's code), `"bilinear"` (FlexiViT) or `"bicubic"`
            (antialiased, timm).
        patch_bias: bool, whether `patch_embedding` has a bias; `None` gives one where
            there is no `pre_norm` (CLIP has none).
        patch_norm: bool, whether the patches pass a norm `patch_norm` before the positions
            (AIMv2, arXiv 2411.14402).
        pre_norm: bool, whether the tokens pass a layer norm `pre_norm` before the first
            block (CLIP, arXiv 2103.00020, section 2.4).
        fc_norm: bool, whether the final norm is one of the pooled features, `fc_norm`,
            instead of `encoder_norm`, one of every token (the fine-tuning code of MAE,
            arXiv 2111.06377; timm's default with a mean). Needs a `pooling`.
        final_norm: bool, whether there is a final norm; `False` leaves out `encoder_norm`
            (the Perception Encoder's spatial and language models, arXiv 2504.13181).
        mlp: `"gelu"`, `"quick_gelu"` (OpenAI's CLIP), `"swiglu"` (DINOv2's giant) or
            `"geglu"` (a GELU instead of its SiLU), the activation of the
            blocks' MLPs, see `layers.MLP`. The MLP of `pooling="map"` has it too, but
            GELU where the blocks' have a gate.
        gelu_approximate: bool, the tanh approximation of GELU (Google's models) or the
            exact function (timm, transformers).
        qkv_bias: bool, whether queries, keys and values have a bias in the blocks; `"qv"`
            for queries and values alone (BEiT, arXiv 2106.08254).
        qk_norm: bool, layer norms of each head's queries and keys in the blocks, see
            `layers.SelfAttention`.
        rope: rotary positions of the patches' queries and keys in every block, a
            dictionary or the kind alone, see `layers.RotaryEmbedding`; `None` for none.
            They come besides `position`, which most of these models have as `"none"`.
        attention_sub_norm: bool, whether the heads' weighted values pass a layer norm
            before the projection (EVA-02's CLIP), see `layers.SelfAttention`.
        mlp_sub_norm: bool, whether the MLPs' hidden layers pass a layer norm (EVA-02,
            arXiv 2303.11331), see `layers.MLP`.
        mlp_bias: bool, whether the dense layers of the MLPs have a bias.
        projection_bias: bool, whether the projection of the attention's outputs has one.
        norm: `"layer"` or `"rms"` (AIMv2, arXiv 2411.14402), the kind of every norm but
            that of `pooling="map"`, see `layers.RMSNormalization`.
        norm_after: bool, whether the norms of the blocks come after attention and MLP, see
            `layers.EncoderBlock`.
        layer_scale: float, initial value of a `layers.LayerScale` on each residual
            branch, or `None` for none.
        stem: a ResNet before `patch_embedding`, which makes the model a hybrid: a
            dictionary with `"num_units"`, the number of units of each stage, such as (3,
            4, 9), and where they differ from the paper's `"width_factor"` (1, a root of
            64 channels), `"group_norm_epsilon"` (1e-6), `"standardization"` (`"std"`) and
            `"standardization_epsilon"`, see `layers.BottleneckUnit`. `patch_size` is then
            in pixels of its feature map, a quarter of the image's height and width,
            halved by each stage after the first. Its layers are `stem_root`,
            `stem_stage_0_unit_0`, …. `None` for none.
        layer_norm_epsilon: float, added to the variance in the layer norms, or to the mean
            of squares in RMS norms.
        dropout_rate: float in [0, 1), dropout of embeddings, attention outputs and MLPs.
        attention_dropout_rate: float in [0, 1), dropout of the attention weights.
        drop_path_rate: float in [0, 1), stochastic depth of the last block; it grows
            linearly from 0 at the first.
        rematerialize: bool, whether training keeps the inputs of the blocks alone and
            computes the rest once more in the backward pass: less memory, some more time,
            the same results.
        full_last_block: bool. With `pooling="token"` nothing reads the other tokens of
            the last block, so it computes the class token alone (with `distilled` the
            distillation token, too) and its output is (batch, 1, hidden_dim); `True`
            computes every token.
        merged_tokens: int, or a sequence with one for each block: how many patch tokens
            each block merges into others that are like them (*Token Merging: Your ViT But
            Faster*, arXiv 2210.09461), which costs some accuracy, saves time and needs no
            training; half of those that are left at most, 0 for none. A token then weighs
            as many patches as it stands for, in attention and in `pooling`. Class token
            and registers stay. A block that merges has two outputs, its tokens and, as
            int32 (batch, tokens), how many patches each stands for.
        image_mean: float or one for each channel, subtracted from the pixel values (on a
            scale from 0 to 1) of the images that the model is trained on.
        image_std: float or one for each channel, the divisor after that. Both 0.5 is the
            range [-1, 1] of Google's models.
        include_preprocessing: bool, whether the model itself subtracts and divides, and
            takes pixel values from 0 to 255.
        class_names: a name for each class, or `None` if they are unknown. This argument and
            the next two change nothing that the model computes: its file keeps them for
            programs that read it. With a new head `from_pretrained` leaves `class_names`
            and `probabilities` out.
        probabilities: `"softmax"` or `"sigmoid"`, the activation that makes probabilities
            of the outputs where `classifier_activation` is `None`.
        preprocessing: the preparation of images for evaluation, beside their size, mean
            and deviation: a dictionary of `"evaluation_crop"`, `"resize_factor"` and
            `"interpolation"` (see `data.Augmentation`), `"value_range"` and `"alpha"` (see
            `data.Pipeline`), and `"image_size"` where it is another than the model's;
            each may be left out.
        input_shape: shape of an image without the batch, `None` for `image_size` with 3
            channels. Height and width `None` accept any size divisible by the patch:
            the position grid keeps `image_size` and is resized inside the graph.
        input_tensor: a `keras.Input` to build the model on; not part of the config.
        data_format: `"channels_last"` or `"channels_first"`, of the images; `None` takes
            `keras.config.image_data_format()`.
        dtype: dtype policy of all layers, `None` for the global one. Under any policy the
            head computes in float32.
        name: str, the model's name, with which the paths of its weights begin; `None` for
            one of Keras' numbered names.
        trainable: bool, whether the model's weights are to be trained.

    Returns:
        A model that maps images, float or integer, to float32 (batch, classes); without
        a head to (batch, hidden_dim or representation_size), with `pooling="token_gap"`
        to (batch, 2 * hidden_dim), or with `pooling=None` to (batch, tokens, hidden_dim).

    Raises:
        ValueError: if an argument is out of its range, or two do not fit together.

    Example:

    >>> model = VisionTransformer(32, 8, hidden_dim=48, num_layers=2, num_heads=4,
    ...                           mlp_dim=96, classes=10)
    >>> model(np.zeros((1, 32, 32, 3))).shape
    (1, 10)
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        patch_size: int | tuple[int, int],
        hidden_dim: int,
        num_layers: int,
        num_heads: int,
        mlp_dim: int,
        *,
        classes: int = 0,
        pooling: str | None = "token",
        pooling_num_heads: int | None = None,
        pooling_mlp_dim: int | None = None,
        pooling_prefix: bool = False,
        class_token: bool | None = None,
        distilled: bool = False,
        num_registers: int = 0,
        num_prefix_positions: int | None = None,
        representation_size: int | None = None,
        classifier_activation: str | Callable | None = "softmax",
        position: str = "learned",
        position_at: str = "stem",
        position_interpolation: str = "linear",
        patch_bias: bool | None = None,
        patch_norm: bool = False,
        pre_norm: bool = False,
        fc_norm: bool = False,
        final_norm: bool = True,
        mlp: str = "gelu",
        gelu_approximate: bool = True,
        qkv_bias: bool | str = True,
        qk_norm: bool = False,
        rope: Mapping | str | None = None,
        attention_sub_norm: bool = False,
        mlp_sub_norm: bool = False,
        mlp_bias: bool = True,
        projection_bias: bool = True,
        norm: str = "layer",
        norm_after: bool = False,
        layer_scale: float | None = None,
        stem: Mapping[str, Any] | None = None,
        layer_norm_epsilon: float = 1e-6,
        dropout_rate: float = 0.0,
        attention_dropout_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        rematerialize: bool = False,
        full_last_block: bool = False,
        merged_tokens: int | Sequence[int] = 0,
        image_mean: float | tuple[float, ...] = 0.5,
        image_std: float | tuple[float, ...] = 0.5,
        include_preprocessing: bool = False,
        class_names: Sequence[str] | None = None,
        probabilities: str | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        input_shape: tuple[int | None, ...] | None = None,
        input_tensor: Tensor | None = None,
        data_format: str | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        name: str | None = None,
        trainable: bool = True,
    ):
        # The config is the arguments as given, so it is taken before anything else.
        config = config_of(locals())
        fields = checked_fields(config)
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())

        inputs = image_input(fields, input_tensor)
        name = name or automatic_name(type(self).__name__)
        with keras.name_scope(name):
            patches = _embed_patches(inputs, fields, policy)  # (b, rows, columns, d)
            tokens = _embed_positions(patches, fields, policy)  # (b, tokens, d)
            tokens = _drop_and_norm(tokens, fields, policy)
            first_block_inputs = {"tokens": tokens, **_for_blocks(patches, fields, policy)}
            tokens, sizes, *stages = _encode(first_block_inputs, fields, policy)
            features = _pool(tokens, sizes, fields, policy)  # (b, d)
            outputs = _head(features, fields, policy)  # (b, classes)
        super().__init__(inputs=inputs, outputs=outputs, name=name, trainable=trainable)

        self.fields: SimpleNamespace = fields  # the arguments, checked, without defaults
        # Symbolic tensors by name; read-only, as Keras wraps other dictionaries.
        self.first_block_inputs: Mapping[str, Tensor] = MappingProxyType(first_block_inputs)
        self._stages = Stages(patches, *stages)
        resolved = (
            *("image_size", "patch_size", "data_format", "classifier_activation"),
            *("image_mean", "image_std", "pooling", "stem", "rope"),
        )
        self._keep_config(config, fields, resolved, policy)

    @property
    def pooled_output(self) -> Tensor:
        """Symbolic tensor of `features(images)["pooled"]`, (batch, hidden_dim).

        Raises:
            ValueError: if the model has no pooling.
        """
        pooled = super().pooled_output
        if self._config["distilled"] and self._config["classes"]:
            # Each head reads one of the two tokens.
            tokens = (pooled, self.get_layer("distillation_pooling").output)
            return keras.ops.mean(keras.ops.stack(tokens, axis=1), axis=1)
        return self.get_layer("fc_norm").output if self._config["fc_norm"] else pooled

    def last_layers(self, images: Tensor) -> dict[str, Tensor]:
        """Outputs of the last block and of `encoder_norm`, if any, for every token.

        Args:
            images: a batch of images as the model takes them.

        Returns:
            A dictionary of the layer's name → (batch, tokens, hidden_dim).
        """
        return self._stages.compute(self, images)[0]

    def features(
        self,
        images: Tensor,
        layers: int | Sequence[int] | str | None = None,
        as_maps: bool = False,
    ) -> dict[str, Tensor]:
        """The encoder's output by kind of token, after the final norm.

        Every token is computed, also where the model itself skips some in its last
        block. With `fc_norm=True` only `"pooled"` is normed, and the tokens are outputs of
        the last block, as with `final_norm=False`.

        Args:
            images: a batch of images as the model takes them.
            layers: blocks whose outputs are returned, too: numbers from 0, negative ones
                from the end, or `"all"`. They come from the same pass, before the final
                norm.
            as_maps: whether patch tokens come in the rows and columns of the image, also
                those of blocks, without the tokens before them.

        Returns:
            A dictionary of tensors: `"class_token"` and `"distillation_token"` (batch,
            hidden_dim), `"registers"` (batch, num_registers, hidden_dim), `"patch_tokens"`
            (batch, rows * columns, hidden_dim) row by row, `"pooled"` (batch, hidden_dim;
            twice as wide with `pooling="token_gap"`), each if the model has it; and of
            `layers` `"block_3"`, … (batch, tokens, hidden_dim). With `as_maps`
            `"patch_tokens"` and blocks are (batch, rows, columns, hidden_dim). With
            `merged_tokens` there are fewer patch tokens, in another order, and
            `"patch_sizes"`, int32 (batch, tokens): how many patches each stands for.

        Raises:
            ValueError: if there is no such block, or merged tokens are to be maps.

        Example:

        >>> features = model.features(images, layers=(2, 5, 8, -1), as_maps=True)
        >>> pyramid = [features[f"block_{i}"] for i in (2, 5, 8, 11)]
        """
        return self._stages.features(self, images, layers, as_maps)


def _embed_patches(images, c, policy):
    if c.include_preprocessing:
        images = rescaling(c)(images)
    data_format = c.data_format
    if c.stem:
        images = to_channels_last(images, c)
        images = resnet(images, prefix="stem_", policy=policy, **c.stem)
        data_format = "channels_last"
    patches = PatchEmbedding(
        c.patch_size,
        c.hidden_dim,
        data_format=data_format,
        use_bias=c.patch_bias,
        dtype=policy,
        name="patch_embedding",
    )(images)
    return _norm("patch_norm", c, policy)(patches) if c.patch_norm else patches


def _embed_positions(patches, c, policy):
    prefix = []
    if c.class_token:
        prefix.append(ClassToken(dtype=policy, name="class_token")(patches))
    if c.distilled:
        token = Registers(1, dtype=policy, name="distillation_token")
        prefix.append(token(patches))
    if c.num_registers:
        registers = Registers(c.num_registers, dtype=policy, name="registers")
        prefix.append(registers(patches))
    if len(prefix) > 1:
        prefix = [keras.layers.Concatenate(axis=1, dtype=policy, name="prefix")(prefix)]
    is_here = c.position in ABSOLUTE and c.position_at == "stem"
    options = _position_options(c) if is_here else {"position": "none"}
    layer = PositionEmbedding(**options, dtype=policy, name="position_embedding")
    return layer(patches, *prefix)


def _position_options(c):
    """Arguments of a layer of positions that are added."""
    return {
        "position": c.position,
        "grid_size": grid_size(c.image_size, c.patch_size, c.stem),
        "num_prefix": c.num_prefix_positions,
        "interpolation": c.position_interpolation,
    }


def _drop_and_norm(tokens, c, policy):
    if c.dropout_rate:
        tokens = keras.layers.Dropout(
            c.dropout_rate, dtype=policy, name="embedding_dropout"
        )(tokens)
    return _norm("pre_norm", c, policy)(tokens) if c.pre_norm else tokens


def _norm(name, c, policy):
    return NORMS[c.norm](epsilon=c.layer_norm_epsilon, dtype=policy, name=name)


def _for_blocks(patches, c, policy):
    """Inputs of every block beside the tokens: positions, by the argument of the block."""
    given = {}
    if c.rope is not None:
        given["positions"] = RotaryEmbedding(
            c.rope,
            c.hidden_dim // c.num_heads,
            num_prefix=num_prefix(c),
            dtype="float32",
            name="rotary_embedding",
        )(patches)
    if c.position_at != "stem" and not has_own_positions(c):
        given["layer_positions"] = LayerPositions(
            **_position_options(c),
            num_tokens=num_prefix(c),
            dtype=policy,
            name="layer_positions",
        )(patches)
    return given


def _encode(inputs, c, policy):
    """Passes the tokens through the blocks and `encoder_norm`.

    Args:
        inputs: arguments of the first block.
        c: the fields.
        policy: dtype policy.

    Returns:
        Tokens (batch, tokens, hidden_dim); their sizes (batch, tokens), `None` if none is
        merged; the tokens after each block but the last; the inputs of the last block, with
        every token.
    """
    grid = None
    if c.position in RELATIVE:
        grid = grid_size(c.image_size, c.patch_size, c.stem)
    rates = np.linspace(0, c.drop_path_rate, c.num_layers).tolist()
    blocks = [
        EncoderBlock(
            c.num_heads,
            c.mlp_dim,
            mlp=c.mlp,
            gelu_approximate=c.gelu_approximate,
            qkv_bias=c.qkv_bias,
            qk_norm=c.qk_norm,
            relative_grid=grid,
            relative_kind="keys" if c.position == "relative_key" else "bias",
            rope=c.rope,
            attention_sub_norm=c.attention_sub_norm,
            mlp_sub_norm=c.mlp_sub_norm,
            mlp_bias=c.mlp_bias,
            projection_bias=c.projection_bias,
            norm=c.norm,
            norm_after=c.norm_after,
            layer_scale=c.layer_scale,
            layer_norm_epsilon=c.layer_norm_epsilon,
            dropout_rate=c.dropout_rate,
            attention_dropout_rate=c.attention_dropout_rate,
            drop_path_rate=rate,
            rematerialize=c.rematerialize,
            merged_tokens=merged,
            num_prefix=num_prefix(c),
            own_positions=_position_options(c) if has_own_positions(c) else None,
            dtype=policy,
            name=f"block_{i}",
        )
        for i, (rate, merged) in enumerate(zip(rates, c.merged_tokens, strict=True))
    ]
    tokens, sizes, outputs = inputs["tokens"], None, []
    for block in blocks[:-1]:
        tokens, sizes = apply_block(block, **{**inputs, "tokens": tokens, "sizes": sizes})
        outputs.append(tokens)
    merged = {} if sizes is None else {"sizes": sizes}
    inputs = {**inputs, "tokens": tokens, **merged}
    if c.pooling == "token" and not c.full_last_block:
        read = tokens[:, : 1 + c.distilled]
        tokens = blocks[-1](**{**inputs, "tokens": read, "context": tokens})
        sizes = None
    else:
        tokens, sizes = apply_block(blocks[-1], **inputs)
    if c.final_norm and not c.fc_norm:
        tokens = _norm("encoder_norm", c, policy)(tokens)
    return tokens, sizes, outputs, inputs


def _pool(tokens, sizes, c, policy):
    if c.pooling is None:
        return tokens
    if c.distilled:
        return _pool_two(tokens, c, policy)
    features = _pooling(c, policy)(tokens, sizes=sizes)
    return _norm("fc_norm", c, policy)(features) if c.fc_norm else features


def _pool_two(tokens, c, policy):
    """Class token and distillation token for their heads; their mean without a head."""
    if not c.classes:
        return MeanPooling(dtype=policy, name="pooling")(tokens[:, :2])
    class_token = TokenPooling(dtype=policy, name="pooling")
    distillation_token = TokenPooling(index=1, dtype=policy, name="distillation_pooling")
    return class_token(tokens), distillation_token(tokens)


def _pooling(c, policy):
    keras_arguments = {"dtype": policy, "name": "pooling"}
    if c.pooling == "token":
        return TokenPooling(**keras_arguments)
    prefix = 0 if c.pooling_prefix else num_prefix(c)
    if c.pooling == "gap":
        return MeanPooling(num_prefix=prefix, **keras_arguments)
    if c.pooling == "token_gap":
        return TokenMeanPooling(num_prefix=prefix, **keras_arguments)
    if c.pooling == "query":
        return QueryPooling(
            c.pooling_num_heads,
            num_prefix=prefix,
            use_bias=c.qkv_bias is True,
            **keras_arguments,
        )
    return AttentionPooling(
        c.pooling_num_heads,
        num_prefix=prefix,
        mlp_dim=c.pooling_mlp_dim,
        activation="gelu" if c.mlp in GATED else c.mlp,
        gelu_approximate=c.gelu_approximate,
        layer_norm_epsilon=c.layer_norm_epsilon,
        **keras_arguments,
    )


def _head(features, c, policy):
    if c.representation_size:
        features = Dense(
            c.representation_size,
            activation="tanh",
            kernel_initializer=initializer("glorot_uniform"),
            dtype=policy,
            name="pre_logits",
        )(features)
    if not c.classes:
        return features
    return two_heads(*features, c) if c.distilled else head(features, c)
