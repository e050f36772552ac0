"""`MaskedAutoencoder` against transformers' arrays and NumPy, its training and its files."""

import copy
import json
import math
import shutil

import keras
import numpy as np
import pytest
from helpers import (
    REFERENCE,
    array,
    assert_close,
    assert_same_weights,
    images,
    randomize,
    tiny,
    weights,
)
from safetensors.numpy import load_file, save_file

import keras_vit
from keras_vit.pretraining import MaskedAutoencoder
from keras_vit.training import ExactResume, exclude_from_weight_decay

CASE = REFERENCE / "hf_vit_mae"
DECODER = {"decoder_hidden_dim": 16, "decoder_num_layers": 1, "decoder_num_heads": 2}
SMALL = {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "mlp_dim": 32, "classes": 0}


def expected():
    with np.load(CASE / "expected.npz") as file:
        return dict(file)


def masked(seed=None, **fields):
    """A small model whose every weight is random, the same at every call."""
    keras.utils.set_random_seed(0)
    own = {"mask_ratio", "norm_pix_loss", "name", "dtype"} & {*fields}
    own = {name: fields.pop(name) for name in own}
    encoder = tiny(**{**SMALL, **fields})
    return randomize(MaskedAutoencoder(encoder, seed=seed, **{**DECODER, **own}), seed=1)


# The formulas.


def test_computes_what_transformers_does():
    case = expected()
    mae = MaskedAutoencoder.from_pretrained(CASE)
    outputs = mae(case["input"], noise=case["noise"])
    assert_close(outputs["reconstruction"], case["reconstruction"])
    np.testing.assert_array_equal(array(outputs["mask"]), case["mask"])
    assert_close(outputs["loss"], case["loss"])
    encoded = mae.encode(case["input"], case["noise"])
    assert_close(encoded["tokens"], case["visible_features"])
    np.testing.assert_array_equal(array(encoded["places"]), case["ids_restore"])


def normed(x, w, path):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return x * w[f"{path}/gamma"] + w[f"{path}/beta"]


def block(x, w, path):
    """A pre-norm block of (tokens, width), with the exact GELU."""
    inputs = normed(x, w, f"{path}/attention_norm")
    qkv = np.einsum("td,dshk->shtk", inputs, w[f"{path}/attention/qkv/kernel"])
    query, key, value = qkv + w[f"{path}/attention/qkv/bias"][:, :, None]
    scores = np.exp(query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1]))
    values = scores / scores.sum(-1, keepdims=True) @ value
    x = x + np.einsum("htk,hkd->td", values, w[f"{path}/attention/projection/kernel"])
    x = x + w[f"{path}/attention/projection/bias"]
    hidden = normed(x, w, f"{path}/mlp_norm") @ w[f"{path}/mlp/dense_1/kernel"]
    hidden = hidden + w[f"{path}/mlp/dense_1/bias"]
    hidden = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
    return x + hidden @ w[f"{path}/mlp/dense_2/kernel"] + w[f"{path}/mlp/dense_2/bias"]


def pixels_of(image, patch):
    """The pixels of each patch, row by row."""
    height, width = patch
    return np.array(
        [
            image[i : i + height, j : j + width].ravel()
            for i in range(0, image.shape[0], height)
            for j in range(0, image.shape[1], width)
        ]
    )


def by_numpy(w, image, noise, patch, num_kept):
    """Reconstruction, mask and loss of one image, with the loss on normalized pixels."""
    pixels = pixels_of(image, patch)
    width = w["patch_embedding/bias"].size
    tokens = pixels @ w["patch_embedding/kernel"].reshape(-1, width)
    tokens = tokens + w["patch_embedding/bias"]
    tokens = tokens + w["position_embedding/grid"].reshape(-1, width)
    kept = sorted(range(len(pixels)), key=lambda i: noise[i])[:num_kept]
    x = np.concatenate(
        [w["class_token/tokens"] + w["position_embedding/prefix"], tokens[kept]]
    )
    x = normed(block(x, w, "block_0"), w, "encoder_norm")
    x = x @ w["decoder/embedding/kernel"] + w["decoder/embedding/bias"]
    every = np.repeat(w["decoder/mask_token"], len(pixels), axis=0)
    every[kept] = x[1:]
    every = every + w["decoder/position_embedding/grid"].reshape(len(pixels), -1)
    x = np.concatenate([x[:1] + w["decoder/position_embedding/prefix"], every])
    x = normed(block(x, w, "decoder/block_0"), w, "decoder/norm")[1:]
    x = x @ w["decoder/prediction/kernel"] + w["decoder/prediction/bias"]
    mask = np.ones(len(pixels))
    mask[kept] = 0
    mean, variance = pixels.mean(1, keepdims=True), pixels.var(1, ddof=1, keepdims=True)
    errors = (x - (pixels - mean) / np.sqrt(variance + 1e-6)) ** 2
    return x, mask, errors[mask == 1].mean()


