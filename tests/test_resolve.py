"""Who says what about a checkpoint, and files that only look like a ViT."""

import json
import math
import shutil
import struct

import numpy as np
import pytest
from helpers import REFERENCE, assert_same_weights, tiny, weights

import keras_vit
from keras_vit import cli
from keras_vit.conversion.inspect import inspect
from keras_vit.presets import PRESETS
from keras_vit.weights.checkpoint import Checkpoint
from keras_vit.weights.layouts import timm_names
from keras_vit.weights.resolve import Resolver, Undecided, published_heads

pytestmark = pytest.mark.one_backend


def without_metadata(path):
    """The file as other tools write it."""
    from safetensors.numpy import load_file, save_file

    save_file(load_file(path), path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A bare file of timm, without a config or a name that says anything."""
    path = tmp_path_factory.mktemp("bare") / "model.safetensors"
    keras_vit.save_weights(tiny(image_size=16, num_layers=1), path, layout="timm")
    without_metadata(path)
    return path


@pytest.fixture
def beside(plain, tmp_path):
    """The file in a folder, with a `config.json` beside it."""

    def beside(config=None, folder="run"):
        (tmp_path / folder).mkdir(exist_ok=True)
        shutil.copy(plain, tmp_path / folder)
        if config is not None:
            (tmp_path / folder / "config.json").write_text(json.dumps(config))
        return tmp_path / folder

    return beside


def sparse(path, shapes):
    """A safetensors file of zeros that takes no room, for its names and shapes alone."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def timm_shapes(
    width, depth, mlp, *, patch=16, token=True, gated=False, others=(), scale=()
):
    """Shapes of timm's or DINOv2's tensors, of a grid of 4×4 patches."""
    shapes = {
        "pos_embed": (1, 16 + token, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    if token:
        shapes["cls_token"] = (1, 1, width)
    first, second = ("w12", "w3") if gated else ("fc1", "fc2")
    for i in range(depth):
        block = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        block |= {f"mlp.{first}": (mlp * (1 + gated), width), f"mlp.{second}": (width, mlp)}
        for name, shape in block.items():
            shapes |= {
                f"blocks.{i}.{name}.weight": shape,
                f"blocks.{i}.{name}.bias": shape[:1],
            }
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", *scale):
            shapes[f"blocks.{i}.{name}"] = (width,)
    return shapes | dict.fromkeys(others or ("norm.weight", "norm.bias"), (width,))


EVA = [  # reference cases of timm's class
    *("timm_dinov3", "timm_dinov3_plus", "timm_dinov3_qkvb", "timm_eva02_base"),
    *("timm_eva02_tiny", "timm_eva_giant", "timm_rope_axial", "timm_rope_mixed"),
    *("timm_rope_reg_gap", "timm_pe_core", "timm_pe_spatial"),
]
FC_NORM = ("fc_norm.weight", "fc_norm.bias")


# Heads.


@pytest.mark.parametrize(
    ("size", "heads"),
    [
        (
            (1536, 40, 4096, {"gated": True, "patch": 14}),
            24,
        ),  # DINOv2's g, as Meta wrote it
        ((1536, 40, 6144, {"token": False, "patch": 16}), 16),  # SigLIP 2's g-opt
        ((64, 6, 192, {}), 2),  # timm's test_vit
        ((64, 8, 192, {"others": FC_NORM}), 2),  # and test_vit2
        ((1280, 32, 5120, {"patch": 14}), 16),
        ((192, 12, 768, {}), 3),
        ((768, 12, 3072, {}), 12),
        ((832, 2, 64, {}), 13),  # no published size: 64 channels each
    ],
)
def test_heads_of_a_bare_file(size, heads, tmp_path):
    *size, options = size
    path = sparse(tmp_path / "model.safetensors", timm_shapes(*size, **options))
    with Checkpoint(path, overrides={"gelu_approximate": True}) as checkpoint:
        config = checkpoint.architecture()
    assert config["num_heads"] == heads
    assert checkpoint.origins["num_heads"] == "published models of this size"
    if options.get("gated"):
        assert (config["mlp"], config["mlp_dim"]) == ("swiglu", 4096)


def test_two_published_numbers_of_heads_are_an_error(tmp_path):
    """vit_base_patch16_gap_224 has 16, SigLIP's and others with these tensors have 12."""
    shapes = timm_shapes(768, 12, 3072, token=False)
    path = sparse(tmp_path / "model.safetensors", shapes)
    with pytest.raises(ValueError, match="have 12 or 16. Give `num_heads=…`"):
        Checkpoint(path).architecture()
    assert "have 16 or 24" in published_heads(1536, 40, 5000, False).reason
    assert Checkpoint(path, overrides={"num_heads": 16}).architecture()["num_heads"] == 16
    named = tmp_path / "vit_base_patch16_gap_224.a1_in1k.safetensors"
    path.rename(named)
    with Checkpoint(named) as checkpoint:
        assert checkpoint.architecture()["num_heads"] == 16
    assert (
        checkpoint.origins["num_heads"] == "the path: architecture vit_base_patch16_gap_224"
    )
    config = {"architecture": "vit_base_patch16_siglip_gap_224"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Checkpoint(named).architecture()["num_heads"] == 12


def test_an_architecture_of_another_width_says_nothing_of_heads(beside):
    folder = beside({"architecture": "vit_base_patch16_224"})
    message = "the architecture vit_base_patch16_224 is not 48 wide. Give `num_heads=…`"
    with pytest.raises(ValueError, match=message):
        keras_vit.from_pretrained(folder)
    assert keras_vit.from_pretrained(folder, num_heads=4).get_config()["num_heads"] == 4
    keras_vit.load_weights(tiny(image_size=16, num_layers=1), folder)
    beside({"architecture": "vit_base_patch16_224", "model_args": {"embed_dim": 48}})
    assert keras_vit.from_pretrained(folder).get_config()["num_heads"] == 12


def test_heads_of_presets_are_those_of_timm_s_names():
    """The table of names against the rows, which come from papers and other projects."""
    compared = 0
    for preset in PRESETS.values():
        for address in preset.addresses:
            if address.startswith(("hf://timm/vit", "hf://timm/deit", "hf://timm/eva")):
                name = timm_names.known_name(address.removeprefix("hf://"))
                config = preset.config()
                size = (config["hidden_dim"], config["num_heads"])
                assert timm_names.SIZES[name] == size, preset.name
                told = timm_names.facts(name)
                epsilon = config.get("layer_norm_epsilon", 1e-6)
                assert told["layer_norm_epsilon"] == epsilon, preset.name
                mlp = config.get("mlp", "gelu")
                if mlp != "quick_gelu":  # under these names timm computes the exact one
                    assert told["mlp"] == mlp, preset.name
                compared += 1
    assert compared > 130


# The order.


def test_the_first_source_counts_and_what_none_decides_is_refused():
    open_mlp = Undecided("'gelu' or 'quick_gelu'")
    resolver = Resolver(
        ("shapes", {"stem": None}),
        ("overrides", {"num_heads": 3}),
        ("config.json", {"num_heads": 6, "stem": {}, "pooling": Undecided("unknown")}),
        ("defaults", {"mlp": open_mlp, "pooling": "gap"}),
    )
    assert resolver.values() == {"stem": None, "num_heads": 3, "pooling": "gap"}
    assert (resolver.value("num_heads"), resolver.origin("num_heads")) == (3, "overrides")
    assert resolver.origin("pooling") == "defaults"
    assert (resolver.value("mlp"), resolver.origin("mlp")) == (None, None)
    message = "'m.npz' does not tell `mlp`: 'gelu' or 'quick_gelu'. Give `mlp=…`"
    with pytest.raises(ValueError, match=message):
        resolver.check("m.npz")


def test_the_order_in_which_sources_count(beside, monkeypatch):
    """The caller, the preset, our metadata, config.json, its architecture, the layout."""
    name = "layer_norm_epsilon"
    folder = beside({})

    def told(preset=None, **known):
        with Checkpoint(folder, overrides={"num_heads": 4, **known}, preset=preset) as file:
            return file.architecture()[name], file.origins[name]

    assert told() == (1e-6, "the layout 'timm'")
    beside({"embed_dim": 48})
    assert told() == (1e-6, "the defaults of timm's VisionTransformer")
    beside({"architecture": "vit_base_patch16_clip_224"})
    assert told() == (1e-5, "config.json: architecture vit_base_patch16_clip_224")
    row = ("the preset X", {name: 1e-4})
    assert told(row) == (1e-4, "the preset X")
    assert told(row, **{name: 1e-3}) == (1e-3, "the overrides")
    config = {"architecture": "vit_base_patch16_clip_224", "act_layer": "quick_gelu"}
    beside(config)
    with Checkpoint(folder, overrides={"num_heads": 4}) as file:
        assert file.architecture()["mlp"] == "quick_gelu"
    assert file.origins["mlp"] == "config.json"
    assert file.origins["patch_size"] == "names and shapes"
    model = tiny(image_size=16, num_layers=1, **{name: 1e-2})
    keras_vit.save_weights(model, folder / "model.safetensors", layout="timm")
    assert told() == (1e-2, "the file's metadata")
    assert told(row) == (1e-4, "the preset X")


def test_inspect_says_who_says_so(beside, capsys):
    folder = beside({"num_heads": 4, "pretrained_cfg": {"input_size": [3, 16, 16]}})
    assert cli.main(["inspect", str(folder), "--set", "layer_norm_epsilon=1e-3"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "num_heads 4, from config.json" in lines
    assert "image_size (16, 16), from config.json" in lines
    assert "hidden_dim 48, from names and shapes" in lines
    assert "layer_norm_epsilon 0.001, from the overrides" in lines
    assert "position_interpolation bicubic, from the layout 'timm'" in lines


def test_activations_that_shapes_do_not_tell(tmp_path):
    """OpenAI's CLIP and OpenCLIP, SigLIP at 256 and at 512 pixels differ in it alone."""
    others = ("norm_pre.weight", "norm_pre.bias", "norm.weight", "norm.bias")
    clip = timm_shapes(768, 12, 3072, others=others)
    del clip["patch_embed.proj.bias"]
    path = sparse(tmp_path / "clip.safetensors", clip)
    with pytest.raises(
        ValueError, match="`mlp`: 'gelu' or 'quick_gelu'.*Give `mlp=…`, `lay"
    ):
        Checkpoint(path).architecture()
    config = {"architecture": "vit_base_patch16_clip_quickgelu_224.openai"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    config = Checkpoint(path).architecture()
    assert (config["mlp"], config["layer_norm_epsilon"]) == ("quick_gelu", 1e-5)
    (tmp_path / "config.json").unlink()
    siglip = timm_shapes(1024, 24, 4096, token=False)
    path = sparse(tmp_path / "siglip.safetensors", siglip)
    with pytest.raises(ValueError, match="Give `gelu_approximate=…`"):
        Checkpoint(path).architecture()
    for size, tanh in ((256, False), (512, True)):
        named = tmp_path / f"vit_large_patch16_siglip_gap_{size}.safetensors"
        path = path.rename(named)
        assert Checkpoint(named).architecture()["gelu_approximate"] == tanh


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("num_hidden_layers", None),
        ("num_hidden_layers", "vision_config"),
        ("depth", "model_args"),
    ],
)
def test_a_file_that_has_lost_blocks_is_refused(key, part, tmp_path):
    """Fewer blocks are a model, too, whose predictions nobody wants."""
    path = sparse(tmp_path / "model.safetensors", timm_shapes(64, 3, 128))
    for number, is_whole in ((4, False), (3, True), (2, False)):
        stated = {key: number}
        config = {part: stated} if part else stated
        (tmp_path / "config.json").write_text(json.dumps(config))
        if is_whole:
            assert Checkpoint(path).architecture()["num_layers"] == number
            continue
        with pytest.raises(
            ValueError, match=f"are of 3 blocks, and config.*{key}={number}"
        ):
            Checkpoint(path).architecture()


@pytest.mark.parametrize(
    ("name", "approximate"),
    [("gelu", False), ("gelu_python", False), ("gelu_new", True), ("gelu_fast", True)],
)
def test_transformers_names_of_gelu(name, approximate, tmp_path):
    shutil.copytree(REFERENCE / "hf_vit", tmp_path / "vit")
    config = json.loads((tmp_path / "vit" / "config.json").read_text())
    config["hidden_act"] = name
    (tmp_path / "vit" / "config.json").write_text(json.dumps(config))
    found = Checkpoint(tmp_path / "vit").architecture()
    assert (found["mlp"], found["gelu_approximate"]) == ("gelu", approximate)


# Look-alikes.


def assert_refused(source, message, monkeypatch=None):
    """Every way in refuses the file before anything changes."""
    target = source.parent / "converted.npz"
    model = tiny(image_size=16, num_layers=1)
    before = weights(model)
    for act in (
        lambda: keras_vit.from_pretrained(source, num_heads=4),
        lambda: keras_vit.load_weights(model, source),
        lambda: keras_vit.conversion.convert.convert(source, target, num_heads=4),
        lambda: keras_vit.ViTTi16(weights=str(source)),
    ):
        with pytest.raises(ValueError, match=message):
            act()
    assert_same_weights(weights(model), before)
    assert not target.exists()
    assert "plain_vit=True" in inspect(source, overrides={"num_heads": 4}).problem
    assert cli.main(["verify", str(source), str(source), "--num-heads", "4"]) == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_base_patch16_sapiens2", "by their positions .RoPE."),
        ("vit_base_patch14_rpn_224", "norms come after"),
        ("test_vit3", "pools the class token"),
        ("timm/vit_base_patch16_dinov3_text.x", "RoPE"),
        ("hf-hub:timm/vit_pe_core_base_patch32_224.fb", "RoPE"),
        ("vit_base_patch16_seen_by_nobody_224", "not known to be computed exactly"),
        ("beit3_base_patch16_224", "attention differs"),
        ("vit_base_patch16_224_rope", "RoPE"),
    ],
)
def test_an_architecture_that_is_not_known_is_refused(name, reason, beside, plain):
    folder = beside({"architecture": name})
    assert_refused(folder, f"config.json names the architecture '{name}', and .*{reason}")
    told = {"num_heads": 4, "plain_vit": True}
    model = keras_vit.from_pretrained(folder, **told)
    expected = weights(keras_vit.from_pretrained(plain, num_heads=4))
    assert_same_weights(weights(model), expected)
    keras_vit.load_weights(model, folder, plain_vit=True)
    assert inspect(folder, overrides=told, plain_vit=True).problem is None


@pytest.mark.parametrize(
    "folder",
    [
        "vit_base_patch16_sapiens2",
        "vit_base_patch14_rpn_224.sw_in1k",
        "mine-vit_base_patch16_sapiens2_flowers",
        "models--timm--vit_base_patch16_unknown_224.x/snapshots/0123abc",
        "models--me--vit_base_patch16_sapiens2/snapshots/0123abc",
    ],
)
def test_names_of_files_and_folders_count(folder, beside, tmp_path, plain):
    (tmp_path / folder).mkdir(parents=True)
    source = beside(folder=folder)
    with pytest.raises(
        ValueError, match="the path names the architecture 'vit_.*plain_vit"
    ):
        keras_vit.from_pretrained(source, num_heads=4)
    # What config.json says counts more, and so does what a file itself is called.
    beside({"architecture": "deit_tiny_patch16_224"}, folder)
    keras_vit.from_pretrained(source, num_heads=4)
    (source / "config.json").unlink()
    (source / "model.safetensors").rename(source / "deit_tiny_patch16_224-a1b2.safetensors")
    keras_vit.from_pretrained(
        source / "deit_tiny_patch16_224-a1b2.safetensors", num_heads=4
    )
    shutil.copy(plain, tmp_path / "vit_small_patch16_rpn_224.safetensors")
    with pytest.raises(ValueError, match="norms come after"):
        keras_vit.from_pretrained(tmp_path / "vit_small_patch16_rpn_224.safetensors")


@pytest.mark.parametrize(
    "folder", ["vit_flowers", "my_vit_base_patch16_224_flowers", "rope", "vit-europe_224"]
)
def test_names_of_one_s_own_say_nothing(folder, beside):
    keras_vit.from_pretrained(beside(folder=folder), num_heads=4)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("vit_base_patch16_224.augreg_in21k", "vit_base_patch16_224"),
        ("vit_base_patch16_224_in21k", "vit_base_patch16_224"),
        ("vit_base_patch32_224_clip_laion2b", "vit_base_patch32_clip_224"),
        ("deit3_small_patch16_384_in21ft1k", "deit3_small_patch16_384"),
        ("vit_base_resnet50_384", "vit_base_r50_s16_384"),
        ("resnetv2_50x1_bitm_in21k", "resnetv2_50x1_bit"),
        ("timm/flexivit_small.1200ep_in1k", "flexivit_small"),
    ],
)
def test_spellings_of_known_architectures(written, name):
    assert timm_names.known_name(written) == name
    assert timm_names.is_exact(name)


