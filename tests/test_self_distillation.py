"""`SelfDistillation` against NumPy, its teacher, its training and its files."""

import copy
import math

import keras
import numpy as np
import pytest
from by_hand import softmax
from helpers import (
    array,
    assert_close,
    assert_same_weights,
    randomize,
    tiny,
    weights,
)

import keras_vit
from keras_vit.pretraining import SelfDistillation
from keras_vit.training import (
    DINOPreTraining,
    ExactResume,
    average_weights,
    exclude_from_weight_decay,
    raise_weight_decay,
)

SMALL = {"hidden_dim": 16, "num_layers": 2, "num_heads": 2, "mlp_dim": 32, "classes": 0}
OWN = {
    **{"steps": 10, "output_dim": 24, "projection_hidden_dim": 20, "bottleneck_dim": 8},
    **{"num_local_views": 3, "local_image_size": 16},
    # Entropies near 0, of lower ones, are badly conditioned.
    **{"initial_teacher_temperature": 0.2, "teacher_temperature": 0.6},
}


def distilling(fields=None, **own):
    """A small model whose every weight is random, also those of the teacher alone."""
    keras.utils.set_random_seed(0)
    model = SelfDistillation(tiny(**{**SMALL, **(fields or {})}), **{**OWN, **own})
    step = model.step.value
    randomize(model, seed=1)
    model.step.assign(step)
    return model


def views_of(model, batch=4, seed=2):
    """Random views in [-1, 1]."""
    rng = np.random.default_rng(seed)
    shapes = {name: (batch, *x.shape[1:]) for name, x in model.symbolic_inputs().items()}
    return {
        name: rng.uniform(-1, 1, shape).astype("float32") for name, shape in shapes.items()
    }


# The formulas.


def projected(features, head):
    """The outputs of a head, in float64."""
    x = np.float64(features)
    for layer in (head.dense_1, head.dense_2, head.bottleneck):
        x = x @ np.float64(array(layer.kernel)) + array(layer.bias)
        if layer is not head.bottleneck:
            x = x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    columns = np.float64(array(head.last_layer.kernel))
    columns = columns / np.linalg.norm(columns, axis=0)
    scale = 1 if head.norm_last_layer else array(head.last_layer.scale)
    return x @ columns * scale


def features_of(encoder, views):
    """Features of each view by a model of its size, whose positions loading has resized."""
    resized = keras_vit.from_pretrained(encoder, image_size=views.shape[2:4])
    return np.stack([array(resized(one)) for one in views.swapaxes(0, 1)], axis=1)


def by_numpy(model, views, temperature):
    """Entropy, KL divergence and cross-entropy of each image, pair by pair."""
    sizes = [views[name] for name in ("global", "local")]
    student = [features_of(model.encoder, one) for one in sizes]
    student = projected(np.concatenate(student, axis=1), model.projection_head)
    teacher = features_of(model.teacher, sizes[0])
    teacher = projected(teacher, model.teacher_projection_head)
    target = softmax((teacher - array(model.center)) / temperature)
    output = softmax(student / 0.1)
    entropy, crosses = -(target * np.log(target)).sum(-1).mean(1), []
    for i in range(2):
        for j in range(student.shape[1]):
            if i != j:
                crosses.append(-(target[:, i] * np.log(output[:, j])).sum(-1))
    assert len(crosses) == 8
    cross = np.mean(crosses, axis=0)
    return entropy, cross - entropy, cross, teacher


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_computes_the_papers_formulas(norm_last_layer):
    model = distilling(norm_last_layer=norm_last_layer, warmup_teacher_temperature_steps=8)
    model.step.assign(2)
    views = views_of(model)
    entropy, divergence, cross, _ = by_numpy(model, views, 0.3)
    before = weights(model)
    outputs = model(views)
    assert_close(outputs["teacher_entropy"], entropy)
    assert_close(outputs["kl_divergence"], divergence)
    assert_close(outputs["loss"], cross.mean())
    assert_same_weights(weights(model), before)  # the centre moves in training alone


