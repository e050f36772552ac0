"""Class names and the preparation of images in a model's file."""

import dataclasses
import json
import pickle

import keras
import numpy as np
import pytest
from helpers import tiny
from PIL import Image
from test_finetune import SGD, blobs

import keras_vit.zoo.pretrained
from keras_vit.data import Augmentation, load_images
from keras_vit.exporting.metadata import metadata_of
from keras_vit.runs import load_classifier
from keras_vit.training import finetune

ONE_BACKEND = pytest.mark.one_backend
NOTES = {
    "class_names": ("cat", "dog", "郁"),
    "probabilities": "sigmoid",
    "preprocessing": {"evaluation_crop": "center", "resize_factor": 1.5},
}


def noted(**arguments):
    return tiny(classes=3, num_layers=1, **{**NOTES, **arguments})


def noted_bit():
    return keras_vit.BiTResNet(
        32, num_units=(1,), width_factor=0.5, classes=3, classifier_activation=None, **NOTES
    )


def notes(model):
    config = model.get_config()
    return {name: config[name] for name in NOTES if name in config}


@pytest.mark.parametrize("build", [noted, noted_bit])
def test_notes_outlive_what_a_model_goes_through(build, tmp_path):
    model, path = build(), tmp_path / "model.keras"
    assert notes(model) == NOTES
    model.save(path)
    again = keras.models.load_model(path)
    copies = [
        again,
        keras_vit.from_pretrained(path),
        keras_vit.from_pretrained(again, image_size=64),
        pickle.loads(pickle.dumps(model)),
        type(model).from_config(json.loads(json.dumps(model.get_config()))),
    ]
    assert [notes(each) for each in copies] == [NOTES] * 5


@ONE_BACKEND
def test_a_head_that_is_loaded_brings_its_names(tmp_path):
    other = {"class_names": ("x", "y", "z"), "probabilities": "softmax"}
    noted(**other).save(tmp_path / "x.keras")
    keras_vit.save_weights(noted(**other), tmp_path / "x.safetensors", layout="timm")
    noted().save_weights(tmp_path / "x.weights.h5")
    for name in ("x.keras", "x.safetensors"):
        for model in (noted(), tiny(classes=3, num_layers=1)):
            keras_vit.load_weights(model, tmp_path / name)
            assert {**notes(model), "preprocessing": None} == {
                **other,
                "preprocessing": None,
            }
    told_nothing = noted(**other)  # whoever built it may mean the head of this file
    keras_vit.load_weights(told_nothing, tmp_path / "x.weights.h5")
    assert notes(told_nothing) == {**NOTES, **other}
    of_two = tiny(classes=2, num_layers=1, class_names=("a", "b"))  # whose head stays
    keras_vit.load_weights(of_two, tmp_path / "x.keras")
    assert notes(of_two) == {"class_names": ("a", "b")}


@ONE_BACKEND
def test_a_size_that_may_vary_keeps_the_one_to_evaluate_at():
    noted_size = {"evaluation_crop": "resize", "image_size": (64, 64)}
    model = noted(preprocessing=noted_size)
    varying = keras_vit.from_pretrained(model, input_shape=(None, None, 3))
    assert notes(varying)["preprocessing"] == noted_size
    resized = keras_vit.from_pretrained(model, input_shape=(48, 48, 3))
    assert notes(resized)["preprocessing"] == {"evaluation_crop": "resize"}


@ONE_BACKEND
@pytest.mark.parametrize(
    ("activation", "told"),
    [("softmax", "none"), ("sigmoid", "none"), (None, "sigmoid"), ("tanh", None)],
)
def test_probabilities_are_told_of_outputs_that_are_known(activation, told):
    metadata = metadata_of(noted(classifier_activation=activation))
    assert metadata.get("probabilities") == told


@ONE_BACKEND
def test_a_quantized_model_keeps_them(tmp_path):
    model = noted()
    model.quantize("int8")
    model.save(tmp_path / "model.keras")
    assert notes(keras_vit.from_pretrained(tmp_path / "model.keras")) == NOTES