@pytest.mark.parametrize("case", [name for name in EVA if name != "timm_rope_mixed"])
def test_look_alikes_without_a_config_are_refused(case, tmp_path):
    bare = tmp_path / "bare.safetensors"
    shutil.copy(REFERENCE / case / "model.safetensors", bare)
    with pytest.raises(ValueError, match="plain_vit=True"):
        keras_vit.from_pretrained(bare, num_heads=4)
    with pytest.raises(ValueError, match="plain_vit=True"):
        keras_vit.load_weights(tiny(), bare)


@pytest.mark.parametrize("case", EVA)
def test_rotary_positions_may_be_given(case, tmp_path):
    named = keras_vit.from_pretrained(REFERENCE / case)
    config, bare = named.get_config(), tmp_path / "bare.safetensors"
    shutil.copy(REFERENCE / case / "model.safetensors", bare)
    told = ("num_heads", "rope", "image_size", "pooling", "layer_norm_epsilon", "mlp")
    told += ("pooling_num_heads", "pooling_prefix", "final_norm")
    told = {key: config[key] for key in told if config[key] is not None}
    if case == "timm_eva_giant":  # which has none
        told["plain_vit"] = True
    again = keras_vit.from_pretrained(bare, **told)
    assert again.get_config()["rope"] == config["rope"]
    assert_same_weights(weights(again), weights(named))
    keras_vit.load_weights(again, bare, plain_vit=case == "timm_eva_giant")
    if config["rope"]:  # and are part of what a model must have in common with a file
        rope = "axial" if config["rope"]["kind"] != "mixed" else None
        other = keras_vit.VisionTransformer(**{**config, "name": None, "rope": rope})
        before = weights(other)
        with pytest.raises(ValueError, match="rotary positions .* must be the same"):
            keras_vit.load_weights(other, REFERENCE / case)
        assert_same_weights(weights(other), before)


