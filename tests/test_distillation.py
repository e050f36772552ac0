"""`Distillation` against NumPy, its training and its files."""

import copy

import keras
import numpy as np
import pytest
from by_hand import softmax
from helpers import (
    array,
    assert_close,
    assert_same_weights,
    images,
    randomize,
    tiny,
    weights,
)

import keras_vit
from keras_vit.pretraining import Distillation, DistillationLoss
from keras_vit.training import DeiT, ExactResume, finetune
from keras_vit.weight_paths import HEADS

SMALL = {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "mlp_dim": 32, "classes": 3}
LABELS = np.int32([2, 0, 1, 1])
BATCH = images(batch=4)


def student(**fields):
    keras.utils.set_random_seed(0)
    return tiny(**{**SMALL, "distilled": True, **fields})


def network(activation="softmax", **options):
    """A teacher with batch norm and dropout, whose statistics would move in training."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(4, 8, 8),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation=activation),
        ],
        **options,
    )
    return randomize(model)


def distilling(teacher=None, fields=None, **options):
    return Distillation(student(**(fields or {})), teacher or network(), **options)


def log_softmax(x):
    return np.log(softmax(x.astype("float64")))


def losses_by_hand(model, y, kind, weight, temperature, smoothing):
    """The loss of each image, in float64, from the outputs of the models alone."""
    own = model.student
    heads = [h for h in HEADS if h in {layer.name for layer in own.layers}]
    inputs = [own.get_layer(h).input for h in heads]
    features = keras.tree.flatten(keras.Model(own.input, inputs)(BATCH))
    logits = [
        array(f) @ array(own.get_layer(h).kernel) + array(own.get_layer(h).bias)
        for h, f in zip(heads, features, strict=True)
    ]
    answers = array(model.teacher(BATCH, training=False)).astype("float64")
    labels = np.eye(3)[y] if y.ndim == 1 else y
    labels = labels * (1 - smoothing) + smoothing / 3
    of_labels = -np.sum(labels * log_softmax(logits[0]), axis=1)
    if kind == "hard":
        of_teacher = -log_softmax(logits[-1])[range(4), answers.argmax(1)]
    else:
        p = answers ** (1 / temperature)
        p = p / p.sum(1, keepdims=True)
        q = log_softmax(logits[-1] / temperature)
        of_teacher = temperature**2 * np.sum(p * (np.log(p) - q), axis=1)
    return (1 - weight) * of_labels + weight * of_teacher


@pytest.mark.parametrize("fields", [{}, {"distilled": False}], ids=["two heads", "one"])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_losses_and_metrics_by_hand(kind, fields):
    mixed = np.random.default_rng(0).dirichlet([1, 1, 1], 4).astype("float32")
    model = distilling(fields=fields, kind=kind)
    smooth = {"weight": 0.3, "temperature": 2, "label_smoothing": 0.1}
    smooth = distilling(fields=fields, kind=kind, **smooth)
    counted = np.float32([1, 2, 0, 0.5])
    for each, y, numbers in (
        (model, LABELS[:, None], (0.5 if kind == "hard" else 0.1, 3, 0)),
        (smooth, mixed, (0.3, 2, 0.1)),
    ):
        each.compile()
        options = {"batch_size": 2, "sample_weight": counted, "verbose": 0}
        log = each.evaluate(BATCH, y, **options, return_dict=True)
        flat = y[:, 0] if y.shape == (4, 1) else y
        expected = losses_by_hand(each, flat, kind, *numbers)
        assert log["loss"] == pytest.approx((counted * expected).mean(), rel=1e-5)
        own = array(each.student(BATCH)).argmax(1)
        hits = own == (flat if flat.ndim == 1 else flat.argmax(1))
        same = own == array(each.teacher(BATCH, training=False)).argmax(1)
        assert log["accuracy"] == pytest.approx(np.average(hits, weights=counted))
        assert log["agreement"] == pytest.approx(np.average(same, weights=counted))


def test_soft_loss_is_that_of_keras():
    rng = np.random.default_rng(0)
    logits, teacher = rng.normal(size=(2, 4, 3)).astype("float32")
    # Its default, the name "kl_divergence", compares logits as if they were probabilities.
    theirs = keras.distillation.LogitsDistillation(2.5, keras.losses.KLDivergence())
    ours = DistillationLoss("soft", weight=1, temperature=2.5)
    expected = array(theirs.compute_loss(teacher, logits))
    assert array(ours(LABELS, np.stack([logits, logits, teacher], 1))) == pytest.approx(
        expected, rel=1e-5
    )


def test_fit_trains_the_student_and_nothing_of_the_teacher():
    model = distilling(fields={"rematerialize": True, "dropout_rate": 0.1}, kind="soft")
    model.trainable = False
    model.trainable = True  # of the student alone
    before, teacher = (
        weights(model.student),
        [array(w).copy() for w in model.teacher.weights],
    )
    assert len(model.trainable_variables) == len(before)
    model.compile(keras.optimizers.SGD(0.5))
    model.fit(BATCH, LABELS, epochs=1, verbose=0)
    after = weights(model.student)
    assert not {path for path in before if np.array_equal(before[path], after[path])}
    for old, new in zip(teacher, model.teacher.weights, strict=True):
        np.testing.assert_array_equal(old, array(new), err_msg=new.path)
    np.testing.assert_array_equal(
        model.predict(BATCH, verbose=0), model.student.predict(BATCH, verbose=0)
    )


@pytest.mark.one_backend
def test_a_teacher_makes_a_better_student_where_half_of_the_labels_are_random():
    rng = np.random.default_rng(0)
    colors = rng.uniform(-0.7, 0.7, (256, 3))
    pixels = colors[:, None, None] + rng.normal(0, 0.3, (256, 32, 32, 3))
    pixels, classes = pixels.astype("float32"), colors.argmax(1)
    labels = np.where(rng.uniform(size=64) < 0.5, rng.integers(0, 3, 64), classes[:64])

    def accuracy(weight):
        """The share of new images whose true class is predicted."""
        teacher = lambda x: 10 * keras.ops.mean(x, axis=(1, 2))  # noqa: E731
        model = distilling(teacher, {"distilled": False}, weight=weight)
        model.compile(keras.optimizers.Adam(0.003))
        options = {"batch_size": 16, "shuffle": False, "verbose": 0}
        model.fit(pixels[:64], labels, epochs=12, **options)
        return np.mean(model.predict(pixels[64:], verbose=0).argmax(1) == classes[64:])

    alone, taught = accuracy(0), accuracy(0.7)
    assert taught > alone + 0.1


def test_a_function_teaches_as_in_inference():
    net = network()
    asked = distilling(lambda x: net(x), kind="soft", from_logits=False)
    model = distilling(net, kind="soft")
    outputs = asked(BATCH, training=True)  # the function does not say training=False
    np.testing.assert_array_equal(array(outputs)[:, 2], array(model(BATCH))[:, 2])
    assert len(asked.weights) == len(asked.student.weights)


def test_each_head_learns_from_its_own():
    """Labels for the class token's head, the teacher for the other."""
    for weight, still in ((0, "distillation_head"), (1, "head")):
        model = distilling(weight=weight)
        before = weights(model.student)
        model.compile(keras.optimizers.SGD(0.5))
        model.train_on_batch(BATCH, LABELS)
        after = weights(model.student)
        same = {path for path in before if np.array_equal(before[path], after[path])}
        assert {f"{still}/kernel", f"{still}/bias"} <= same