@ONE_BACKEND
def test_those_of_a_head_go_with_it():
    model = noted(preprocessing={"evaluation_crop": "resize", "image_size": 48})
    kept = {"preprocessing": {"evaluation_crop": "resize", "image_size": (48, 48)}}
    assert notes(keras_vit.from_pretrained(model, classes=0)) == kept
    assert notes(keras_vit.from_pretrained(model, classes=5)) == kept
    other = keras_vit.from_pretrained(model, classes=2, class_names=["a", "b"])
    assert notes(other) == {"class_names": ("a", "b"), **kept}
    # The size that it was evaluated at is not that of another.
    other = keras_vit.from_pretrained(model, image_size=64)
    assert notes(other)["preprocessing"] == {"evaluation_crop": "resize"}


@ONE_BACKEND
def test_notes_can_be_changed_and_taken_away():
    model = tiny(classes=3)
    assert notes(model) == {}
    model.note(class_names=["a", "b", "c"], preprocessing={"evaluation_crop": "center"})
    assert notes(model) == {
        "class_names": ("a", "b", "c"),
        "preprocessing": {"evaluation_crop": "center", "resize_factor": 448 / 384},
    }
    model.note(class_names=None)
    assert "class_names" not in notes(model)


@ONE_BACKEND
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"class_names": ["a", "b"]}, "2 names, classes=3"),
        ({"class_names": "abc"}, "a sequence of strings"),
        ({"class_names": [1, 2, 3]}, "a sequence of strings"),
        ({"probabilities": "tanh"}, "`probabilities` must be one of"),
        ({"preprocessing": {"crop": "center"}}, "a dictionary of some of image_size, eval"),
        ({"preprocessing": {"evaluation_crop": "middle"}}, "`evaluation_crop` must be"),
        ({"preprocessing": {"resize_factor": 0.9}}, "`resize_factor` must be 1 or more"),
        ({"preprocessing": {"resize_factor": float("nan")}}, "`resize_factor` must be"),
        ({"preprocessing": {"value_range": (4, 4)}}, "`value_range` must be a pair"),
        ({"preprocessing": {"alpha": "black"}}, "`alpha` must be one of"),
    ],
)
def test_notes_that_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        noted(**wrong)
    model = noted()
    with pytest.raises(ValueError, match=message):
        model.note(**wrong)
    assert notes(model) == NOTES
    with pytest.raises(ValueError, match="`note` takes class_names"):
        model.note(names=())


# What a training leaves in the model's file.


@pytest.mark.parametrize("any_size", [False, True])
def test_a_file_alone_is_the_classifier_that_was_trained(any_size, tmp_path):
    pictures, labels = blobs()
    names = np.array(["dark", "grey", "light"])
    data = keras_vit.data.load((pictures, names[labels]), validation_split=0.25)
    augmentation = Augmentation(
        crop="resize", flip=False, evaluation_crop="center", resize_factor=2
    )
    recipe = SGD.replace(
        steps=2, loss="sigmoid", augmentation=augmentation, image_size=64, batch_size=6
    )
    shape = (None, None, 3) if any_size else None
    model = tiny(
        image_size=32 if any_size else 64,
        input_shape=shape,
        num_layers=1,
        classes=3,
        classifier_activation=None,
        image_mean=0.4,
        image_std=0.3,
    )
    finetune(model, data, recipe, evaluations=1, verbose=0)
    model.save(tmp_path / "model.keras")
    classifier = load_classifier(tmp_path / "model.keras")
    assert classifier.class_names == ("dark", "grey", "light")

    # Resized to 128 pixels, the middle of it, in the value range: by Pillow alone.
    picture = np.random.default_rng(1).integers(0, 256, (40, 60, 3), "uint8")
    resized = Image.fromarray(picture).resize((192, 128), Image.Resampling.BILINEAR)
    middle = np.asarray(resized)[32:96, 64:128] / 255
    prepared = load_images([picture], classifier.pipeline)
    np.testing.assert_allclose(prepared[0], (middle - 0.4) / 0.3, atol=0.02)
    probabilities = classifier.probabilities(prepared, verbose=0)
    logits = keras.ops.convert_to_numpy(model(prepared))
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), atol=1e-5)

    expected = load_images([picture], data.prepared_for(model).pipeline)
    np.testing.assert_array_equal(prepared, expected)
    decoded = keras_vit.decode_predictions(probabilities, top=1, model=model)
    best = int(probabilities.argmax())
    assert decoded[0][0][:2] == (str(best), ("dark", "grey", "light")[best])
    with pytest.raises(ValueError, match="names 3 classes"):
        keras_vit.decode_predictions(np.zeros((1, 4)), model=model)