def test_arguments_of_eva_come_before_those_of_its_name(tmp_path):
    folder = shutil.copytree(REFERENCE / "timm_eva02_tiny", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    more = {"rope_temperature": 50.0, "rope_grid_indexing": "xy", "rope_grid_offset": 1.0}
    config["model_args"] |= {**more, "rope_rotate_half": True, "ref_feat_shape": [3, 2]}
    (folder / "config.json").write_text(json.dumps(config))
    rope = keras_vit.from_pretrained(folder).get_config()["rope"]
    expected = {"kind": "cat", "temperature": 50.0, "indexing": "xy", "offset": 1.0}
    expected |= {"pairs": "halves", "reference_grid": (3, 2)}
    assert {key: rope[key] for key in expected} == expected
    folder = shutil.copytree(REFERENCE / "timm_pe_core", tmp_path / "other")
    other = json.loads((folder / "config.json").read_text())
    other["model_args"]["attn_pool_num_heads"] = 2
    (folder / "config.json").write_text(json.dumps(other))
    assert keras_vit.from_pretrained(folder).get_config()["pooling_num_heads"] == 2
    folder = tmp_path / "model"
    config["model_args"]["rope_type"] = "mrope"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="mrope"):
        keras_vit.from_pretrained(folder)


def test_tensors_that_published_look_alikes_have_too(tmp_path):
    path = tmp_path / "model.safetensors"
    rpn = timm_shapes(768, 12, 3072, token=False, others=FC_NORM)
    ape = timm_shapes(384, 12, 1536, scale=("gamma_1", "gamma_2"))
    for shapes, name in ((rpn, "vit_base_patch16_rpn_224"), (ape, "rope_ape")):
        with pytest.raises(ValueError, match=f"{name}.*plain_vit=True"):
            Checkpoint(sparse(path, shapes)).architecture()
        assert Checkpoint(path, plain_vit=True).architecture()["num_layers"] == 12
    for own in ("deit_3_small_224_21k.safetensors", "deit3_small_patch16_224.safetensors"):
        named = path.rename(tmp_path / own)
        assert Checkpoint(named).architecture()["num_heads"] == 6
        named.rename(path)