@pytest.mark.parametrize(
    "fields",
    [
        {"include_preprocessing": True},
        {"image_mean": (0.4, 0.5, 0.6), "image_std": 0.25, "data_format": "channels_first"},
        {"image_size": (48, 16)},
    ],
)
def test_a_teacher_of_this_package_sees_its_own_images(fields):
    teacher = tiny(**{**SMALL, **fields})
    pixels = BATCH * 0.5 + 0.5
    if "image_size" in fields:
        rows, columns = (
            keras_vit.resize.resize_matrix(32, n, "bilinear") for n in (48, 16)
        )
        pixels = np.einsum("ir,brcd,jc->bijd", rows, pixels, columns)
    if "include_preprocessing" in fields:
        theirs = pixels * 255
    else:
        theirs = (pixels - fields.get("image_mean", 0.5)) / fields.get("image_std", 0.5)
    if "data_format" in fields:
        theirs = theirs.transpose(0, 3, 1, 2)
    model = distilling(teacher, kind="soft")
    expected = log_softmax(np.log(array(teacher(theirs.astype("float32")))))
    assert_close(array(model(BATCH))[:, 2], expected)
    # And a student's own images, as it takes them.
    other = Distillation(student(**{k: v for k, v in fields.items() if k != "image_size"}), tiny(**SMALL), kind="soft")  # fmt: skip
    if "image_size" not in fields:
        alone = log_softmax(np.log(array(other.teacher(BATCH))))
        assert_close(array(other(theirs.astype("float32")))[:, 2], alone)


def test_preprocess_makes_the_images_of_another_teacher():
    steps = [keras.layers.Resizing(16, 16), keras.layers.Rescaling(127.5, 127.5)]
    keras.utils.set_random_seed(1)
    net = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, name="logits"),
        ]
    )
    model = distilling(net, preprocess=keras.Sequential(steps), kind="soft")
    smaller = array(keras.ops.image.resize(BATCH, (16, 16))) * 127.5 + 127.5
    assert_close(array(model(BATCH))[:, 2], array(net(smaller)))
    with pytest.raises(
        ValueError, match=r"\(16, 16, 3\). Received: \(32, 32, 3\).*Give `preprocess`"
    ):
        distilling(net)


