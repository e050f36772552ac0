"""Constructors, presets and downloads."""

import contextlib
import dataclasses
import functools
import http.server
import inspect
import re
import threading

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

import keras_vit
from keras_vit.models.sizes import SIZES
from keras_vit.presets import PRESETS, Preprocessing, Preset
from keras_vit.resize import resize_grid, resize_patch_kernel
from keras_vit.zoo import constructors as zoo
from keras_vit.zoo import pretrained

PARAMETERS = {
    ("ViTTi16", None): 5_717_416,
    ("ViTS16", None): 22_050_664,
    ("ViTS32", None): 22_878_952,
    ("ViTB8", None): 86_576_872,
    ("ViTB16", None): 86_567_656,
    ("ViTB32", None): 88_224_232,
    ("ViTL16", None): 304_326_632,
    ("ViTL32", None): 306_535_400,
    ("ViTH14", None): 632_045_800,
    ("ViTS16", "gap"): 22_049_896,
    ("ViTS32", "gap"): 22_878_184,
    ("ViTB16", "gap"): 86_566_120,
    ("ViTB32", "gap"): 88_222_696,
    ("RViTTi16", None): 6_337_704,
    ("R26ViTS32", None): 36_431_912,
    ("R26ViTB32", None): 101_383_976,
    ("R50ViTB16", None): 98_659_112,
    ("R50ViTL32", None): 328_994_856,
    ("BiTR50x1", None): 25_549_352,
    ("BiTR50x3", None): 217_319_080,
    ("BiTR101x1", None): 44_541_480,
    ("BiTR101x3", None): 387_934_888,
    ("BiTR152x2", None): 236_335_208,
    ("BiTR152x4", None): 936_533_224,
}
CONSTRUCTORS = [
    name for name in keras_vit.__all__ if re.fullmatch(r"(R\d*)?ViT\w+\d|BiTR\d+x\d", name)
]


