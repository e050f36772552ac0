"""Several models of ours in one: paths of weights, training, loading, resuming."""

import shutil

import keras
import numpy as np
import pytest
import resumed
from helpers import (
    REFERENCE,
    array,
    assert_same_weights,
    images,
    randomize,
    tiny,
    weights,
)

import keras_vit
from keras_vit import training
from keras_vit.training import ExactResume

BACKEND = keras.backend.backend()


def small(seed=0, **overrides):
    fields = {"hidden_dim": 8, "num_heads": 2, "mlp_dim": 16, "classes": 3}
    keras.utils.set_random_seed(seed)
    return randomize(tiny(**fields | overrides), seed)


def resnet(seed=0):
    keras.utils.set_random_seed(seed)
    return randomize(keras_vit.BiTResNet(32, (1,), 0.5, classes=3), seed)


def average(*models):
    inputs = keras.Input((32, 32, 3))
    return keras.Model(inputs, keras.layers.Average()([model(inputs) for model in models]))


def data():
    pixels = np.random.default_rng(2).uniform(-1, 1, (6, 32, 32, 3)).astype("float32")
    return pixels, np.arange(6) % 3


def by_hand(models, steps, rate):
    """Weights of the average of models after steps of SGD: no model is around them.

    The gradient of each model's output is computed from the average, and the model then
    trained by itself on the inner product with it.
    """
    pixels, labels = data()
    targets = np.eye(3)[labels]
    for step in range(steps):
        rows = slice(3 * (step % 2), 3 * (step % 2) + 3)
        x, y = pixels[rows], targets[rows]
        mean = np.mean([array(model(x)) for model in models], axis=0)
        gradient = -y / mean / len(x) / len(models)  # of the cross-entropy of sums of 1
        for model in models:
            model.compile(
                keras.optimizers.SGD(rate),
                lambda given, output: 3 * keras.ops.sum(given * output, axis=-1),
            )
            model.train_on_batch(x, gradient.astype("float32"))
    return [weights(model) for model in models]


def test_training_is_that_of_each_by_hand():
    models, alone = [[small(1), resnet(2)] for _ in range(2)]
    model = average(*models)
    pixels, labels = data()
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    model.fit(pixels, labels, batch_size=3, epochs=2, shuffle=False, verbose=0)
    for trained, expected in zip(models, by_hand(alone, 4, 0.1), strict=True):
        for path, value in weights(trained).items():
            np.testing.assert_allclose(value, expected[path], atol=1e-5, err_msg=path)


def test_paths_are_unique_and_begin_with_the_name():
    first, second = small(name="first"), small(name="second")
    model = average(first, second)
    paths = [weight.path for weight in model.weights]
    assert len(set(paths)) == len(paths)
    for part in (first, second):
        assert all(weight.path.startswith(f"{part.name}/") for weight in part.weights)
        assert part.get_layer("block_0").path == f"{part.name}/block_0"
    if BACKEND == "torch":
        assert len(list(model.parameters())) == len(paths)
        # Names of a state dict are those of every such model.
        assert list(first.state_dict()) == list(second.state_dict())
        second.load_state_dict(first.state_dict())
        assert_same_weights(weights(second), weights(first))


@pytest.mark.one_backend
def test_constructors_have_unique_names():
    fields = {"weights": None, "input_shape": (32, 32, 3), "num_layers": 1, "classes": 2}
    first, second = (keras_vit.ViTTi16(**fields) for _ in range(2))
    assert first.name != second.name
    assert first.name.startswith("vitti16")
    assert len(average(first, second).weights) == 2 * len(first.weights)
    shared = average(first, keras_vit.from_pretrained(second, name="student"), first)
    assert len(shared.weights) == 2 * len(first.weights)


