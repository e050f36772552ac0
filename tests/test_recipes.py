"""Recipes: the papers' numbers and formulas, and what they refuse."""

import keras
import numpy as np
import pytest
from helpers import array, path_of, tiny

import keras_vit
from keras_vit.data import Augmentation
from keras_vit.training import (
    VTAB,
    AugReg,
    BigVisionS16,
    BiTHyperRule,
    DeiT,
    SmallData,
    ViTFineTuning,
    ViTPreTraining,
)

ALL = [
    ViTFineTuning(),
    ViTFineTuning.for_data("oxford_flowers102"),
    VTAB(),
    SmallData(),
    SmallData.for_examples(10),
    BiTHyperRule.for_data(1020, (500, 667)),
    ViTPreTraining.for_model("ViTB16", "jft300m"),
    ViTPreTraining.for_model("ViTH14", "imagenet2012"),
    AugReg.of("strong2", "imagenet2012"),
    BigVisionS16(),
    DeiT(),
]


def cosine(step, recipe):
    p = (step - recipe.warmup_steps) / (recipe.steps - recipe.warmup_steps)
    return recipe.base_learning_rate * 0.5 * (1 + np.cos(np.pi * np.clip(p, 0, 1)))


def linear(step, recipe):
    p = (step - recipe.warmup_steps) / (recipe.steps - recipe.warmup_steps)
    return 1e-5 + (recipe.base_learning_rate - 1e-5) * (1 - np.clip(p, 0, 1))


def tenths(step, recipe):
    return recipe.base_learning_rate / 10.0 ** sum(step > s for s in recipe.decay_steps)


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: type(recipe).__name__)
def test_the_learning_rate_is_the_formula_of_the_paper_at_every_step(recipe):
    decay = {"cosine": cosine, "linear": linear}[recipe.decay]
    if isinstance(recipe, BiTHyperRule):
        decay = tenths
    schedule = recipe.schedule()
    steps = steps_to_compare(recipe)
    warmup = np.minimum(1, steps / recipe.warmup_steps)
    expected = warmup * np.array([decay(step, recipe) for step in steps])
    actual = [float(schedule(int(step))) for step in steps]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6 * expected.max())


def steps_to_compare(recipe):
    """Every step of a short recipe on torch, whose calls are quick; elsewhere the ends, the
    steps around where something changes, and some between.
    """
    end = recipe.steps + 10
    if keras.backend.backend() == "torch" and end < 3000:
        return np.arange(end)
    changes = [0, recipe.warmup_steps, recipe.steps, *getattr(recipe, "decay_steps", ())]
    around = [step + k for step in changes for k in (-1, 0, 1, 2) if step + k >= 0]
    return np.unique([*around, *np.linspace(0, end, 10).astype(int)])


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "steps", "warmup_steps", "learning_rate", "crop"),
    [
        ("imagenet2012", 20_000, 500, 0.03, "inception"),
        ("cifar10", 10_000, 500, 0.003, "random"),
        ("cifar100", 10_000, 500, 0.01, "random"),
        ("oxford_iiit_pet", 500, 100, 0.003, "inception"),
        ("oxford_flowers102", 500, 100, 0.003, "inception"),
    ],
)
def test_fine_tuning_is_table_4(name, steps, warmup_steps, learning_rate, crop):
    recipe = ViTFineTuning.for_data(name)
    assert (recipe.steps, recipe.warmup_steps) == (steps, warmup_steps)
    assert recipe.base_learning_rate == learning_rate
    assert recipe.augmentation == Augmentation(crop=crop)
    assert (recipe.batch_size, recipe.image_size, recipe.decay) == (512, 384, "cosine")
    assert (recipe.algorithm, recipe.momentum) == ("sgd", 0.9)
    assert (recipe.weight_decay, recipe.global_clipnorm) == (0, 1)
    assert ViTFineTuning.for_data(name, 0.06).base_learning_rate == 0.06
    assert ViTFineTuning.for_data(name, steps=10, warmup_steps=1).steps == 10