SHAPE = {"image_size": (16, 24), "patch_size": (4, 6), "gelu_approximate": False}


def test_computes_the_papers_formulas():
    """Other sizes than those of transformers' arrays: image and patches are not square."""
    mae = masked(**SHAPE, mask_ratio=0.5, norm_pix_loss=True)
    batch = images(16, 24, batch=3)
    noise = np.random.default_rng(0).uniform(size=(3, 16)).astype("float32")
    w = {path: value.astype("float64") for path, value in weights(mae).items()}
    results = [by_numpy(w, *each, (4, 6), 8) for each in zip(batch, noise, strict=True)]
    reconstructions, masks, losses = map(np.array, zip(*results, strict=True))
    outputs = mae(batch, noise=noise)
    assert_close(outputs["reconstruction"], reconstructions)
    np.testing.assert_array_equal(array(outputs["mask"]), masks)
    assert_close(outputs["loss"], losses.mean())


@pytest.mark.one_backend
def test_positions_of_a_new_decoder():
    """Columns before rows, frequencies 10,000^(-4k/width), none of the class token."""
    decoder = MaskedAutoencoder(tiny(**SMALL, image_size=(16, 24)), **DECODER).decoder
    grid = array(decoder.position_embedding.grid)
    assert grid.shape == (2, 3, 16)
    for (row, column, channel), value in np.ndenumerate(grid):
        place = column if channel < 8 else row
        angle = place / 10_000 ** (channel % 4 / 4)
        wave = math.cos if channel % 8 >= 4 else math.sin
        assert abs(value - wave(angle)) < 1e-6
    assert not array(decoder.position_embedding.prefix).any()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_registers": 2, "rope": "dinov3", "position": "none", "image_size": (16, 32)},
        {"class_token": False, "pooling": "gap", "pre_norm": True, "norm_after": True},
    ],
    ids=["class token", "rotary positions and registers", "no class token"],
)
def test_an_encoder_of_which_nothing_is_removed_computes_as_it_does_alone(fields):
    mae = masked(**fields, num_layers=2, mask_ratio=0)
    batch = images(*mae.encoder.input_shape[1:3])
    encoded = mae.encode(batch)
    alone = mae.encoder.features(batch)
    prefix = [alone[name] for name in ("class_token", "registers") if name in alone]
    prefix = [array(each).reshape(2, -1, 16) for each in prefix]
    number = sum(each.shape[1] for each in prefix)
    tokens, places = array(encoded["tokens"]), array(encoded["places"])
    patches = np.take_along_axis(tokens[:, number:], places[..., None], 1)
    assert_close(np.concatenate([*prefix, array(alone["patch_tokens"])], 1), np.concatenate([tokens[:, :number], patches], 1))  # fmt: skip
    assert not array(encoded["mask"]).any()
    assert (np.diff(places) != 1).any()  # in another order