@pytest.fixture
def without_weights():
    """Models of any size, none of whose weights takes memory."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    # Keras would give these weights memory together with those of a later `fit`.
    keras.utils.clear_session()


@pytest.mark.parametrize(("name", "pooling"), PARAMETERS)
def test_parameter_counts(name, pooling, without_weights):
    model = getattr(keras_vit, name)(weights=None, pooling=pooling)
    assert model.count_params() == PARAMETERS[name, pooling]
    assert model.output_shape == (None, 1000)


@pytest.mark.one_backend
@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_every_constructor_is_like_keras_applications(name, without_weights):
    constructor = getattr(keras_vit, name)
    assert constructor.__name__ == name
    parameters = list(inspect.signature(constructor).parameters)
    assert parameters == [
        *("include_top", "weights", "input_tensor", "input_shape", "pooling"),
        *("classes", "classifier_activation", "name", "overrides"),
    ]
    for parameter in parameters:
        assert f"{parameter}:" in constructor.__doc__
    # The memory of 7 billion weights is not at hand.
    fields = {"num_layers": 1} if name == "ViT7B16" else {}
    model = constructor(weights=None, **fields)
    is_bit = name.startswith("BiT")
    assert type(model) is (keras_vit.BiTResNet if is_bit else keras_vit.VisionTransformer)
    assert re.fullmatch(f"{name.lower()}(_[0-9]+)?", model.name)  # numbered in a process
    if is_bit:
        depth = 2 + 3 * sum(model.get_config()["num_units"])
        assert name == f"BiTR{depth}x{model.get_config()['width_factor']}"
    elif name != "RViTTi16":  # which is named for a half of its 32 pixels
        pixels = int(re.search(r"(\d+)(?:plus)?$", name.removeprefix("ViT7B"))[1])
        rows = model.get_layer("patch_embedding").output.shape[1]
        assert rows == 224 // pixels


@pytest.mark.one_backend
def test_the_default_of_a_constructor_is_the_first_preset_of_its_architecture(monkeypatch):
    # The defaults are checkpoints of ImageNet-1k where there is one.
    default = inspect.signature(keras_vit.ViTB16).parameters["weights"].default
    assert default == "augreg_imagenet21k+imagenet2012"
    # An architecture without a checkpoint begins with new weights.
    monkeypatch.setattr(zoo, "CONSTRUCTORS", {})
    unpublished = zoo._constructor("ViTTi32")
    assert inspect.signature(unpublished).parameters["weights"].default is None


def test_options_of_a_constructor(without_weights):
    build = functools.partial(keras_vit.ViTTi16, weights=None)
    assert build(classes=7).output_shape == (None, 7)
    assert build(input_shape=(384, 256, 3)).input_shape == (None, 384, 256, 3)
    assert build(input_shape=(None, None, 3)).input_shape == (None, None, None, 3)
    assert build(input_shape=(64, 64, 13)).input_shape == (None, 64, 64, 13)
    assert build(include_top=False).output_shape == (None, 197, 192)
    assert build(include_top=False, pooling="token").output_shape == (None, 192)
    assert build(include_top=False, pooling="gap").output_shape == (None, 192)
    assert build(include_top=False, pooling="map").output_shape == (None, 192)
    assert build(include_top=False, pooling="avg").get_config()["pooling"] == "gap"
    assert build(image_size=64, name="mine").name == "mine"
    assert build(classifier_activation=None).get_layer("head").activation(3.0) == 3.0
    inputs = keras.Input((96, 96, 3))
    assert build(input_tensor=inputs).input is inputs
    first = build(input_shape=(3, 64, 64), data_format="channels_first")
    assert first.input_shape == (None, 3, 64, 64)


def test_a_small_constructor_computes():
    model = keras_vit.ViTTi16(weights=None, input_shape=(32, 32, 3))
    np.testing.assert_allclose(array(model(images())).sum(1), 1, rtol=1e-5)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": "imagenet"}, "Unknown `weights` of ViTB16: 'imagenet'.*'sam_imagenet2012'"),
        ({"weights": None, "pooling": "max"}, "pooling='max'"),
        ({"weights": None, "input_shape": (100, 100, 3)}, r"image_size=\(100, 100\)"),
        ({"weights": None, "input_shape": (3, 224, 224)}, "data_format='channels_last'"),
        ({"weights": None, "input_shape": (224, 224)}, "input_shape"),
        ({"weights": REFERENCE / "vit_gap/checkpoint.npz"}, "not a checkpoint of ViTB16. Expected "
         r"patch_size=\(16, 16\), hidden_dim=768.*Received patch_size=\(8, 8\), hidden_dim=48"),
        ({"weights": "s3://google/vit"}, "must begin with https://, http:// or gs://"),
    ],
)  # fmt: skip
def test_constructors_refuse(arguments, message, without_weights):
    with pytest.raises(ValueError, match=message):
        keras_vit.ViTB16(**arguments)


@pytest.mark.one_backend
def test_a_path_without_a_file():
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at 'B_16.npz'"):
        keras_vit.ViTB16(weights="B_16.npz")


@pytest.mark.one_backend
def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(ValueError, match="Unknown preset 'ViT-B16'. Near it: ViTB16"):
        keras_vit.from_pretrained("ViT-B16")


@pytest.fixture
def tiny_architecture(monkeypatch):
    """A constructor for the size of the reference checkpoints, with one preset."""
    size = {"hidden_dim": 48, "num_layers": 2, "num_heads": 4, "mlp_dim": 96}
    monkeypatch.setitem(SIZES, "Tiny", size)
    monkeypatch.setattr(zoo, "CONSTRUCTORS", {})

    def build(address, **row):
        row = {"resolution": 32, "classes": 21} | row
        preset = Preset(
            architecture="ViTTiny8",
            tag="imagenet21k",
            family="ViT",
            addresses=(address,),
            **row,
        )
        monkeypatch.setitem(PRESETS, preset.name, preset)
        return zoo._constructor("ViTTiny8")

    return build


@contextlib.contextmanager
def serving(folder):
    """Serves a folder on loopback; counts the requests for each path."""
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            super().do_GET()

        def log_message(self, *arguments):
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        server.address = f"http://127.0.0.1:{server.server_port}"
        server.requests = requests
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves the reference cases."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with serving(REFERENCE) as server:
        yield server


def test_a_preset_is_downloaded_once(server, tiny_architecture):
    path = REFERENCE / "vit_representation" / "checkpoint.npz"
    build = tiny_architecture(f"{server.address}/vit_representation/checkpoint.npz")
    expected = weights(keras_vit.from_pretrained(path))
    for model in (
        build(),
        build(weights="imagenet21k"),
        keras_vit.from_pretrained("ViTTiny8.imagenet21k"),
        keras_vit.from_pretrained(f"{server.address}/vit_representation/checkpoint.npz"),
        build(weights=path),
    ):
        assert_same_weights(weights(model), expected)
    assert server.requests == ["/vit_representation/checkpoint.npz"]
    # Another file of the same name is another file.
    gap = keras_vit.from_pretrained(f"{server.address}/vit_gap/checkpoint.npz")
    assert gap.get_config()["pooling"] == "gap"
    model = build(classes=3, input_shape=(64, 32, 3), include_top=True)
    assert model.output_shape == (None, 3)
    assert build(include_top=False).output_shape == (None, 17, 48)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "name",
    [
        "ViTL14.clip_laion2b+imagenet12k",
        "ViTH14.clip_dfn5b",
        "ViTbetwixt32.tinyclip_laion400m",
        "ViTM16.sw_imagenet12k+imagenet2012-384",
        "ViTB16.sw_rpn_imagenet2012",
        "ViTwee16.sbb_reg1_imagenet2012-256",
        "ViTSo150m16.sbb_e250_reg4_imagenet12k-256",
        "ViTSo150m2_16.sbb_e200_reg1_imagenet12k+imagenet2012-448",
        "ViTL14.eva_imagenet21k+imagenet21k+imagenet2012-196",
        "ViTSo400m14.siglip+imagenet2012-378",
        "ViTSo400m14.siglip_gap+imagenet2012-378",
        "ViTB16.miil_imagenet21k",
        "ViTS8.dino",
        "ViTg16.ijepa_imagenet21k",
        "ViTSo400m14.tipsv2",
        "ViTgiant14.tipsv2",
    ],
)
def test_a_row_tells_what_its_file_does_not(name, tmp_path, monkeypatch):
    """A downloaded file without a config.json gives the model of its row, at a tiny size."""
    size = {"hidden_dim": 48, "num_layers": 2, "num_heads": 4, "mlp_dim": 96}
    monkeypatch.setitem(SIZES, "Tiny", size)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "cache"))
    (tmp_path / "files").mkdir()
    patch = PRESETS[name].config()["patch_size"]
    with serving(tmp_path / "files") as server:
        row = dataclasses.replace(
            PRESETS[name],
            architecture=f"ViTTiny{patch}",
            resolution=2 * patch,
            classes=min(PRESETS[name].classes, 5),
            addresses=(f"{server.address}/model.safetensors",),
        )
        monkeypatch.setitem(PRESETS, row.name, row)
        expected = randomize(keras_vit.VisionTransformer(**row.config()))
        path = tmp_path / "files" / "model.safetensors"
        keras_vit.save_weights(expected, path, layout="timm")
        model = keras_vit.from_pretrained(row.name)
        assert server.requests == ["/model.safetensors"]
    pixels = images(2 * patch, 2 * patch)
    assert_close(model(pixels), expected(pixels))


@pytest.mark.one_backend
def test_a_restricted_license_is_in_the_log_once(server, tiny_architecture, caplog):
    pretrained._log_license.cache_clear()
    address = f"{server.address}/vit_representation/checkpoint.npz"
    for name, messages in (("MIT", 0), (None, 0), ("CC-BY-NC-4.0", 1)):
        build = tiny_architecture(address, license=name)
        build()
        keras_vit.from_pretrained("ViTTiny8.imagenet21k")
        logged = [r.getMessage() for r in caplog.records if "license" in r.getMessage()]
        assert len(logged) == messages
    assert "ViTTiny8.imagenet21k have the license CC-BY-NC-4.0" in logged[0]


@pytest.mark.one_backend
def test_an_address_without_a_file(server):
    with pytest.raises(ConnectionError, match="could not be downloaded: .*404"):
        keras_vit.from_pretrained(f"{server.address}/nothing.npz")


def test_weights_in_keras_own_files(tiny_architecture, tmp_path):
    build = tiny_architecture("gs://nowhere/file.npz")
    model = tiny(image_size=48)
    model.save(tmp_path / "model.keras")
    same = build(weights=tmp_path / "model.keras")
    assert same.input_shape == (None, 48, 48, 3)
    assert_same_weights(weights(same), weights(model))
    model.save_weights(tmp_path / "model.weights.h5")
    same = build(weights=tmp_path / "model.weights.h5", image_size=48, classes=10)
    assert_same_weights(weights(same), weights(model))


@pytest.mark.one_backend
def test_a_preset_says_what_its_file_does_not(tiny_architecture, monkeypatch):
    monkeypatch.setattr(pretrained, "fetch", lambda address: address)
    path = REFERENCE / "timm_prenorm_clip" / "model.safetensors"
    fields = {
        "classifier_activation": None,
        "mlp": "quick_gelu",
        "layer_norm_epsilon": 1e-5,
        "position_interpolation": "bicubic",
    }
    images_of = Preprocessing(mean=(0.1, 0.2, 0.3))
    build = tiny_architecture(str(path), classes=10, fields=fields, preprocessing=images_of)
    for model in (build(), keras_vit.from_pretrained("ViTTiny8.imagenet21k")):
        config = model.get_config()
        assert {key: config[key] for key in fields} == fields
        assert config["image_mean"] == (0.1, 0.2, 0.3)
        assert config["image_std"] == 0.5
    report = keras_vit.load_weights(
        build(weights=None, pre_norm=True, classes=10), "ViTTiny8.imagenet21k"
    )
    assert not report.dropped
    with pytest.raises(ValueError, match=r"Expected classes=11. Received classes=10"):
        tiny_architecture(str(path), classes=11)()


@pytest.mark.one_backend
def test_a_flexible_preset_is_resized_to_its_row(tiny_architecture, tmp_path, monkeypatch):
    """FlexiViT's files hold larger patches and fewer positions than their rows."""
    monkeypatch.setattr(pretrained, "fetch", lambda address: address)
    stored = tiny(patch_size=16, image_size=48, num_prefix_positions=0, classes=21)
    keras_vit.save_weights(stored, tmp_path / "flexible.npz", layout="google")
    fields = {"num_prefix_positions": 0, "position_interpolation": "bilinear"}
    row = {"resolution": 40, "fields": fields, "resized": True}
    build = tiny_architecture(str(tmp_path / "flexible.npz"), **row)
    kernel, grid = (
        weights(stored)[name]
        for name in ("patch_embedding/kernel", "position_embedding/grid")
    )
    model = build()
    assert model.input_shape == (None, 40, 40, 3)
    for same in (model, keras_vit.from_pretrained("ViTTiny8.imagenet21k")):
        values = weights(same)
        np.testing.assert_allclose(
            values["patch_embedding/kernel"], resize_patch_kernel(kernel, (8, 8)), atol=1e-6
        )
        np.testing.assert_allclose(
            values["position_embedding/grid"],
            resize_grid(grid, (5, 5), "bilinear"),
            atol=1e-6,
        )
    assert build(input_shape=(48, 32, 3)).input_shape == (None, 48, 32, 3)
    report = keras_vit.load_weights(model, "ViTTiny8.imagenet21k")
    assert report.resized["patch_embedding/kernel"] == ((16, 16, 3, 48), (8, 8, 3, 48))