@pytest.mark.one_backend
def test_vtab_is_the_same_for_each_task():
    recipe = VTAB()
    assert (recipe.steps, recipe.base_learning_rate, recipe.batch_size) == (2500, 0.01, 512)
    assert recipe.augmentation.crop == "resize"
    assert not recipe.augmentation.flip


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("model", "data", "epochs", "learning_rate", "decay", "weight_decay", "dropout_rate"),
    [
        ("ViTB32", "jft300m", 7, 8e-4, "linear", 0.1, 0),
        ("ViTL16", "jft300m", 14, 4e-4, "linear", 0.1, 0),
        ("R50ViTL32", "jft300m", 7, 2e-4, "linear", 0.1, 0),
        ("ViTB16", "imagenet21k", 90, 1e-3, "linear", 0.03, 0.1),
        ("ViTL32", "imagenet21k", 90, 1e-3, "linear", 0.03, 0.1),
        ("ViTL16", "imagenet2012", 300, 3e-3, "cosine", 0.3, 0.1),
    ],
)
def test_pre_training_is_table_3(
    model, data, epochs, learning_rate, decay, weight_decay, dropout_rate
):
    recipe = ViTPreTraining.for_model(model, data, num_examples=10_000_000)
    assert recipe.steps == round(epochs * 10_000_000 / 4096)
    assert (recipe.base_learning_rate, recipe.decay) == (learning_rate, decay)
    assert (recipe.weight_decay, recipe.dropout_rate) == (weight_decay, dropout_rate)
    assert (recipe.batch_size, recipe.warmup_steps) == (4096, 10_000)
    assert (recipe.algorithm, recipe.beta_1, recipe.beta_2) == ("adam", 0.9, 0.999)
    on_imagenet = data == "imagenet2012"
    assert recipe.loss == ("softmax" if on_imagenet else "sigmoid")
    assert recipe.init_head_bias == (None if on_imagenet else -10)
    assert recipe.global_clipnorm == (1.0 if on_imagenet else None)
    width = 768 if "B" in model else 1024
    assert recipe.model_arguments() == {
        "dropout_rate": dropout_rate,
        "representation_size": width,
    }
    half = ViTPreTraining.for_model(model, data, epochs=epochs, batch_size=2048)
    full = ViTPreTraining.for_model(model, data)
    assert half.steps == pytest.approx(2 * full.steps, abs=1)


@pytest.mark.one_backend
def test_augreg_by_the_words_of_its_file_names():
    recipe = AugReg.of("medium1", weight_decay=0.03, dropout_rate=0.1, epochs=30)
    assert recipe.augmentation.randaugment == (2, 15)
    assert recipe.augmentation.mixup_alpha == 0.2
    assert (recipe.weight_decay, recipe.loss) == (0.03, "sigmoid")
    assert recipe.model_arguments() == {"dropout_rate": 0.1, "drop_path_rate": 0.1}
    assert recipe.steps == round(30 * 14_197_122 / 4096)
    assert AugReg.of("none", "imagenet2012").augmentation == Augmentation()
    with pytest.raises(ValueError, match=r"'strong2'. Received: augmentation='strong3'"):
        AugReg.of("strong3")


@pytest.mark.one_backend
def test_deit_is_table_9_of_its_paper():
    recipe = DeiT()
    assert (recipe.batch_size, recipe.base_learning_rate) == (1024, 5e-4 * 1024 / 512)
    assert recipe.steps == round(300 * 1_281_167 / 1024)
    assert recipe.warmup_steps == round(5 * 1_281_167 / 1024)
    assert (recipe.algorithm, recipe.weight_decay) == ("adam", 0.05)
    assert (recipe.label_smoothing, recipe.model_arguments()) == (
        0.1,
        {"drop_path_rate": 0.1},
    )
    augmentation = recipe.augmentation
    assert (augmentation.mixup_alpha, augmentation.cutmix_alpha) == (0.8, 1.0)
    smaller = DeiT.for_examples(5120, batch_size=256)
    assert (smaller.steps, smaller.warmup_steps) == (300 * 20, 100)
    assert smaller.base_learning_rate == 2.5e-4


@pytest.mark.one_backend
def test_big_vision_builds_its_model():
    recipe = BigVisionS16()
    assert recipe.steps == 111_477  # 90 epochs of 1,268,355 images, 1024 at a time
    assert BigVisionS16.for_epochs(300).steps == 371_588
    model = keras_vit.VisionTransformer(
        32, 16, 384, 1, 6, 64, classes=10, **recipe.model_arguments()
    )
    assert recipe.prepare(model) is model
    assert model.get_layer("pre_logits").units == 384