@pytest.mark.one_backend
def test_images_with_channels_first_and_pixel_values():
    """The model's own preprocessing is before the pixels to reconstruct, too."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), "uint8")
    mae = masked(mask_ratio=0.5, norm_pix_loss=False)
    noise = np.random.default_rng(1).uniform(size=(2, 16)).astype("float32")
    expected = mae((pixels / 127.5 - 1).astype("float32"), noise=noise)
    for fields in ({"data_format": "channels_first"}, {}):
        other = masked(**fields, include_preprocessing=True, mask_ratio=0.5, norm_pix_loss=False)  # fmt: skip
        other.set_weights(mae.get_weights())
        batch = pixels.transpose(0, 3, 1, 2) if fields else pixels
        for name, output in other(batch, noise=noise).items():
            assert_close(output, array(expected[name]))


# Training.


def test_fit_trains_encoder_and_decoder_and_nothing_else():
    batch = images(batch=8)
    mae = masked(position="sincos2d", rematerialize=True)
    before = weights(mae)
    mae.compile(keras.optimizers.SGD(0.05))
    history = mae.fit(batch, epochs=3, batch_size=8, shuffle=False, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    after = weights(mae)
    same = {path for path in before if np.array_equal(before[path], after[path])}
    assert same == {f"decoder/position_embedding/{name}" for name in ("prefix", "grid")}
    assert {v.name for v in mae.non_trainable_weights} == {"prefix", "grid"}


@pytest.mark.one_backend
def test_labels_are_not_read_and_the_seed_chooses_the_patches():
    def losses(seed, *data):
        mae = masked(seed=seed, rematerialize=True)
        mae.compile(keras.optimizers.SGD(0.05))
        options = {"epochs": 2, "batch_size": 2, "shuffle": False, "verbose": 0}
        return mae.fit(*data, **options).history["loss"]

    expected = losses(5, images(batch=4))
    assert losses(5, images(batch=4), np.arange(4)) == expected
    assert losses(6, images(batch=4)) != expected


@pytest.mark.one_backend
def test_positions_of_a_published_model_stay():
    mae = MaskedAutoencoder.from_pretrained(CASE)
    before = weights(mae)
    mae.compile(keras.optimizers.SGD(0.1))
    loss = mae.train_on_batch(images())
    assert np.isfinite(loss)
    after = weights(mae)
    same = {path for path in before if np.array_equal(before[path], after[path])}
    places = ("prefix", "grid")
    assert same == {f"{p}position_embedding/{n}" for p in ("", "decoder/") for n in places}
    classifier = keras_vit.from_pretrained(mae.encoder, classes=3)
    assert not classifier.get_layer("position_embedding").trainable
    thawed = keras_vit.from_pretrained(mae.encoder, classes=3, trainable=True)
    assert thawed.get_layer("position_embedding").trainable


def test_fit_lowers_the_loss_under_mixed_precision():
    """Neither images nor noise are rounded before they are compared."""
    noise = np.float32(0.5) + np.arange(32, dtype="float32").reshape(2, 16)[:, ::-1] * 1e-4
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = masked(norm_pix_loss=False, mask_ratio=0.5)
    assert half.encoder.compute_dtype == half.decoder.compute_dtype == "bfloat16"
    outputs, batch = half(images(), noise=noise), images()
    assert {keras.backend.standardize_dtype(t.dtype) for t in outputs.values()} == {
        "float32"
    }
    np.testing.assert_array_equal(array(outputs["mask"])[0], [1] * 8 + [0] * 8)
    pixels = np.array([pixels_of(image, (8, 8)) for image in batch])
    errors = ((array(outputs["reconstruction"]) - pixels) ** 2).mean(-1)
    assert_close(outputs["loss"], errors[array(outputs["mask"]) == 1].mean())
    half.compile(keras.optimizers.Adam(0.01))
    losses = half.fit(batch, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_predict_and_evaluate():
    mae = masked(mask_ratio=0.5)
    mae.compile()
    batch = images(batch=4)
    outputs = mae.predict(batch, batch_size=3, verbose=0)
    assert {name: each.shape for name, each in outputs.items()} == {
        "reconstruction": (4, 16, 192),
        "mask": (4, 16),
    }
    assert (outputs["mask"].sum(1) == 8).all()
    assert len({tuple(row) for row in outputs["mask"]}) > 1  # of each image its own
    mae.seed_generator.state.assign([3, 0])
    loss = mae.evaluate(batch, np.zeros(4), verbose=0)
    mae.seed_generator.state.assign([3, 0])
    assert_close(np.array(loss), mae(batch)["loss"])


def test_a_resumed_training_removes_the_same_patches(tmp_path):
    def trained(folder, epochs):
        mae = masked(seed=2)
        mae.compile(keras.optimizers.SGD(0.05))
        resume = [ExactResume(tmp_path / folder)] if folder else []
        options = {"batch_size": 2, "shuffle": False, "verbose": 0, "callbacks": resume}
        mae.fit(images(batch=4), epochs=epochs, **options)
        return weights(mae)

    trained("resume", 1)
    assert_same_weights(trained("resume", 2), trained(None, 2))


@pytest.mark.one_backend
def test_weight_decay_is_of_kernels_alone():
    mae = masked()
    optimizer = exclude_from_weight_decay(keras.optimizers.SGD(0.5, weight_decay=0.5), mae)
    mae.compile(optimizer)
    optimizer.build(mae.trainable_variables)
    decayed = {path for path, v in zip(weights(mae), mae.weights, strict=True) if v.trainable and optimizer._use_weight_decay(v)}  # fmt: skip
    assert decayed
    assert all(path.endswith("/kernel") for path in decayed), decayed


# Keras' files.


def test_saved_and_loaded_is_the_same(tmp_path):
    mae = masked(mask_ratio=0.5, norm_pix_loss=False, position="sincos2d", name="mae")
    mae.encoder.get_layer("block_0").trainable = False
    mae.decoder.blocks[0].trainable = False
    mae.compile(keras.optimizers.Adam(0.01))
    mae.train_on_batch(images())
    mae.save(tmp_path / "mae.keras")
    noise = np.random.default_rng(1).uniform(size=(2, 16)).astype("float32")
    outputs = mae(images(), noise=noise)
    loaded = keras.models.load_model(tmp_path / "mae.keras")
    for other in (loaded, copy.deepcopy(mae)):
        assert other.get_config() == mae.get_config()
        assert_same_weights(weights(other), weights(mae))
        for name, output in other(images(), noise=noise).items():
            np.testing.assert_array_equal(array(output), array(outputs[name]), err_msg=name)
        assert [v.trainable for v in other.weights] == [v.trainable for v in mae.weights]
    assert loaded.optimizer.iterations == 1
    loaded.train_on_batch(images())
    again = MaskedAutoencoder.from_config(mae.get_config())
    assert again.decoder.blocks[0].trainable is False
    again.load_weights(tmp_path / "mae.keras")
    assert_same_weights(weights(again), weights(mae))


# Other projects' files.


def same_tensors(one, other):
    one, other = load_file(one), load_file(other)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        np.testing.assert_array_equal(other[name], tensor, err_msg=name)
        assert other[name].dtype == tensor.dtype


@pytest.mark.one_backend
def test_files_go_out_as_they_came(tmp_path):
    """transformers → MAE's own names → transformers gives the same bits."""
    mae = MaskedAutoencoder.from_pretrained(CASE)
    keras_vit.save_weights(mae, tmp_path / "hf", layout="huggingface")
    same_tensors(tmp_path / "hf" / "model.safetensors", CASE / "model.safetensors")
    ours = json.loads((tmp_path / "hf" / "config.json").read_text())
    theirs = json.loads((CASE / "config.json").read_text())
    assert ours.items() <= theirs.items()
    keras_vit.save_weights(mae, tmp_path / "mae.safetensors", layout="meta")
    again = MaskedAutoencoder.from_pretrained(tmp_path / "mae.safetensors")
    assert_same_weights(weights(again), weights(mae))
    assert again.norm_pix_loss is False
    assert again.decoder.num_heads == 4
    keras_vit.save_weights(again, tmp_path / "again", layout="huggingface")
    same_tensors(tmp_path / "again" / "model.safetensors", CASE / "model.safetensors")
    # The encoder alone, and into a model that is there.
    alone = keras_vit.from_pretrained(tmp_path / "mae.safetensors")
    assert_same_weights(weights(alone), weights(mae.encoder))
    randomize(again)
    report = keras_vit.load_weights(again, CASE)
    assert report.layout == "huggingface mae"
    assert not report.dropped
    assert_same_weights(weights(again), weights(mae))