def test_norms_after_the_branches_are_told_by_name_or_given(tmp_path):
    path = tmp_path / "model.safetensors"
    sparse(path, timm_shapes(768, 12, 3072, token=False, others=FC_NORM))
    for value in (True, False):
        told = Checkpoint(path, overrides={"norm_after": value})
        assert told.architecture()["norm_after"] is value
    config = {"architecture": "vit_base_patch16_rpn_224"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Checkpoint(path).architecture()["norm_after"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"global_pool": "max"},
        {"global_pool": "avgmax"},
        {"global_pool": ""},
        {"act_layer": "relu"},
        {"norm_layer": "rmsnorm"},
        {"block_fn": "ResPostBlock"},
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_arguments_of_timm_that_are_not_built_here(arguments, nested, beside):
    key = next(iter(arguments))
    folder = beside({"model_args": arguments} if nested else arguments)
    with pytest.raises(ValueError, match=f"config.json has {key}=.*not built here"):
        keras_vit.from_pretrained(folder, num_heads=4)
    keras_vit.from_pretrained(folder, num_heads=4, plain_vit=True)


@pytest.mark.parametrize("class_token", [True, False])
def test_a_file_without_positions_is_refused_unless_there_are_none(class_token, tmp_path):
    pooling = "token" if class_token else "gap"
    model = tiny(position="none", pooling=pooling, image_size=16, num_layers=1)
    path = tmp_path / "ours.safetensors"
    keras_vit.save_weights(model, path, layout="timm")
    # A file of ours says so.
    assert keras_vit.from_pretrained(path, image_size=16).get_config()["position"] == "none"
    without_metadata(path)
    told = {"num_heads": 4, "image_size": 16}
    with pytest.raises(ValueError, match="no position embedding, .*`position='none'`"):
        keras_vit.from_pretrained(path, **told)
    with pytest.raises(ValueError, match="no position embedding"):
        keras_vit.load_weights(tiny(pooling=pooling, image_size=16, num_layers=1), path)
    for known in ({"position": "none"}, {"plain_vit": True}):
        again = keras_vit.from_pretrained(path, **told, **known)
        assert again.get_config()["position"] == "none"
        assert_same_weights(weights(again), weights(model))
    keras_vit.load_weights(model, path)  # which has none either
    (tmp_path / "config.json").write_text(json.dumps({"pos_embed": "none"}))
    assert keras_vit.from_pretrained(path, **told).get_config()["position"] == "none"


def test_the_command_line_takes_the_way_out(beside, capsys):
    folder = beside({"architecture": "vit_base_patch16_sapiens2"})
    command = ["convert", str(folder), str(folder / "out.npz"), "--num-heads", "4"]
    assert cli.main(command) == 2
    assert "--plain-vit" in capsys.readouterr().err
    assert cli.main([*command, "--plain-vit"]) == 0
    with np.load(folder / "out.npz") as file:
        assert "Transformer/encoder_norm/scale" in file.files
