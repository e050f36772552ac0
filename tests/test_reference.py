"""Parity with the original implementations, stage by stage, at most 1e-5."""

import re

import keras
import numpy as np
import pytest
from helpers import REFERENCE, assert_close, reference

import keras_vit
from keras_vit.conversion.verify import compare_stages
from keras_vit.layers import AttentionPooling, PositionEmbedding
from keras_vit.resize import resize_grid

VIT_CASES = ["vit_token", "vit_token_linen_names", "vit_representation", "vit_gap"]


@pytest.mark.parametrize("case", VIT_CASES)
def test_every_stage_of_the_original_vit(case):
    expected = reference(case)
    model = keras_vit.from_pretrained(
        REFERENCE / case / "checkpoint.npz",
        classifier_activation=None,
    )
    comparison = compare_stages(model, expected, 1e-5)
    stages = {row.name for row in comparison.rows}
    assert stages == set(expected) - {"input"}
    assert {"patch_embedding", "encoderblock_1", "encoder_norm", "logits"} <= stages
    assert comparison.ok, f"\n{comparison}"


@pytest.mark.parametrize("case", VIT_CASES)
def test_logits_with_the_last_block_cut_to_the_class_token(case):
    expected = reference(case)
    model = keras_vit.from_pretrained(
        REFERENCE / case / "checkpoint.npz", classifier_activation=None
    )
    assert_close(model(expected["input"]), expected["logits"])


@pytest.mark.parametrize("case", ["position_resize_paper", "position_resize_timm"])
def test_position_resize(case):
    interpolation = {"paper": "linear", "timm": "bicubic"}[case.rpartition("_")[2]]
    arrays = reference(case)
    pairs = 0
    for name, source in arrays.items():
        match = re.fullmatch(r"(\d+)_in_(\d+)x(\d+)_\D+(\d)", name)
        if not match:
            continue
        pairs += 1
        number, rows, columns, prefix = map(int, match.groups())
        target = next(key for key in arrays if key.startswith(f"{number}_out"))
        size = tuple(map(int, re.findall(r"_(\d+)x(\d+)_", target)[0]))
        grid = source[0, prefix:].reshape(rows, columns, -1)
        expected = arrays[target][0, prefix:].reshape(*size, -1)
        assert_close(resize_grid(grid, size, interpolation), expected)
        # The same inside the graph, where the layer meets patches in another grid.
        layer = PositionEmbedding(grid_size=(rows, columns), interpolation=interpolation)
        layer.build((None, None, None, grid.shape[-1]))
        layer.grid.assign(grid)
        resized = layer(np.zeros((1, *expected.shape), "float32"))
        assert_close(resized[0], expected.reshape(-1, expected.shape[-1]))
    assert pairs >= 3


def test_sincos2d_positions_of_big_vision():
    tensors = reference("bigvision_sincos_gap", "checkpoint")
    model = keras_vit.VisionTransformer(
        32, 8, 48, 2, 4, 96, pooling="gap", position="sincos2d", representation_size=48
    )
    for layer, name in [("patch_embedding", "embedding"), ("pre_logits", "pre_logits")]:
        for weight in ("kernel", "bias"):
            variable = getattr(model.get_layer(layer), weight)
            variable.assign(tensors[f"params/{name}/{weight}"])
    assign_encoder(model, tensors)
    expected = reference("bigvision_sincos_gap")
    encoded = keras.Model(model.input, model.get_layer("encoder_norm").output)
    assert_close(encoded(expected["input"]), expected["encoded"])
    assert_close(model(expected["input"]), expected["pre_logits"])


def assign_encoder(model, tensors):
    """Assigns the encoder of a BigVision checkpoint by hand, independent of any table."""
    for i in range(2):
        block = model.get_layer(f"block_{i}")
        prefix = f"params/Transformer/encoderblock_{i}"
        assign_attention(
            block.attention, tensors, f"{prefix}/MultiHeadDotProductAttention_0"
        )
        assign_norm(block.attention_norm, tensors, f"{prefix}/LayerNorm_0")
        assign_norm(block.mlp_norm, tensors, f"{prefix}/LayerNorm_1")
        assign_mlp(block.mlp, tensors, f"{prefix}/MlpBlock_0")
    assign_norm(model.get_layer("encoder_norm"), tensors, "params/Transformer/encoder_norm")


def assign_attention(attention, tensors, prefix):
    for weight in ("kernel", "bias"):
        qkv = [tensors[f"{prefix}/{part}/{weight}"] for part in ("query", "key", "value")]
        axis = 1 if weight == "kernel" else 0
        getattr(attention.qkv, weight).assign(np.stack(qkv, axis))
        getattr(attention.projection, weight).assign(tensors[f"{prefix}/out/{weight}"])


def assign_norm(norm, tensors, prefix):
    norm.gamma.assign(tensors[f"{prefix}/scale"])
    norm.beta.assign(tensors[f"{prefix}/bias"])


def assign_mlp(mlp, tensors, prefix):
    for dense, name in ((mlp.dense_1, "Dense_0"), (mlp.dense_2, "Dense_1")):
        dense.kernel.assign(tensors[f"{prefix}/{name}/kernel"])
        dense.bias.assign(tensors[f"{prefix}/{name}/bias"])


def test_attention_pooling_of_big_vision():
    tensors = reference("bigvision_map_img_tower", "checkpoint")
    prefix = "params/img/MAPHead_0"
    pooling = AttentionPooling(num_heads=4, mlp_dim=96)
    pooling.build((None, 16, 48))
    pooling.probe.assign(tensors[f"{prefix}/probe"][0])
    assign_attention(pooling.attention, tensors, f"{prefix}/MultiHeadDotProductAttention_0")
    assign_norm(pooling.mlp_norm, tensors, f"{prefix}/LayerNorm_0")
    assign_mlp(pooling.mlp, tensors, f"{prefix}/MlpBlock_0")
    expected = reference("bigvision_map_img_tower")
    assert_close(pooling(expected["encoded"]), expected["pre_logits"])