@pytest.mark.one_backend
def test_names_of_maes_own_code(tmp_path):
    mae = MaskedAutoencoder.from_pretrained(CASE)
    keras_vit.save_weights(mae, tmp_path / "mae.safetensors", layout="meta")
    tensors, theirs = load_file(tmp_path / "mae.safetensors"), load_file(CASE / "model.safetensors")  # fmt: skip
    parts = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    layers = [f"{b}.{i}.{part}" for b in ("blocks", "decoder_blocks") for i in (0, 1) for part in parts]  # fmt: skip
    layers += ["patch_embed.proj", "norm", "decoder_embed", "decoder_norm", "decoder_pred"]
    names = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert {*tensors} == names | {
        "cls_token",
        "pos_embed",
        "mask_token",
        "decoder_pos_embed",
    }
    np.testing.assert_array_equal(
        tensors["decoder_blocks.1.attn.qkv.weight"],
        np.concatenate(
            [
                theirs[f"decoder.decoder_layers.1.attention.attention.{part}.weight"]
                for part in ("query", "key", "value")
            ]
        ),
    )
    np.testing.assert_array_equal(tensors["mask_token"], theirs["decoder.mask_token"])


@pytest.mark.one_backend
@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch's files")
def test_torchs_own_file_is_asked_for_what_it_does_not_tell(tmp_path, caplog):
    import torch

    mae = MaskedAutoencoder.from_pretrained(CASE)
    path = tmp_path / "mae.pth"
    keras_vit.save_weights(mae, path, layout="meta")
    assert "layer_norm_epsilon=1e-12" in caplog.text
    assert set(torch.load(path)) == {"model"}
    told = {"num_heads": 4, "layer_norm_epsilon": 1e-12}
    with pytest.raises(ValueError, match="does not tell `decoder_num_heads`: .* 32 wide"):
        MaskedAutoencoder.from_pretrained(path, **told)
    told["decoder_num_heads"] = 4
    with pytest.raises(ValueError, match="does not tell `norm_pix_loss`"):
        MaskedAutoencoder.from_pretrained(path, **told)
    again = MaskedAutoencoder.from_pretrained(path, **told, norm_pix_loss=False)
    case = expected()
    assert_close(again(case["input"], noise=case["noise"])["loss"], case["loss"])
    # A model that is there tells its own heads.
    keras_vit.load_weights(randomize(mae), path)
    assert_same_weights(weights(again), weights(mae))