def test_patches_are_resized_only_when_asked(tmp_path):
    path = REFERENCE / "vit_token" / "checkpoint.npz"
    with pytest.raises(ValueError, match="`resize_patches=True` resizes"):
        keras_vit.from_pretrained(path, patch_size=16, image_size=64)
    model = keras_vit.from_pretrained(
        path, patch_size=16, image_size=64, resize_patches=True
    )
    native = keras_vit.from_pretrained(path)
    native.save(tmp_path / "native.keras")
    for source in (native, tmp_path / "native.keras"):
        with pytest.raises(ValueError, match="`resize_patches=True` resizes"):
            keras_vit.from_pretrained(source, patch_size=16, image_size=64)
        other = keras_vit.from_pretrained(
            source, patch_size=16, image_size=64, resize_patches=True
        )
        assert_same_weights(weights(other), weights(model))
    # An image enlarged as the patches were gives the embeddings it gave before.
    small = images()
    large = np.asarray(
        [np.kron(image, np.ones((2, 2, 1))) for image in small]  # nearest is not bilinear
    )
    bilinear = _enlarge(small)
    expected = keras.Model(native.input, native.get_layer("patch_embedding").output)(small)
    embed = keras.Model(model.input, model.get_layer("patch_embedding").output)
    assert_close(embed(bilinear), expected, 1e-4)
    assert np.abs(array(embed(large)) - array(expected)).max() > 1e-3