def test_the_centre_is_a_moving_average_of_the_teachers_outputs():
    model = distilling(center_momentum=0.8)
    model.compile(keras.optimizers.SGD(0.0))
    expected = np.float64(array(model.center))
    for seed in range(3):
        views = views_of(model, seed=seed)
        *_, teacher = by_numpy(model, views, 0.2)
        model.train_on_batch(views)
        expected = 0.8 * expected + 0.2 * teacher.mean((0, 1))
    assert_close(model.center, expected)


@pytest.mark.one_backend
def test_the_temperature_rises_to_the_teachers():
    default = {"initial_teacher_temperature": 0.04, "teacher_temperature": 0.07}
    assert (
        default.items() <= SelfDistillation(tiny(**SMALL), steps=100).get_config().items()
    )
    model = distilling(steps=100, **default)
    views, found = views_of(model), []
    for step in (0, 5, 10, 50):
        model.step.assign(step)
        found.append(float(array(model(views)["loss"])))
    assert model.warmup_teacher_temperature_steps == 10
    expected = [by_numpy(model, views, t)[2].mean() for t in (0.04, 0.055, 0.07, 0.07)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


KINDS = {
    "class token": {"position_interpolation": "bicubic"},
    "rotary positions and registers": {
        **{"num_registers": 2, "rope": "dinov3", "position": "none"},
        **{"image_size": (32, 48)},
    },
    "learned rotary positions": {"rope": "mixed", "full_last_block": True},
    "positions by column and row": {"position": "learned2d"},
    "mean and its norm": {"pooling": "gap", "class_token": False, "fc_norm": True},
    "attention pooling": {"pooling": "map", "patch_norm": True, "pre_norm": True},
    "two tokens": {"distilled": True, "position": "sincos2d"},
    "positions in raster order": {"position": "sincos", "pooling": "query"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_views_of_another_size_pass_an_encoder_as_one_of_that_size(kind):
    model = distilling(KINDS[kind], local_image_size=(16, 24))
    views = views_of(model)
    student = np.concatenate(
        [features_of(model.encoder, views[name]) for name in ("global", "local")], axis=1
    )
    expected = projected(student, model.projection_head)
    assert_close(model.logits(views)["student"], expected)


@pytest.mark.one_backend
def test_images_with_channels_first_and_pixel_values():
    model = distilling()
    pixels = {
        name: np.random.default_rng(0).integers(0, 256, (2, *x.shape[1:]), "uint8")
        for name, x in model.symbolic_inputs().items()
    }
    scaled = {name: (x / 127.5 - 1).astype("float32") for name, x in pixels.items()}
    expected = model(scaled)["loss"]
    other = distilling({"data_format": "channels_first", "include_preprocessing": True})
    other.set_weights(model.get_weights())
    moved = {name: x.transpose(0, 1, 4, 2, 3) for name, x in pixels.items()}
    assert_close(other(moved)["loss"], expected)


# The teacher.


def momentum(step):
    return 1 - (1 - 0.996) * (1 + math.cos(math.pi * step / 10)) / 2


def student_and_teacher(model):
    """Weights by path, of both."""
    own = {"teacher/": "", "teacher_projection_head/": "projection_head/"}
    found = weights(model)
    teacher = {}
    for before, path in own.items():
        teacher |= {
            path + name.removeprefix(before): found.pop(name)
            for name in [*found]
            if name.startswith(before)
        }
    return {name: found[name] for name in teacher}, teacher


def test_the_teacher_is_the_moving_average_of_the_student():
    model = distilling({"drop_path_rate": 0.2})
    model.compile(keras.optimizers.Adam(0.01))
    _, teacher = student_and_teacher(model)
    expected = {path: np.float64(value) for path, value in teacher.items()}
    for step in range(12):  # from the tenth on it stays
        model.train_on_batch(views_of(model, seed=step))
        student, _ = student_and_teacher(model)
        m = momentum(min(step, 10))
        for path, value in student.items():
            expected[path] = m * expected[path] + (1 - m) * value
    assert int(array(model.step)) == 12
    _, found = student_and_teacher(model)
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-6, atol=3e-7, err_msg=path)
        assert np.abs(value - teacher[path]).max() > 1e-5, path


@pytest.mark.one_backend
def test_the_teacher_moves_once_an_update_of_several_steps():
    model = distilling()
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    for step in range(5):
        before = student_and_teacher(model)
        model.train_on_batch(views_of(model, seed=step))
        after = student_and_teacher(model)
        for one, other in zip(before, after, strict=True):
            same = all(np.array_equal(one[path], other[path]) for path in one)
            assert same == (step % 2 == 0)
    assert int(array(model.step)) == 2


@pytest.mark.one_backend
def test_a_new_teacher_is_a_copy_of_the_encoder():
    encoder = tiny(**SMALL, drop_path_rate=0.1)
    encoder.get_layer("block_0").trainable = False
    model = SelfDistillation(encoder, **OWN)
    assert model.encoder is encoder
    assert model.kept_encoder is model.teacher
    assert_same_weights(weights(model.teacher), weights(encoder))
    student, teacher = student_and_teacher(model)
    assert_same_weights(teacher, student)
    assert len(student) == len(encoder.weights) + 7
    # It is to be trained where it is fine-tuned.
    classifier = keras_vit.from_pretrained(model.teacher, classes=3)
    assert len(classifier.trainable_weights) == len(classifier.weights)


# Training.


def test_gradients_reach_the_student_alone():
    model = distilling({"rematerialize": True})
    model.trainable = False
    model.trainable = True
    model.step.assign(10)  # the teacher's momentum is 1
    before, views = weights(model), views_of(model)
    assert len(model.trainable_variables) == len(student_and_teacher(model)[0])
    model.compile(keras.optimizers.SGD(0.5))
    model.fit(views, np.zeros(4), batch_size=4, verbose=0)
    after = weights(model)
    same = {path for path in before if np.array_equal(before[path], after[path])}
    assert same == {path for path in before if path.startswith("teacher")}


def test_the_last_layer_stays_in_the_first_steps():
    model = distilling(freeze_last_layer_steps=2, norm_last_layer=False)
    model.compile(keras.optimizers.SGD(0.5))
    names = {f"projection_head/last_layer/{name}" for name in ("kernel", "scale")}
    for step in range(3):
        before, _ = student_and_teacher(model)
        model.train_on_batch(views_of(model, seed=step))
        after, _ = student_and_teacher(model)
        same = {path for path in before if np.array_equal(before[path], after[path])}
        assert same == (names if step < 2 else set())


def test_fit_lowers_the_loss_and_logs_what_tells_a_collapse():
    model = distilling(teacher_momentum=0.9)
    model.compile(keras.optimizers.Adam(0.003))
    views = views_of(model, batch=8)
    log = model.fit(views, batch_size=4, epochs=5, shuffle=False, verbose=0).history
    assert {*log} == {"loss", "teacher_entropy", "kl_divergence"}
    assert log["loss"][-1] < log["loss"][0]
    assert_close(
        np.add(log["teacher_entropy"], log["kl_divergence"]), np.array(log["loss"])
    )
    # Where all images have the same output: no divergence.
    for head in (model.projection_head, model.teacher_projection_head):
        head.bottleneck.kernel.assign(head.bottleneck.kernel * 0)
        head.last_layer.kernel.assign(head.last_layer.kernel * 0)
    model.center.assign(np.zeros(24))
    collapsed = model.evaluate(views, verbose=0, return_dict=True)
    assert collapsed["kl_divergence"] == pytest.approx(0, abs=1e-5)
    assert collapsed["teacher_entropy"] == pytest.approx(math.log(24), rel=1e-5)


def test_evaluate_and_predict():
    model = distilling()
    model.compile()
    views, before = views_of(model), weights(model)
    entropy, divergence, cross, _ = by_numpy(model, views, 0.2)
    outputs = model.predict(views, batch_size=3, verbose=0)
    assert {*outputs} == {"teacher_entropy", "kl_divergence"}
    assert_close(outputs["teacher_entropy"], entropy)
    assert_close(outputs["kl_divergence"], divergence)
    log = model.evaluate(views, np.zeros(4), batch_size=2, verbose=0, return_dict=True)
    assert_close(np.array(log["loss"]), cross.mean())
    assert_same_weights(weights(model), before)


def test_the_loss_falls_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = distilling({"rematerialize": True}, teacher_momentum=0.9)
    assert model.encoder.compute_dtype == "bfloat16"
    assert model.projection_head.dense_1.compute_dtype == "bfloat16"
    views = views_of(model)
    for output in (*model.logits(views).values(), *model(views).values()):
        assert keras.backend.standardize_dtype(output.dtype) == "float32"
    assert {w.dtype for w in model.teacher.weights} == {"float32"}
    model.compile(keras.optimizers.Adam(0.003))
    log = model.fit(views, epochs=4, verbose=0).history
    assert log["loss"][-1] < log["loss"][0]
    center = array(model.center)
    assert (center != array(keras.ops.cast(center, "bfloat16"))).any()  # it is not rounded


def test_a_resumed_training_ends_the_same(tmp_path):
    def trained(folder, epochs):
        model = distilling({"drop_path_rate": 0.3}, steps=4)
        optimizer = average_weights(keras.optimizers.AdamW(0.01, clipnorm=3.0), 0.9)
        model.compile(optimizer)
        resume = [ExactResume(tmp_path / folder)] if folder else []
        options = {"batch_size": 2, "shuffle": False, "verbose": 0, "callbacks": resume}
        log = model.fit(views_of(model), epochs=epochs, **options).history
        return weights(model), {name: values[-1] for name, values in log.items()}

    trained("resume", 1)
    (resumed, log), (expected, same) = trained("resume", 2), trained(None, 2)
    assert_same_weights(resumed, expected)
    assert log == same


@pytest.mark.one_backend
def test_weight_decay_is_of_kernels_of_the_student_alone():
    model = distilling(norm_last_layer=False)
    optimizer = exclude_from_weight_decay(keras.optimizers.SGD(0.5, weight_decay=1), model)
    optimizer.build(model.trainable_variables)
    paths = {id(v): path for path, v in zip(weights(model), model.weights, strict=True)}
    decayed = {paths[id(v)] for v in model.trainable_variables if optimizer._use_weight_decay(v)}  # fmt: skip
    assert "projection_head/last_layer/kernel" in decayed
    assert all(path.endswith("/kernel") for path in decayed), decayed


def test_the_papers_weight_decay_rises_by_half_a_cosine():
    """Without gradients a kernel shrinks by the decay alone; also after loading."""
    recipe = DINOPreTraining(
        steps=8, warmup_steps=0, base_learning_rate=0.5, decay="linear", batch_size=4
    )
    model = distilling()
    optimizer = recipe.optimizer(model)
    assert (optimizer.clipnorm, optimizer.global_clipnorm) == (3.0, None)
    kernel = model.projection_head.dense_1.kernel
    expected = np.float64(array(kernel))
    weights_ = model.trainable_weights
    for step in range(10):
        if step == 4:  # as a file does
            again = type(optimizer).from_config(optimizer.get_config())
            again.build(weights_)
            for own, other in zip(again.variables, optimizer.variables, strict=True):
                own.assign(other)
            optimizer = again
        rate = float(recipe.schedule()(step))
        decay = 0.04 + 0.36 * (1 - math.cos(math.pi * min(step / 8, 1))) / 2
        expected = expected * (1 - rate * decay)
        optimizer.apply([keras.ops.zeros(w.shape) for w in weights_], weights_)
        assert_close(kernel, expected)
    assert np.abs(expected).max() < 0.9 * np.abs(array(distilling().projection_head.dense_1.kernel)).max()  # fmt: skip


@pytest.mark.one_backend
def test_the_papers_recipe():
    recipe = DINOPreTraining.for_examples(1_281_167)
    assert recipe == DINOPreTraining()
    assert recipe.steps == pytest.approx(300 * 1_281_167 / 1024, abs=1)
    schedule = recipe.schedule()
    assert float(schedule(recipe.warmup_steps)) == pytest.approx(2e-3)
    assert float(schedule(recipe.steps)) == pytest.approx(1e-6, rel=1e-3)
    assert DINOPreTraining.for_one_machine(1000).batch_size == 64
    with pytest.raises(ValueError, match="one by one or all together"):
        DINOPreTraining(global_clipnorm=1.0)
    with pytest.raises(ValueError, match="Give it one, such as 0.04"):
        raise_weight_decay(keras.optimizers.SGD(0.1), 0.4, 10)


# Keras' files.


def test_saved_and_loaded_is_the_same(tmp_path):
    model = distilling(
        {"drop_path_rate": 0.1},
        freeze_last_layer_steps=3,
        teacher_momentum=0.99,
        name="dino",
    )
    model.encoder.get_layer("block_0").trainable = False
    model.projection_head.dense_1.trainable = False
    model.compile(keras.optimizers.Adam(0.01))
    views = views_of(model)
    model.train_on_batch(views)
    model.save(tmp_path / "model.keras")
    outputs = model(views)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for other in (loaded, copy.deepcopy(model)):
        assert other.get_config() == model.get_config()
        assert_same_weights(weights(other), weights(model))
        for name, output in other(views).items():
            np.testing.assert_array_equal(array(output), array(outputs[name]), err_msg=name)
        assert [v.path for v in other.trainable_weights] == [v.path for v in model.trainable_weights]  # fmt: skip
    assert int(array(loaded.step)) == loaded.optimizer.iterations == 1
    again = SelfDistillation.from_config(model.get_config())
    again.load_weights(tmp_path / "model.keras")
    assert_same_weights(weights(again), weights(model))
    kept = tmp_path / "teacher.keras"
    model.kept_encoder.save(kept)
    teacher = keras_vit.from_pretrained(kept)
    assert_same_weights(weights(teacher), weights(model.teacher))


# Refusals.


@pytest.mark.one_backend
def test_arguments_that_are_wrong():
    for fields, own, message in (
        ({"classes": 3}, {}, "`SelfDistillation` needs an encoder with no head"),
        ({"pooling": None}, {}, "needs an encoder with a pooling"),
        ({"position": "relative"}, {}, "positions that can be resized"),
        ({"dtype": "bfloat16"}, {}, "Use the policy 'mixed_bfloat16'"),
        ({}, {"steps": 0}, "`steps` must be a positive integer"),
        ({}, {"freeze_last_layer_steps": -1}, "must be an integer of 0 or more"),
        ({}, {"student_temperature": 0}, "`student_temperature` must be positive"),
        ({}, {"teacher_momentum": 1.0}, r"must be in \[0, 1\)"),
        ({}, {"local_image_size": 20}, "divisible by the patches"),
    ):
        with pytest.raises(ValueError, match=message):
            distilling(fields, **own)
    model = distilling()
    with pytest.raises(ValueError, match="`SelfDistillation` has its own loss"):
        model.compile("adam", "mse")
    whole = views_of(model)
    for views in (whole["global"], {"global": whole["global"]}, {**whole, "local": whole["local"][:, :2]}):  # fmt: skip
        with pytest.raises(ValueError, match="`views` must be a dictionary of 'global'"):
            model(views)
    encoder = tiny(**SMALL)
    encoder.get_layer("block_0").mlp.dense_1.enable_lora(2)
    with pytest.raises(ValueError, match="such as LoRA's"):
        SelfDistillation(encoder, **OWN)


@pytest.mark.one_backend
@pytest.mark.parametrize(("patch_size", "pixels"), [(32, 96), (16, 96), (14, 98)])
def test_local_views_have_three_sevenths_of_the_pixels(patch_size, pixels):
    fields = {"image_size": 224, "patch_size": patch_size}
    model = distilling(fields, local_image_size=None)
    assert model.local_image_size == (pixels, pixels)