@pytest.mark.one_backend
def test_published_decoders_have_sixteen_heads(tmp_path):
    encoder = tiny(**{**SMALL, "hidden_dim": 64, "num_heads": 1})
    mae = MaskedAutoencoder(encoder, decoder_num_layers=1, decoder_mlp_dim=8)
    keras_vit.save_weights(mae, tmp_path / "mae.safetensors", layout="meta")
    tensors = load_file(tmp_path / "mae.safetensors")
    save_file(tensors, tmp_path / "bare.safetensors")
    again = MaskedAutoencoder.from_pretrained(tmp_path / "bare.safetensors", norm_pix_loss=True)  # fmt: skip
    assert again.decoder.num_heads == 16
    assert again.encoder.fields.num_heads == 1


@pytest.mark.one_backend
def test_transformers_reads_what_is_written_and_writes_other_names(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    mae = MaskedAutoencoder.from_pretrained(CASE)
    keras_vit.save_weights(mae, tmp_path / "ours", layout="huggingface")
    model, found = transformers.ViTMAEForPreTraining.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(found.values()), found
    case = expected()
    pixels = torch.tensor(case["input"].transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        outputs = model(pixels, noise=torch.tensor(case["noise"]))
    assert_close(outputs.logits.numpy(), case["reconstruction"])
    model.save_pretrained(tmp_path / "theirs")
    again = MaskedAutoencoder.from_pretrained(tmp_path / "theirs")
    assert_same_weights(weights(again), weights(mae))


@pytest.mark.one_backend
def test_another_image_size_resizes_both_tables_of_positions():
    mae = MaskedAutoencoder.from_pretrained(CASE, image_size=(32, 48))
    assert mae.decoder.position_embedding.grid.shape == (4, 6, 32)
    outputs = mae(images(32, 48))
    assert outputs["mask"].shape == (2, 24)
    assert (array(outputs["mask"]).sum(1) == 18).all()
    table = load_file(CASE / "model.safetensors")["decoder.decoder_pos_embed"][0, 1:]
    resized = keras_vit.resize.resize_grid(table.reshape(4, 4, 32), (4, 6), "bicubic")
    assert_close(mae.decoder.position_embedding.grid, resized)


def changed(folder, change, config=None):
    shutil.copytree(CASE, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    told = json.loads((folder / "config.json").read_text()) | (config or {})
    (folder / "config.json").write_text(json.dumps(told))
    return folder


def without_decoder(tensors):
    for name in [name for name in tensors if name.startswith("decoder.")]:
        del tensors[name]


LOOK_ALIKES = {
    "no decoder": (without_decoder, None, "has no decoder of a masked autoencoder"),
    "another tensor": (
        lambda tensors: tensors.update(
            {"decoder.decoder_layers.0.gamma": np.ones(32, "f")}
        ),
        None,
        r"not in the model: decoder\.decoder_layers\.0\.gamma",
    ),
    "a lost tensor": (
        lambda tensors: tensors.pop("decoder.decoder_norm.bias"),
        None,
        "not in the file: decoder/norm/beta",
    ),
    "other blocks": (
        lambda tensors: None,
        {"decoder_num_hidden_layers": 3},
        "2 blocks, and config.json says decoder_num_hidden_layers=3",
    ),
    "another class": (
        lambda tensors: None,
        {"model_type": "videomae"},
        "model_type='videomae', which is not known",
    ),
    "impossible": (lambda tensors: None, {"mask_ratio": 2}, "mask_ratio=2 is no possible"),
}


@pytest.mark.one_backend
@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_look_alikes_are_refused(kind, tmp_path):
    change, config, message = LOOK_ALIKES[kind]
    with pytest.raises(ValueError, match=message):
        MaskedAutoencoder.from_pretrained(changed(tmp_path / "mae", change, config))


# Refusals.


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": 3}, "no head.*classes=3.*from_pretrained"),
        ({"pooling": "map", "class_token": False}, "pooling='map'"),
        ({"fc_norm": True}, "a final norm of every token.*fc_norm=True"),
        ({"merged_tokens": 2}, "merged_tokens"),
        ({"position": "relative"}, "position='relative'"),
        ({"position_at": "each_layer_shared"}, "position_at='each_layer_shared'"),
        ({"rope": "mixed"}, "the same in each block"),
        ({"input_shape": (None, None, 3)}, "must know the number of patches"),
    ],
)
def test_encoders_that_cannot_be_trained_so(fields, message):
    with pytest.raises(ValueError, match=message):
        MaskedAutoencoder(tiny(**{**SMALL, **fields}), **DECODER)


def test_noise_has_a_number_for_each_patch():
    mae = masked()
    batch, patches = images(), mae(images())["mask"].shape[1]
    for shape in ((2, patches + 1), (3, patches), (2, patches, 1)):
        with pytest.raises(ValueError, match="`noise` must have the shape"):
            mae(batch, noise=np.zeros(shape, "float32"))


@pytest.mark.one_backend
def test_arguments_that_are_wrong(tmp_path):
    encoder = tiny(**SMALL)
    for fields, message in (
        ({"mask_ratio": 0.99}, "at least one patch"),
        ({"mask_ratio": 1.0}, r"must be in \[0, 1\)"),
        ({"mask_ratio": None}, r"must be in \[0, 1\)"),
        ({"decoder_hidden_dim": 18}, "divisible by 4"),
        ({"decoder_num_heads": 3}, "divisible by `num_heads`"),
    ):
        with pytest.raises(ValueError, match=message):
            MaskedAutoencoder(encoder, **{**DECODER, **fields})
    with pytest.raises(ValueError, match="must be a `VisionTransformer`"):
        MaskedAutoencoder(keras.Sequential(), **DECODER)
    with pytest.raises(ValueError, match=r"tells the sizes.*decoder_mlp_dim=8"):
        MaskedAutoencoder.from_pretrained(CASE, decoder_mlp_dim=8)
    mae = masked()
    with pytest.raises(ValueError, match="has its own loss.*loss='mse'"):
        mae.compile("adam", "mse")
    whole = masked(mask_ratio=0)
    whole.compile()
    with pytest.raises(ValueError, match="of which there are none"):
        whole.fit(images(), verbose=0)
    for layout in ("timm", "google"):
        path = tmp_path / ("mae.npz" if layout == "google" else "mae.safetensors")
        with pytest.raises(ValueError, match="layout='meta' or layout='huggingface'"):
            keras_vit.save_weights(mae, path, layout=layout)
    for fields, message in (
        ({"class_token": False, "pooling": "gap"}, "class_token=False"),
        ({"mlp": "swiglu"}, "mlp='swiglu'"),
        ({"norm_after": True}, "norm_after=True"),
        ({"layer_scale": 1.0}, "no place for block_0/attention_scale/scale"),
        ({"num_registers": 1}, "no place for"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_vit.save_weights(masked(**fields), tmp_path / "x.safetensors", layout="meta")  # fmt: skip
    with pytest.raises(ValueError, match="transformers' ViTMAE cannot have image_size"):
        keras_vit.save_weights(masked(image_size=(16, 24)), tmp_path / "x", layout="huggingface")  # fmt: skip
    assert not [*tmp_path.iterdir()]