@ONE_BACKEND
def test_presets_and_files_without_notes():
    plain = tiny(classes=3)
    again = keras_vit.from_pretrained(plain)
    assert notes(again) == {}
    assert keras_vit.data.load(blobs()).prepared_for(plain).pipeline.augmentation == (
        Augmentation()
    )


@ONE_BACKEND
def test_a_preset_says_how_its_source_prepares_images():
    row = keras_vit.presets.find_preset("ViTB16.imagenet21k")

    def told(**steps):
        preprocessing = dataclasses.replace(row.preprocessing, **steps)
        preset = dataclasses.replace(row, preprocessing=preprocessing)
        return keras_vit.zoo.pretrained._preprocessing_notes(preset).get("preprocessing")

    # 224 / 0.9 is 248.9 pixels, and timm takes 248 of them.
    center = {"evaluation_crop": "center", "resize_factor": 248 / 224}
    steps = {"crop_fraction": 0.9, "interpolation": "area"}
    assert row.resolution == 224
    assert told(**steps, squash=False) == {**center, "interpolation": "area"}
    square = {**center, "evaluation_crop": "square", "interpolation": "area"}
    assert told(**steps, squash=True) == square
    whole = {"evaluation_crop": "resize", "interpolation": "bicubic"}
    assert told(crop_fraction=1.0, squash=True, interpolation="bicubic") == whole
    assert told(crop_fraction=1.0, squash=True, interpolation=None) == {
        "evaluation_crop": "resize"
    }
    assert told(crop_fraction=None) is None


# Files of other projects.


@ONE_BACKEND
def test_transformers_cannot_crop_every_shape(tmp_path, caplog):
    model = noted(image_size=(32, 48), gelu_approximate=False)
    keras_vit.save_weights(model, tmp_path, layout="huggingface")
    assert "images of 32 × 48 pixels differ" in caplog.text


@ONE_BACKEND
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop", ["center", "square", "resize"])
def test_transformers_prepares_images_alike(crop, interpolation, tmp_path):
    from transformers import AutoConfig, AutoImageProcessor

    preprocessing = {"evaluation_crop": crop, "interpolation": interpolation}
    if crop != "resize":
        preprocessing["resize_factor"] = 1.5
    model = noted(
        classifier_activation=None,
        preprocessing=preprocessing,
        image_mean=(0.5, 0.4, 0.3),
        gelu_approximate=False,
    )
    keras_vit.save_weights(model, tmp_path / "hf", layout="huggingface")
    config = AutoConfig.from_pretrained(tmp_path / "hf")
    assert config.id2label == {0: "cat", 1: "dog", 2: "郁"}
    assert config.label2id["郁"] == 2
    assert config.problem_type == "multi_label_classification"
    again = keras_vit.from_pretrained(tmp_path / "hf", classifier_activation=None)
    assert notes(again) == notes(model)

    processor = AutoImageProcessor.from_pretrained(tmp_path / "hf", use_fast=False)
    rng = np.random.default_rng(0)
    # Pillow cuts off what the cubic kernel overshoots after each axis, we after both.
    picture = rng.integers(64, 192, (6, 9, 3), "uint8").repeat(10, 0).repeat(10, 1)
    theirs = processor(Image.fromarray(picture), return_tensors="np")["pixel_values"][0]
    tmp_file = tmp_path / "model.keras"
    model.save(tmp_file)
    ours = load_images([picture], load_classifier(tmp_file).pipeline)[0]
    assert theirs.shape == (3, 32, 32)
    np.testing.assert_allclose(theirs.transpose(1, 2, 0), ours, atol=0.03)


