"""`keras-vit pretrain`, as a user would run it."""

import json
import shutil

import keras
import numpy as np
import pytest
from commands import end_twice, printed
from helpers import array, assert_same_weights, images, tiny, weights
from test_transfer_cli import shape

import keras_vit
from keras_vit.pretraining.pictures import colored, reconstructed
from keras_vit.runs import RunFolder, fine_tune, pretrain
from keras_vit.runs.neighbor_accuracy import NeighborAccuracy
from keras_vit.runs.objectives import OBJECTIVES
from keras_vit.training import (
    MAEPreTraining,
    MaskedPatchPreTraining,
    SmallPreTraining,
    prepare_data,
)

ENCODER = ("--model", "ViTTi16", "--image-size", 16)
for setting in ("patch_size=4", "hidden_dim=16", "num_layers=1", "num_heads=2"):
    ENCODER += ("--set", setting)
ENCODER += ("--set", "mlp_dim=16")
STEPS = ("--steps", 6, "--batch-size", 9, "--evaluations", 2, "--validation-split", 0.25)
HOSTILE = "<script>alert(1)<"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of images in folders of classes, of which one has a hostile name."""
    root, rng = tmp_path_factory.mktemp("images") / "shapes", np.random.default_rng(0)
    for kind in ("circle", "square", HOSTILE):
        (root / kind).mkdir(parents=True)
        for i in range(12):
            shape(kind, rng).save(root / kind / f"{i:02}.png")
    return root


@pytest.fixture(scope="module")
def loose(folder, tmp_path_factory):
    """The same images in one folder, without classes."""
    root = tmp_path_factory.mktemp("loose")
    for i, path in enumerate(sorted(folder.rglob("*.png"))):
        shutil.copy(path, root / f"{i:02}.png")
    return root


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """The folder of a short training, and what it printed."""
    output = tmp_path_factory.mktemp("runs") / "mae"
    status, text = printed("pretrain", folder, "--output", output, *ENCODER, *STEPS)
    assert status == 0
    return output, text


# A run, and what is done with it.


def test_a_run_is_an_encoder_and_its_numbers(trained):
    output, text = trained
    assert "3 classes" in text
    assert "masked autoencoder, MAE (arXiv 2111.06377)" in text
    results = json.loads((output / "results.json").read_text())
    history = RunFolder(output).history()
    assert results["loss"] == min(history["val_loss"])
    assert results["step"] in history["step"] == [3.0, 6.0]
    assert 0 <= results["knn_accuracy_before"] <= 1
    assert set(history["val_knn_accuracy"]) <= {n / 9 for n in range(10)}
    assert f"validation loss {results['loss']:.4f}" in text
    assert f"keras-vit finetune DATA --weights {output}" in text
    assert not (output / "resume").exists()

    model = keras.models.load_model(output / "objective.keras", compile=False)
    assert isinstance(model, keras_vit.pretraining.MaskedAutoencoder)
    # A decoder that suits the small encoder, and fixed positions, as in the paper.
    assert (model.decoder.hidden_dim, model.decoder.num_layers) == (16, 1)
    encoder = keras_vit.from_pretrained(output)
    assert encoder.get_config()["position"] == "sincos2d"
    assert encoder.get_config()["preprocessing"]["evaluation_crop"] == "center"
    assert_same_weights(weights(encoder), weights(model.encoder))
    config = RunFolder(output).config()
    assert config["objective"]["name"] == "masked_autoencoder"
    assert config["objective"]["mask_ratio"] == 0.75


def test_the_last_model_can_be_trained_further(trained):
    last = keras.models.load_model(trained[0] / "last.keras")
    assert int(last.optimizer.iterations) == 6


def test_the_encoder_is_fine_tuned_from_the_run(trained, folder, tmp_path):
    output, _ = trained
    status, _ = printed(
        *("finetune", folder, "--output", tmp_path / "run", "--weights", output),
        *("--image-size", 16, "--steps", 1, "--batch-size", 9),
        *("--base-learning-rate", 1e-9),
    )
    assert status == 0
    before, after = map(keras_vit.from_pretrained, (output, tmp_path / "run"))
    assert after.get_config()["class_names"] == tuple(sorted((HOSTILE, "circle", "square")))
    kernel = array(before.get_layer("patch_embedding").kernel)
    tuned = array(after.get_layer("patch_embedding").kernel)
    np.testing.assert_allclose(tuned, kernel, atol=1e-6)


def test_other_commands_take_the_run(trained, folder, fails, tmp_path):
    output, _ = trained
    status, text = printed("evaluate", output, "--protocol", "knn", "--k", 3)
    assert status == 0
    assert "27 train, 9 validation" in text
    status, _ = printed(
        "embed", output, folder / "circle", "--output", tmp_path / "vectors.npz"
    )
    assert status == 0
    assert "keras-vit finetune" in fails("evaluate", output)


def test_training_goes_on_from_an_encoder(trained, loose, tmp_path):
    """Another objective, on images without labels."""
    status, text = printed(
        *("pretrain", loose, "--output", tmp_path / "run", "--weights", trained[0]),
        *("--objective", "masked_patch_prediction", "--target", "downsized"),
        *("--image-size", 16, *STEPS),
    )
    assert status == 0
    assert "no labels" in text
    assert "nearest" not in text
    history = RunFolder(tmp_path / "run").history()
    assert "val_knn_accuracy" not in history
    assert history["val_baseline_accuracy"][-1] > 0
    model = keras.models.load_model(tmp_path / "run" / "objective.keras", compile=False)
    assert model.target == "downsized"
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "predicted colours" in page
    assert "Colours predicted" in page


def hues(number, rng):
    """Images of six weak hues below strong waves of brightness."""
    y, x = np.mgrid[:24, :24]
    labels, pixels = np.arange(number) % 6, []
    for label in labels:
        hue = 16 * np.cos(label * np.pi / 3 + np.array([0, 2.1, 4.2]))
        turn, speed = rng.uniform(0, 3.1), rng.uniform(0.3, 1.5)
        phase = speed * (np.cos(turn) * x + np.sin(turn) * y) + rng.uniform(0, 6.3)
        wave = 60 * np.sin(phase)[..., None] + rng.uniform(-50, 50)
        pixels.append(128 + hue + wave + rng.normal(0, 20, (24, 24, 3)))
    return np.clip(pixels, 0, 255).astype("uint8"), labels


def ramps(number, rng):
    """Ramps of grey in six directions, below noise."""
    y, x = (np.mgrid[:24, :24] - 11.5) / 12
    labels, pixels = np.arange(number) % 6, []
    for label in labels:
        turn = label * np.pi / 3
        ramp = 60 * (np.cos(turn) * x + np.sin(turn) * y) + rng.uniform(-40, 40)
        pixels.append(128 + ramp[..., None] + rng.normal(0, 40, (24, 24, 3)))
    return np.clip(pixels, 0, 255).astype("uint8"), labels


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("objective", "make"),
    [("masked_autoencoder", ramps), ("masked_patch_prediction", hues)],
)
def test_neighbours_of_a_trained_encoder_are_better_than_of_a_random_one(objective, make):
    rng = np.random.default_rng(0)
    splits = {"train": make(600, rng), "validation": make(300, rng)}
    data = keras_vit.data.load(splits, duplicates="keep")
    whole = keras_vit.data.Augmentation(crop="resize", flip=False, evaluation_crop="resize")
    recipe = SmallPreTraining.for_examples(
        *(600,), steps=80, base_learning_rate=3e-3, image_size=24, augmentation=whole
    )
    row = OBJECTIVES[objective]
    fields = {"hidden_dim": 32, "num_layers": 2, "num_heads": 4, "mlp_dim": 64}
    if objective == "masked_autoencoder":
        fields["position"] = "sincos2d"
    encoder = keras_vit.VisionTransformer(image_size=24, patch_size=6, **fields)
    model = row.model(encoder, **row.arguments(encoder, recipe, 0))
    neighbors = NeighborAccuracy(prepare_data(data, encoder, recipe, "int"))
    history = keras_vit.training.pretrain(
        model, data, recipe, evaluations=1, callbacks=neighbors, verbose=0
    )
    assert history.history["val_knn_accuracy"][-1] > neighbors.before + 0.05


# Interruptions.


def test_the_same_command_goes_on(trained, folder, fails, tmp_path, monkeypatch):
    """Ended by SIGTERM before the first evaluation, and dead in the second."""
    output, _ = trained
    given = ("pretrain", folder, "--output", tmp_path / "run", *ENCODER, *STEPS)
    given += ("--save-freq", 1)
    end_twice(monkeypatch, *given)
    message = fails(*given, "--mask-ratio", 0.5)
    assert "begun with other arguments: `--mask-ratio` not given before" in message
    status, text = printed(*given)
    assert status == 0
    assert "resumes after step 6" in text
    for name in ("metrics.csv", "results.json"):
        assert (tmp_path / "run" / name).read_text() == (output / name).read_text()
    for name in ("best.keras", "objective.keras", "last.keras"):
        is_last = name == "last.keras"  # with its optimizer
        whole, torn = (
            keras.models.load_model(path / name, compile=is_last)
            for path in (output, tmp_path / "run")
        )
        if is_last:
            pairs = zip(torn.optimizer.variables, whole.optimizer.variables, strict=True)
            for one, other in pairs:
                np.testing.assert_array_equal(array(one), array(other))
        assert_same_weights(weights(torn), weights(whole))
    assert "is not empty" in fails(*given)


# The report.


def test_the_report_shows_what_is_learned(trained):
    page = (trained[0] / "report" / "index.html").read_text()
    for heading in ("Learning curves", "What it has learned", "Where it looks", "Settings"):
        assert f"<h2>{heading}</h2>" in page
    assert "Nearest-neighbour accuracy" in page
    # Eight held-out images: image, seen, reconstructed; image, class token, rollout.
    assert page.count('src="data:image/') == 8 * 3
    assert page.count('href="data:image/') == 8 * 3
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;" in page


# Refusals.


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Nothing says which model to train"),
        (("--model", "ViTX16"), "`--model` must be one of"),
        ((*ENCODER, "--mask-ratio", 1.5), "`--mask-ratio`"),
        ((*ENCODER, "--set", "freeze=norms"), "`--set` takes NAME=VALUE"),
        ((*ENCODER, "--set", "pooling=map"), "no attention pooling"),
        ((*ENCODER, "--target", "pixels"), "no argument 'target'"),
        (
            (*ENCODER, "--objective", "self_distillation", "--crop", "resize"),
            "Leave out `--crop`, `randaugment`",
        ),
        ((*ENCODER, "--validation-split", 0), "chosen on validation images"),
        ((*ENCODER, "--steps", 5, "--warmup-steps", 5), "less than `--steps`"),
    ],
)
def test_pretrain_refuses(arguments, message, folder, fails, tmp_path):
    assert message in fails("pretrain", folder, "--output", tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.one_backend
def test_pretrain_refuses_in_words_of_python(folder, tmp_path):
    def message(error=ValueError, **options):
        with pytest.raises(error) as raised:
            pretrain(folder, tmp_path / "run", model="ViTTi16", **options)
        return str(raised.value)

    assert "`objective` must be one of" in message(objective="mae")
    assert "has no `label_smoothing`" in message(label_smoothing=0.1)
    assert "Near it: mask_ratio" in message(TypeError, mask_ration=0.5)
    assert "instance of `SelfSupervisedRecipe`" in message(
        recipe=keras_vit.training.SmallData()
    )


@pytest.mark.one_backend
def test_a_run_of_pretraining_is_none_of_fine_tuning(trained, folder):
    (trained[0] / "results.json").rename(trained[0] / "kept.json")
    try:
        with pytest.raises(ValueError, match="begun with other arguments"):
            fine_tune(folder, trained[0], model="ViTTi16", weights="none")
    finally:
        (trained[0] / "kept.json").rename(trained[0] / "results.json")


# Recipes.


@pytest.mark.one_backend
def test_recipes_state_the_papers_numbers():
    recipe = MAEPreTraining()
    # 800 epochs of ImageNet, 40 of them the warm-up; 1.5e-4 for each 256 images.
    assert (recipe.steps, recipe.warmup_steps) == (250_228, 12_511)
    assert recipe.base_learning_rate == pytest.approx(2.4e-3)
    assert (recipe.beta_1, recipe.beta_2, recipe.weight_decay) == (0.9, 0.95, 0.05)
    assert recipe.augmentation.crop_area == (0.2, 1.0)
    own = MAEPreTraining.for_examples(10_000, batch_size=512)
    assert (own.steps, own.warmup_steps) == (15_625, 781)
    assert own.base_learning_rate == pytest.approx(3e-4)
    recipe = MaskedPatchPreTraining()
    assert (recipe.steps, recipe.warmup_steps, recipe.batch_size) == (10**6, 10**4, 4096)
    assert (recipe.base_learning_rate, recipe.decay) == (2e-4, "cosine")
    assert recipe.global_clipnorm is None


@pytest.mark.one_backend
def test_the_small_recipe_follows_the_data():
    few, many = map(SmallPreTraining.for_examples, (500, 100_000))
    assert (few.batch_size, few.steps, few.warmup_steps) == (64, 2000, 100)
    assert (many.batch_size, many.steps) == (256, 19_531)
    assert many.base_learning_rate == 2 * few.base_learning_rate
    with pytest.raises(ValueError, match="has no `label_smoothing`"):
        few.replace(label_smoothing=0.1)


# Pictures.


def _unit(images):
    """Images in [-1, 1], as the tiny encoders take them, as pixel values."""
    return np.round(255 * (images + 1) / 2)


@pytest.mark.parametrize("norm_pix_loss", [True, False])
@pytest.mark.parametrize("options", [{}, {"include_preprocessing": True}])
def test_reconstructions_join_what_is_seen_and_what_is_predicted(norm_pix_loss, options):
    encoder = tiny(classes=0, **options)
    mae = keras_vit.pretraining.MaskedAutoencoder(
        encoder,
        decoder_hidden_dim=16,
        decoder_num_layers=1,
        decoder_num_heads=2,
        norm_pix_loss=norm_pix_loss,
    )
    original = images()
    given = _unit(original) if options else original
    masked, reconstruction = reconstructed(mae, given, seed=3)
    noise = np.random.default_rng(3).uniform(size=(2, 16)).astype("float32")
    outputs = {name: array(v) for name, v in mae(given, noise).items()}
    for i in range(2):
        for number in range(16):  # patches of 8 × 8, in four rows
            y, x = 8 * (number // 4), 8 * (number % 4)
            true = original[i, y : y + 8, x : x + 8]
            seen = masked[i][y : y + 8, x : x + 8]
            shown = reconstruction[i][y : y + 8, x : x + 8].astype(int)
            if not outputs["mask"][i, number]:
                np.testing.assert_allclose(seen, _unit(true), atol=1)
                np.testing.assert_allclose(shown, _unit(true), atol=1)
                continue
            assert (seen == 128).all()
            predicted = outputs["reconstruction"][i, number].reshape(8, 8, 3)
            if norm_pix_loss:
                predicted = predicted * true.std(ddof=1) + true.mean()
            np.testing.assert_allclose(shown, _unit(predicted.clip(-1, 1)), atol=1)


@pytest.mark.parametrize("target", ["mean_color", "downsized", "pixels"])
def test_colors_are_those_of_the_corrupted_patches(target):
    encoder = tiny(classes=0)
    model = keras_vit.pretraining.MaskedPatchPrediction(encoder, target=target)
    original = images()
    true, predicted = colored(model, original, seed=3)
    noise = np.random.default_rng(3).uniform(size=(2, 16, 3)).astype("float32")
    outputs = {name: array(v) for name, v in model(original, noise).items()}
    for i in range(2):
        for number in range(16):
            y, x = 8 * (number // 4), 8 * (number % 4)
            patch = (original[i, y : y + 8, x : x + 8] + 1) / 2
            shown = true[i][y : y + 8, x : x + 8]
            if number in outputs["corrupted"][i] and target != "pixels":
                cells = {"mean_color": 1, "downsized": 4}[target]
                side = 8 // cells
                means = patch.reshape(cells, side, cells, side, 3).mean(axis=(1, 3))
                # The middle of one of eight levels.
                means = (np.floor(8 * means) + 0.5) / 8
                patch = means.repeat(side, axis=0).repeat(side, axis=1)
            np.testing.assert_allclose(shown, 255 * patch, atol=1)
    place = outputs["corrupted"][0, 0]
    y, x = 8 * (place // 4), 8 * (place % 4)
    shown = predicted[0][y, x]
    first = outputs["predictions"][0, 0]
    if target == "pixels":
        expected = first[:3].clip(0, 1)
    else:
        number = first.reshape(-1, 512)[0].argmax()
        expected = (np.array([number // 64, number // 8 % 8, number % 8]) + 0.5) / 8
    np.testing.assert_allclose(shown, 255 * expected, atol=1)


def test_self_distillation_keeps_the_teacher_of_the_last_step(folder, tmp_path):
    """As the best checkpoint, though the loss rises with the teacher's temperature."""
    output = tmp_path / "dino"
    heads = ("output_dim=12", "projection_hidden_dim=8", "bottleneck_dim=4")
    heads += ("num_local_views=2", "local_image_size=8")
    given = [word for one in heads for word in ("--set", one)]
    status, text = printed(
        *("pretrain", folder, "--objective", "self_distillation", "--output", output),
        *ENCODER,
        *STEPS,
        *given,
    )
    assert status == 0
    assert "self-distillation, DINO (arXiv 2104.14294)" in text
    assert json.loads((output / "results.json").read_text())["step"] == 6
    model = keras.models.load_model(output / "last.keras")
    assert (model.steps, int(array(model.step))) == (6, 6)
    assert model.encoder.get_config()["drop_path_rate"] == 0.1
    assert_same_weights(weights(keras_vit.from_pretrained(output)), weights(model.teacher))
    history = RunFolder(output).history()
    assert np.isfinite(history["val_kl_divergence"]).all()
    # Cosine decay, to a millionth.
    assert history["learning_rate"][-1] == pytest.approx(1e-6)
    page = (output / "report/index.html").read_text()
    assert "Entropy of the teacher" in page
    assert "What it has learned" not in page