def _enlarge(batch, patch=8):
    """Each patch by itself to twice its size, bilinearly with half-pixel centers."""
    matrix = np.zeros((2 * patch, patch))
    for i, center in enumerate((np.arange(2 * patch) + 0.5) / 2 - 0.5):
        low = int(np.clip(np.floor(center), 0, patch - 1))
        high = min(low + 1, patch - 1)
        share = np.clip(center - low, 0, 1)
        matrix[i, low] += 1 - share
        matrix[i, high] += share
    b, h, w, c = batch.shape
    cut = batch.reshape(b, h // patch, patch, w // patch, patch, c)
    return (
        np.einsum("ip,brpsqc,jq->brisjc", matrix, cut, matrix)
        .reshape(b, 2 * h, 2 * w, c)
        .astype("float32")
    )


@pytest.mark.one_backend
@pytest.mark.parametrize("source", [None, 3, ["a.npz"], {}, b"a.npz"])
def test_what_is_no_checkpoint_is_refused(source):
    for act in (keras_vit.from_pretrained, lambda s: keras_vit.load_weights(tiny(), s)):
        with pytest.raises(ValueError, match="is given by its name, path or address"):
            act(source)


@pytest.mark.one_backend
@pytest.mark.parametrize("size", [32.0, "32", None, (32, 32, 3)])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match=r"`image_size` must be a positive integer or"):
        tiny(image_size=size)