def test_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = distilling(tiny(**SMALL))
    assert model.student.compute_dtype == "bfloat16"
    outputs = model(BATCH)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    model.compile(keras.optimizers.Adam(0.01))
    log = model.fit(BATCH, LABELS, epochs=4, verbose=0).history
    assert {*log} == {"loss", "accuracy", "agreement"}
    assert log["loss"][-1] < log["loss"][0]


def test_a_resumed_training_ends_with_the_same_bits(tmp_path):
    def trained(folder, epochs):
        model = distilling(fields={"dropout_rate": 0.2, "drop_path_rate": 0.2})
        model.compile(keras.optimizers.Adam(0.01))
        resume = [ExactResume(tmp_path / folder)] if folder else []
        options = {"batch_size": 2, "shuffle": False, "verbose": 0, "callbacks": resume}
        log = model.fit(BATCH, LABELS, epochs=epochs, **options).history
        return weights(model.student), {name: values[-1] for name, values in log.items()}

    trained("resume", 1)
    (resumed, log), (expected, same) = trained("resume", 2), trained(None, 2)
    assert_same_weights(resumed, expected)
    assert log == same


def test_a_recipe_trains_a_student():
    pixels = np.uint8(BATCH * 127 + 128)
    data = keras_vit.data.load(
        {"train": (pixels, LABELS), "validation": (255 - pixels[:3], LABELS[:3])}
    )
    recipe = DeiT.for_examples(4, epochs=3, batch_size=2, image_size=32)
    fields = {"classifier_activation": None, **recipe.model_arguments()}
    model = distilling(fields=fields, label_smoothing=0.1)
    log = finetune(model, data, recipe, evaluations=2, verbose=0).history
    assert {"accuracy", "agreement", "val_agreement"} <= {*log}
    assert model.optimizer.iterations == 6
    assert model.student.get_config()["class_names"] == ("0", "1", "2")
    with pytest.raises(
        ValueError, match="the same loss for the labels.*label_smoothing=0.1"
    ):
        finetune(distilling(fields=fields), data, recipe)


def test_saved_and_loaded_is_the_same(tmp_path):
    model = distilling(tiny(**SMALL), kind="soft", label_smoothing=0.1, name="deit")
    model.student.get_layer("block_0").trainable = False
    model.compile(keras.optimizers.Adam(0.01))
    model.train_on_batch(BATCH, LABELS)
    model.save(tmp_path / "model.keras")
    outputs = array(model(BATCH))
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for other in (loaded, copy.deepcopy(model)):
        assert other.get_config() == model.get_config()
        np.testing.assert_array_equal(array(other(BATCH)), outputs)
        assert [v.trainable for v in other.weights] == [v.trainable for v in model.weights]
    assert loaded.optimizer.iterations == 1
    assert model.train_on_batch(BATCH, LABELS) == loaded.train_on_batch(BATCH, LABELS)
    again = Distillation.from_config(model.get_config())
    again.load_weights(tmp_path / "model.keras")
    np.testing.assert_array_equal(array(again(BATCH)), outputs)


@pytest.mark.one_backend
def test_arguments_that_are_wrong():
    def distill(own=None, teacher=None, **options):
        Distillation(own or student(), teacher or network(), **options)

    for wrong, message in (
        (
            {"own": network()},
            "`student` must be a `VisionTransformer`. Received: Sequential",
        ),
        ({"own": student(classes=0, distilled=False)}, "with classes=0. Build it"),
        ({"own": student(classifier_activation="sigmoid")}, "activation='sigmoid'. Build"),
        ({"teacher": 3}, "must be a model, or a function.*Received: teacher=3"),
        (
            {"teacher": student(classes=4)},
            r"(?s)^`teacher` must give.*\(batch, 3\). Received",
        ),
        ({"teacher": lambda x: x @ None}, "(?s)^`teacher` must answer.*Give `preprocess`"),
        (
            {"teacher": tiny(**SMALL, input_shape=(32, 32, 1))},
            "as many channels.*3 channels",
        ),
        ({"teacher": lambda x: x, "kind": "soft"}, "`from_logits` must say.*True or False"),
        ({"teacher": network("sigmoid"), "kind": "soft"}, "`from_logits` must say"),
        (
            {"kind": "medium"},
            "`kind` must be one of 'hard', 'soft'. Received: kind='medium'",
        ),
        ({"weight": 1.5}, "`weight` must be from 0.*Received: weight=1.5"),
        ({"temperature": 0}, "`temperature` must be above 0. Received: temperature=0"),
        ({"label_smoothing": 1}, r"must be in \[0, 1\). Received: label_smoothing=1"),
    ):
        with pytest.raises(ValueError, match=message):
            distill(**wrong)
    same = student()
    with pytest.raises(ValueError, match="another model than the student"):
        distill(same, same)
    with pytest.raises(ValueError, match="Received: loss, metrics. Compile it with an opt"):
        distilling().compile("sgd", loss="mse", metrics=["accuracy"])