# Operations of a step, for `plan`.


def products(model_inputs, patches, width, mlp_dim, layers, tokens):
    """Multiply-accumulates of a ViT's embedding and of its blocks, by the formula."""
    dense = 4 * width * width + 2 * width * mlp_dim
    blocks = layers * (tokens * dense + 2 * tokens**2 * width)
    return patches * model_inputs * width + blocks


@pytest.mark.one_backend
def test_operations_of_a_step_are_those_of_the_formula():
    encoder = tiny(classes=0)  # 16 patches of 192 numbers, width 48, MLP 96, two blocks
    mae = keras_vit.pretraining.MaskedAutoencoder(
        encoder, decoder_hidden_dim=16, decoder_num_layers=3, decoder_num_heads=2
    )
    expected = products(192, 16, 48, 96, 2, tokens=1 + 4)
    expected += 5 * 48 * 16 + products(0, 0, 16, 64, 3, tokens=17) + 16 * 16 * 192
    assert OBJECTIVES["masked_autoencoder"].operations(mae) == 3 * expected

    colors = keras_vit.pretraining.MaskedPatchPrediction(encoder)
    expected = products(192, 16, 48, 96, 2, tokens=17) + 8 * 48 * 512
    assert OBJECTIVES["masked_patch_prediction"].operations(colors) == 3 * expected

    full = tiny(classes=0, full_last_block=True)
    dino = keras_vit.pretraining.SelfDistillation(
        *(full,),
        steps=10,
        num_local_views=3,
        local_image_size=16,
        output_dim=64,
        projection_hidden_dim=32,
        bottleneck_dim=8,
    )
    head = 48 * 32 + 32 * 32 + 32 * 8 + 8 * 64
    seen = 2 * (products(192, 16, 48, 96, 2, tokens=17) + head)
    local = 3 * (products(192, 4, 48, 96, 2, tokens=5) + head)
    operations = OBJECTIVES["self_distillation"].operations(dino)
    assert operations == 3 * (seen + local) + seen  # the teacher's own, without gradients