@pytest.mark.one_backend
def test_small_data_by_the_number_of_examples():
    sizes = [1, 100, 1999, 2000, 19_999, 20_000, 1_000_000]
    recipes = [SmallData.for_examples(size) for size in sizes]
    passes = [r.steps * r.batch_size / n for r, n in zip(recipes, sizes, strict=True)]
    assert passes == sorted(passes, reverse=True)  # the fewer examples, the more passes
    assert [recipe.batch_size for recipe in recipes] == [32, 32, 32, 64, 64, 128, 128]
    assert all(recipe.warmup_steps == recipe.steps // 10 for recipe in recipes)
    assert SmallData.for_examples(5, batch_size=8, steps=40).warmup_steps == 4


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "`steps` must be a positive integer"),
        ({"micro_batch_size": 5}, "`batch_size` must be divisible by `micro_batch_size`"),
        ({"warmup_steps": 500}, "`warmup_steps` must be at least 0 and less than `steps`"),
        ({"base_learning_rate": 0}, "`base_learning_rate` must be positive"),
        ({"base_learning_rate": float("nan")}, "`base_learning_rate` must be finite"),
        ({"weight_decay": float("inf")}, "`weight_decay` must be finite"),
        ({"layerwise_decay": 0}, r"`layerwise_decay` must be in \(0, 1\]"),
        ({"label_smoothing": 1}, r"`label_smoothing` must be in \[0, 1\)"),
        ({"algorithm": "lion"}, "`algorithm` must be one of 'sgd', 'adam'"),
        ({"decay": "step"}, "`decay` must be one of 'cosine', 'linear'"),
        ({"loss": "hinge"}, "`loss` must be one of 'softmax', 'sigmoid'"),
        ({"lora_rank": 4, "freeze": "linear"}, "`freeze` must be None"),
        ({"image_size": 0}, "`image_size` must be a positive integer or a pair"),
    ],
)
def test_a_recipe_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        SmallData(**changes)


@pytest.mark.one_backend
def test_a_longer_recipe_has_a_longer_schedule():
    recipe = SmallData(steps=30, warmup_steps=5)
    assert recipe.replace(steps=60).warmup_steps == 10
    assert recipe.replace(steps=60, warmup_steps=1).warmup_steps == 1
    assert recipe.replace(batch_size=4).warmup_steps == 5
    rule = BiTHyperRule.for_data(1000, 224).replace(steps=50)
    assert (rule.warmup_steps, rule.decay_steps) == (10, (20, 30, 40))
    with pytest.raises(ValueError, match="`steps` must be a positive integer"):
        recipe.replace(steps=0)


def test_pooling_has_the_name_of_keras_applications_too():
    recipe = SmallData(pooling="avg")
    assert recipe == SmallData(pooling="gap")
    recipe.prepare(tiny(**recipe.model_arguments()))


def test_prepare_wants_the_model_that_the_recipe_asks_for():
    recipe = SmallData(drop_path_rate=0.1)
    with pytest.raises(ValueError, match=r"Expected: {'drop_path_rate': 0.1}. Received"):
        recipe.prepare(tiny())
    recipe.prepare(tiny(**recipe.model_arguments()))


def test_prepare_freezes_and_sets_the_head():
    model = SmallData(freeze="linear", init_head_bias=-10).prepare(tiny())
    assert {path_of(weight) for weight in model.trainable_weights} == {
        "head/kernel",
        "head/bias",
    }
    np.testing.assert_array_equal(array(model.get_layer("head").bias), -10)


def test_the_loss_is_of_what_the_head_gives():
    rng = np.random.default_rng(0)
    labels = np.eye(10, dtype="float32")[rng.integers(10, size=4)]
    images = rng.uniform(-1, 1, (4, 32, 32, 3)).astype("float32")
    for loss in ("softmax", "sigmoid"):
        recipe = SmallData(loss=loss, label_smoothing=0.1)
        values = []
        for activation in (None, loss):
            keras.utils.set_random_seed(0)
            model = tiny(classifier_activation=activation)
            values.append(array(recipe.loss_function(model)(labels, model(images))))
        np.testing.assert_allclose(*values, rtol=1e-4)
    with pytest.raises(ValueError, match="whose head has the activation 'softmax'"):
        SmallData(loss="sigmoid").loss_function(tiny())


def test_the_sigmoid_loss_is_summed_over_the_classes():
    logits = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]], "float32")
    labels = np.array([[1, 0, 0], [0, 1, 1]], "float32")
    log_p, log_not_p = -np.log1p(np.exp(-logits)), -np.log1p(np.exp(logits))
    expected = -(labels * log_p + (1 - labels) * log_not_p).sum(axis=1).mean()
    loss = keras_vit.training.SigmoidCrossentropy(from_logits=True)
    np.testing.assert_allclose(array(loss(labels, logits)), expected, rtol=1e-6)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()


def test_the_optimizer_is_that_of_the_recipe():
    sgd = ViTFineTuning(micro_batch_size=128).optimizer(tiny())
    assert isinstance(sgd, keras.optimizers.SGD)
    assert (sgd.momentum, sgd.global_clipnorm) == (0.9, 1)
    assert (sgd.weight_decay, sgd.gradient_accumulation_steps) == (None, 4)
    adam = SmallData(layerwise_decay=1.0).optimizer(tiny())
    assert isinstance(adam, keras.optimizers.Adam)
    assert adam.weight_decay == 0.05