@ONE_BACKEND
@pytest.mark.parametrize(
    ("processor", "preprocessing"),
    [
        ({"do_resize": True, "size": 32}, {"evaluation_crop": "resize"}),
        (
            {"do_resize": True, "size": {"height": 32, "width": 32}},
            {"evaluation_crop": "resize"},
        ),
        (
            {
                "do_resize": True,
                "size": {"shortest_edge": 40},
                "do_center_crop": True,
                "crop_size": {"height": 32, "width": 32},
            },
            {"evaluation_crop": "center", "resize_factor": 1.25},
        ),
        ({"do_resize": True, "size": {"shortest_edge": 40}}, None),  # of any shape
        ({"do_resize": True, "size": 32, "resample": 1}, None),  # Lanczos
        (
            {"do_resize": True, "size": 32, "resample": 2},
            {"evaluation_crop": "resize", "interpolation": "bilinear"},
        ),
        ({"do_resize": False}, None),
        (
            {
                "do_resize": True,
                "size": 40,
                "do_center_crop": True,
                "crop_size": 32,
                "feature_extractor_type": "DeiTFeatureExtractor",  # squashed and cropped
                "resample": 3,
            },
            {
                "evaluation_crop": "square",
                "resize_factor": 1.25,
                "interpolation": "bicubic",
            },
        ),
    ],
)
def test_what_transformers_files_say(processor, preprocessing, tmp_path):
    model = tiny(classes=3, gelu_approximate=False)
    keras_vit.save_weights(model, tmp_path, layout="huggingface")
    assert notes(keras_vit.from_pretrained(tmp_path)) == {}  # LABEL_0 … are no names
    without_metadata(tmp_path / "model.safetensors")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    config = json.loads((tmp_path / "config.json").read_text())
    for table in ({"0": "a", "1": "b", "2": "c"}, {"2": "c", "1": "b", "0": "a"}):
        config["id2label"] = table
        (tmp_path / "config.json").write_text(json.dumps(config))
        found = notes(keras_vit.from_pretrained(tmp_path))
        assert found["class_names"] == ("a", "b", "c")
        assert found.get("preprocessing") == preprocessing
    for table in ({"0": "a", "1": "b"}, {"1": "a", "2": "b", "3": "c"}, ["a", "b", "c"]):
        config["id2label"] = table
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert "class_names" not in notes(keras_vit.from_pretrained(tmp_path))


def without_metadata(path):
    """The tensors as another program would have written them."""
    from safetensors.numpy import load_file, save_file

    save_file(load_file(path), path, {"format": "pt"})


@ONE_BACKEND
def test_timm_files(tmp_path):
    model = noted(gelu_approximate=False)
    path = tmp_path / "model.safetensors"
    keras_vit.save_weights(model, path, layout="timm")
    assert notes(keras_vit.from_pretrained(path)) == NOTES
    without_metadata(path)
    assert notes(keras_vit.from_pretrained(path, num_heads=4)) == {}
    cfg = {"input_size": [3, 32, 32], "crop_pct": 0.9, "crop_mode": "center"}
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 3,
        "pretrained_cfg": cfg,
    }
    config |= {"label_names": ["a", "b", "c"], "model_args": {"num_heads": 4}}

    def told(**changes):
        text = json.dumps({**config, "pretrained_cfg": {**cfg, **changes}})
        (tmp_path / "config.json").write_text(text)
        found = notes(keras_vit.from_pretrained(path))
        assert found["class_names"] == ("a", "b", "c")
        return found.get("preprocessing")

    # timm resizes to floor(32 / 0.9) = 35 pixels.
    center = {"evaluation_crop": "center", "resize_factor": 35 / 32}
    center["interpolation"] = "bicubic"  # timm's default
    assert told() == center
    assert told(interpolation="bilinear") == {**center, "interpolation": "bilinear"}
    assert told(interpolation="lanczos") is None
    whole = {"evaluation_crop": "resize", "interpolation": "bicubic"}
    assert told(crop_mode="squash", crop_pct=1.0) == whole
    assert told(crop_mode="squash") == {**center, "evaluation_crop": "square"}
    assert told(crop_mode="border") is None
    assert told(crop_pct=None) is None
    # Earlier versions of timm put all in one dictionary.
    del config["pretrained_cfg"], config["label_names"]
    images = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    flat = {**config, **cfg, **images, "labels": ["x", "y", "z"]}
    (tmp_path / "config.json").write_text(json.dumps(flat))
    found = keras_vit.from_pretrained(path).get_config()
    assert found["class_names"] == ("x", "y", "z")
    assert found["preprocessing"] == center
    assert (found["image_mean"], found["image_std"]) == tuple(map(tuple, images.values()))


@ONE_BACKEND
def test_names_of_a_file_that_are_damaged(tmp_path):
    path = tmp_path / "model.safetensors"
    keras_vit.save_weights(noted(gelu_approximate=False), path, layout="timm")
    from safetensors.numpy import load_file, save_file

    text = json.dumps({"probabilities": "tanh"})
    save_file(load_file(path), path, {"format": "pt", "keras_vit.notes": text})
    with pytest.raises(ValueError, match="`probabilities` must be one of"):
        keras_vit.from_pretrained(path, num_heads=4)