def test_one_file_into_two_models_is_refused(tmp_path):
    source = small(3)
    source.save(tmp_path / "a.keras")
    keras_vit.save_weights(source, tmp_path / "a.safetensors", layout="timm")
    first, second = small(1, name="a"), small(2, name="b")
    both = average(first, second)
    before = both.get_weights()
    for name in ("a.keras", "a.safetensors"):
        with pytest.raises(ValueError, match=r"one at a time|model.get_layer\('a'\)"):
            keras_vit.load_weights(both, tmp_path / name)
    for old, new in zip(before, both.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    for name in ("a", "b"):
        report = keras_vit.load_weights(both.get_layer(name), tmp_path / "a.safetensors")
        assert len(report.loaded) == len(source.weights)
    assert_same_weights(weights(first), weights(source))
    assert_same_weights(weights(second), weights(source))
    # Shared, it is one.
    inputs = keras.Input((32, 32, 3))
    twice = keras.Model(inputs, keras.layers.Average()([first(inputs), first(-inputs)]))
    assert len(keras_vit.load_weights(twice, tmp_path / "a.keras").loaded) == len(
        source.weights
    )


@pytest.mark.one_backend
def test_own_files_of_two_models(tmp_path):
    both = average(small(1, name="a"), small(2, name="b"))
    both.save_weights(tmp_path / "both.weights.h5")
    both.save(tmp_path / "both.keras")
    with pytest.raises(ValueError, match="unchanged"):
        keras_vit.load_weights(small(), tmp_path / "both.weights.h5")
    again = average(small(7, name="c"), small(8, name="d"))
    report = keras_vit.load_weights(again, tmp_path / "both.weights.h5")
    assert len(set(report.loaded)) == len(both.weights)
    for old, new in zip(both.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert array(keras.models.load_model(tmp_path / "both.keras")(images())).tolist() == (
        array(both(images())).tolist()
    )


@pytest.mark.one_backend
def test_rates_and_freezing_are_those_of_each():
    deep, flat = small(num_layers=3, name="deep"), small(num_layers=1, name="flat")
    both = average(deep, flat)
    rates = training.learning_rate_multipliers(both, 0.5)
    expected = {
        **training.learning_rate_multipliers(deep, 0.5),
        **training.learning_rate_multipliers(flat, 0.5),
    }
    assert rates == expected
    assert rates["deep/patch_embedding/kernel"] == 0.5**4
    assert rates["flat/patch_embedding/kernel"] == 0.5**2
    training.freeze(both, 1)
    trained = {weight.path.rsplit("/", 3)[0] for weight in both.trainable_weights}
    assert {name.split("/")[1] for name in trained if "block_" in name} == {
        *("block_0", "block_2")
    }
    assert not flat.get_layer("patch_embedding").trainable
    with pytest.raises(ValueError, match="at most the number of blocks, 1"):
        training.freeze(both, 2)


@pytest.mark.one_backend
def test_rules_of_an_optimizer_know_a_model_by_another_name():
    first, second = small(name="first"), small(name="second")
    pixels, labels = data()
    outcomes = []
    for source, trained in ((first, first), (second, first), (first, second)):
        randomized = small(5, name=trained.name)
        optimizer = keras.optimizers.AdamW(1e-2, weight_decay=0.1)
        training.exclude_from_weight_decay(optimizer, source)
        multipliers = training.learning_rate_multipliers(source, 0.5)
        training.scale_learning_rates(optimizer, multipliers)
        randomized.compile(optimizer, "sparse_categorical_crossentropy")
        randomized.fit(pixels, labels, shuffle=False, verbose=0)
        outcomes.append(weights(randomized))
    for outcome in outcomes[1:]:
        assert_same_weights(outcome, outcomes[0])


def resumable(folder, epochs, stop_at=None):
    """Trains two models in one with `ExactResume`; the names differ each time."""
    model = average(small(1, dropout_rate=0.2), resnet(2))
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy())
    pixels, labels = data()

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == stop_at:
                raise InterruptedError

    try:
        model.fit(
            *(pixels, labels),
            batch_size=3,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[ExactResume(folder, "epoch"), Stop()],
        )
    except InterruptedError:
        return None
    return model.get_weights()


def test_resuming_two_models_ends_bit_for_bit(tmp_path):
    whole = resumable(tmp_path / "whole", 3)
    assert resumable(tmp_path / "torn", 3, stop_at=0) is None
    torn = resumable(tmp_path / "torn", 3)
    for expected, actual in zip(whole, torn, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_a_training_of_before_goes_on(tmp_path):
    """A checkpoint whose names have no model in them leads to the end of an own one.

    Bit for bit on torch, where it was begun, up to rounding of other processors.
    """
    case = REFERENCE / "keras_before_names"
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(case / "step-00000005.safetensors", folder)
    small(name="another")  # so that the numbers of names differ
    outcome = resumed.train(folder)
    if BACKEND != "torch":
        assert outcome["epoch"].tolist() == list(range(resumed.EPOCHS))
        return
    expected = resumed.train(None)
    names = [name for name in expected if name.startswith("model/")]
    for name in names:
        np.testing.assert_allclose(
            outcome[name], expected[name], rtol=1e-3, atol=1e-5, err_msg=name
        )


def test_a_compiled_file_of_before_trains_on():
    """Whose optimizer has rules by paths without the name of the model."""
    case = REFERENCE / "keras_before_names"
    with np.load(case / "expected.npz") as file:
        expected = dict(file)
    small(name="another")
    model = keras.models.load_model(case / "vit.keras")
    pixels = np.random.default_rng(1).uniform(-1, 1, (6, 16, 16, 3)).astype("f4")
    np.testing.assert_allclose(
        model.predict(pixels, verbose=0), expected["vit"], rtol=1e-5, atol=1e-6
    )
    history = model.fit(
        *(pixels, np.arange(6) % 3), batch_size=3, epochs=2, shuffle=False, verbose=0
    )
    np.testing.assert_allclose(history.history["loss"], expected["losses"], rtol=1e-4)


@pytest.mark.one_backend
def test_a_state_tree_fits_whatever_the_model_is_called():
    source, target = small(1, name="a"), small(2, name="b")
    pixels, labels = data()
    for model in (source, target):
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(pixels, labels, shuffle=False, verbose=0)
    tree = source.get_state_tree(value_format="numpy_array")
    bare = {
        "trainable_variables": tree["trainable_variables"]["a"],
        "optimizer_variables": {
            optimizer: {name.removeprefix("a_"): v for name, v in slots.items()}
            for optimizer, slots in tree["optimizer_variables"].items()
        },
    }
    for given in (tree, bare):  # the second as before there were names
        for variable in (*target.weights, *target.optimizer.variables[2:]):
            variable.assign(0 * variable.value)
        given = {
            **given,
            "optimizer_variables": {
                target.optimizer.name: next(iter(given["optimizer_variables"].values()))
            },
        }
        target.set_state_tree(given)
        assert_same_weights(weights(target), weights(source))
        pairs = zip(target.optimizer.variables, source.optimizer.variables, strict=True)
        for ours, theirs in pairs:
            np.testing.assert_array_equal(array(ours), array(theirs))


@pytest.mark.skipif(BACKEND != "torch", reason="others list weights by themselves")
def test_torch_refuses_models_of_one_name(tmp_path):
    small(1, name="same").save(tmp_path / "same.keras")
    pixels, labels = data()
    first, second = (
        keras.Sequential([keras.Input((32, 32, 3)), model])
        for model in [keras_vit.from_pretrained(tmp_path / "same.keras") for _ in "ab"]
    )
    model = average(first, second)
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert model.predict(pixels, verbose=0).shape == (6, 3)
    with pytest.raises(ValueError, match="the name 'same' in common. Give each its own"):
        model.fit(pixels, labels, verbose=0)
    other = keras_vit.from_pretrained(tmp_path / "same.keras", name="other")
    model = average(first, keras.Sequential([keras.Input((32, 32, 3)), other]))
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(pixels, labels, verbose=0)
    # Weights that are new, or trained anew, are listed too.
    training.enable_lora(model, 2)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(pixels, labels, verbose=0)


class Distiller(keras.Model):
    """A teacher and a student of one name, in a model with a step of its own."""

    def __init__(self, teacher, student):
        super().__init__()
        self.student, self.teacher = student, teacher

    def call(self, inputs, training=None):
        wanted = keras.ops.stop_gradient(self.teacher(inputs, training=False))
        return self.student(inputs, training=training) + 0 * wanted


def test_a_student_of_the_teachers_name_is_trained_as_alone():
    pixels, labels = data()
    teacher, student, alone = (small(seed, name="same") for seed in (1, 2, 2))
    teacher.trainable = False
    before = weights(teacher)
    for model in (Distiller(teacher, student), alone):
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        model.fit(pixels, labels, batch_size=3, epochs=2, shuffle=False, verbose=0)
    assert_same_weights(weights(teacher), before)
    for path, value in weights(alone).items():
        np.testing.assert_allclose(weights(student)[path], value, atol=1e-6)
