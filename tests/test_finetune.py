"""`training.finetune`: a recipe, put together."""

import dataclasses

import keras
import numpy as np
import pytest
from helpers import TINY, array, weights

import keras_vit
from keras_vit.data import Augmentation
from keras_vit.training import SmallData, ViTFineTuning, finetune, prepare_data
from keras_vit.training.fitting import split_into_epochs

PLAIN = Augmentation(crop="resize", flip=False, evaluation_crop="resize")


def blobs(number=48, pixels=32, classes=3):
    """Images of one brightness for each class, with noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(number) % classes
    images = rng.uniform(0, 80, (number, pixels, pixels, 3))
    images += labels[:, None, None, None] * 80
    return images.astype("uint8"), labels


def load(**pipeline):
    return keras_vit.data.load(blobs(), validation_split=0.25, **pipeline)


def model(**arguments):
    fields = {**TINY, "num_layers": 1, "classes": 3, "classifier_activation": None}
    return keras_vit.VisionTransformer(**{**fields, **arguments})


SGD = ViTFineTuning(
    steps=30,
    warmup_steps=5,
    batch_size=12,
    base_learning_rate=0.1,
    image_size=32,
    augmentation=PLAIN,
)


def test_it_learns_and_its_history_has_an_entry_for_each_evaluation():
    network, data = model(), load()
    history = finetune(network, data, SGD, evaluations=3, verbose=0)
    assert history.epoch == [0, 1, 2]
    assert history.history["val_accuracy"][-1] == 1
    assert int(array(network.optimizer.iterations)) == 30
    recipe = SmallData.for_examples(36, steps=20, batch_size=12, base_learning_rate=2e-3)
    network = model()
    history = finetune(network, data, recipe, verbose=0).history
    assert history["val_accuracy"][-1] >= 0.75
    assert history["loss"][-1] < history["loss"][0]


def test_micro_batches_give_the_weights_of_the_whole_batch():
    results = []
    for micro_batch_size in (None, 4):
        keras.utils.set_random_seed(0)
        network = model()
        recipe = dataclasses.replace(SGD, steps=6, micro_batch_size=micro_batch_size)
        finetune(network, load(), recipe, verbose=0)
        results.append(weights(network))
    for path, value in results[0].items():
        np.testing.assert_allclose(results[1][path], value, atol=2e-6, err_msg=path)


def test_only_the_head_learns_under_linear():
    network = model()
    before = weights(network)
    recipe = dataclasses.replace(SGD, steps=4, warmup_steps=0, freeze="linear")
    finetune(network, load(), recipe, verbose=0)
    changed_ = {
        path for path, w in weights(network).items() if not np.array_equal(w, before[path])
    }
    assert changed_ == {"head/kernel", "head/bias"}


def test_a_model_of_any_size_takes_the_image_size_of_the_recipe():
    network = model(input_shape=(None, None, 3))
    recipe = dataclasses.replace(SGD, steps=2, warmup_steps=0, image_size=(40, 48))
    data = keras_vit.training.prepare_data(load(), network, recipe)
    images, labels = next(iter(data.train))
    assert images.shape == (12, 40, 48, 3)
    assert labels.shape == (12, 3)
    finetune(network, load(), recipe, verbose=0)


def test_a_head_of_other_classes_is_refused():
    with pytest.raises(ValueError, match="classes=5, data of 3 classes. Build the model"):
        finetune(model(classes=5), load(), SGD)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("steps", "evaluations", "expected"),
    [
        (500, None, (20, 25)),
        (500, 7, (5, 100)),
        (97, 10, (97, 1)),
        (1, 5, (1, 1)),
        (6, 6, (6, 1)),
    ],
)
def test_steps_are_cut_in_equal_parts(steps, evaluations, expected):
    recipe = dataclasses.replace(SGD, steps=steps, warmup_steps=0)
    assert split_into_epochs(recipe, 20, evaluations) == expected
    recipe = dataclasses.replace(recipe, micro_batch_size=3)
    assert split_into_epochs(recipe, 20, evaluations) == (expected[0], expected[1] * 4)


@pytest.mark.one_backend
def test_fewer_passes_than_evaluations():
    recipe = dataclasses.replace(SGD, steps=20)  # 240 examples
    assert split_into_epochs(recipe, 48, None) == (5, 4)
    assert split_into_epochs(recipe, 1000, None) == (1, 20)


# What it is given.


@pytest.mark.one_backend
def test_a_model_of_ones_own_is_refused_with_the_way_out():
    data, network = load(), keras.Sequential([model(classes=0), keras.layers.Dense(3)])
    network.build((None, 32, 32, 3))
    with pytest.raises(ValueError, match=r"with a head of its own.*from_pretrained\(model"):
        finetune(network, data)
    with pytest.raises(ValueError, match="says how it takes images"):
        data.prepared_for(network)
    with pytest.raises(ValueError, match="the model's layer 'head'"):
        SmallData().loss_function(network)


@pytest.mark.one_backend
def test_data_that_is_not_loaded_is_refused_with_the_way_out():
    data, network = load(), model()
    arrays = np.zeros((4, 32, 32, 3), "uint8"), np.arange(4) % 2
    for given in (arrays, "a folder", data.train):
        with pytest.raises(ValueError, match=r"keras_vit\.data\.load\(\(images, labels"):
            finetune(network, given, SmallData())


@pytest.mark.one_backend
def test_an_image_size_is_never_ignored_in_silence(caplog):
    data, network = load(), model()
    with pytest.raises(ValueError, match=r"images of 48 × 48 and a model for 32 × 32"):
        finetune(network, data, SmallData(image_size=48))
    with pytest.raises(ValueError, match=r"input_shape=\(48, 40, 3\)"):
        prepare_data(data, network, SmallData(image_size=(48, 40)))
    assert not caplog.messages
    prepare_data(data, network, SmallData(image_size=32))
    assert not caplog.messages
    found = prepare_data(data, network, SmallData())  # for 224, if nobody says otherwise
    assert caplog.messages == [
        "The model takes images of 32 × 32, so SmallData does not use its default of "
        "224 × 224."
    ]
    assert found.pipeline.image_size == (32, 32)


@pytest.mark.one_backend
def test_an_augmentation_counts_where_it_is_given():
    data, network = load(), model()
    recipe, plain = SmallData(image_size=32), Augmentation(crop="resize", flip=False)
    assert prepare_data(data, network, recipe).pipeline.augmentation == recipe.augmentation
    loaded = data.with_pipeline(augmentation=plain)
    assert prepare_data(loaded, network, recipe).pipeline.augmentation == plain
    of_recipe = recipe.replace(augmentation=recipe.augmentation.replace(flip=False))
    assert not prepare_data(data, network, of_recipe).pipeline.augmentation.flip
    with pytest.raises(ValueError, match="different augmentations"):
        prepare_data(loaded, network, of_recipe)
    same = recipe.replace(augmentation=plain)
    assert prepare_data(loaded, network, same).pipeline.augmentation == plain


def test_gradients_in_half_precision_are_clipped_by_their_norm():
    """A norm of 400, whose square float16 does not hold."""
    for dtype in ("float16", "bfloat16"):
        optimizer = SGD.optimizer(model(dtype=dtype))
        gradient = keras.ops.ones((400, 400), dtype)
        (clipped,) = optimizer._clip_gradients([gradient])
        assert keras.backend.standardize_dtype(clipped.dtype) == dtype
        clipped = array(keras.ops.cast(clipped, "float32"))
        np.testing.assert_allclose(clipped, SGD.global_clipnorm / 400, rtol=1e-2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_in_half_precision_are_trained_by_sgd_alone(dtype):
    network = model(dtype=dtype)
    history = finetune(network, load(), SGD.replace(steps=6), verbose=0).history
    head = array(keras.ops.cast(network.get_layer("head").kernel, "float32"))
    assert np.isfinite(history["loss"]).all()
    assert np.abs(head).max() > 0
    recipe = SmallData.for_examples(36, steps=2, batch_size=12)
    with pytest.raises(ValueError, match=rf"Adam needs.*'{dtype}'.*mixed_bfloat16"):
        finetune(network, load(), recipe)


@pytest.mark.one_backend
def test_a_model_that_is_frozen_is_not_trained():
    network = model()
    network.trainable = False
    with pytest.raises(
        ValueError, match=r"trainable weights. Received.*frozen. Use freeze"
    ):
        finetune(network, load(), SGD)


@pytest.mark.one_backend
@pytest.mark.parametrize("recipe", ["vit", SmallData, {"steps": 3}])
def test_what_is_no_recipe_is_refused(recipe):
    with pytest.raises(ValueError, match="`recipe` must be an instance of `Recipe`"):
        finetune(model(), load(), recipe)


@pytest.mark.one_backend
def test_a_single_callback_is_taken_as_fit_takes_it():
    seen = []
    callback = keras.callbacks.LambdaCallback(on_train_end=lambda logs: seen.append(1))
    finetune(model(), load(), SGD.replace(steps=6), callbacks=callback, verbose=0)
    assert seen == [1]
