"""Protocols that judge a representation, against big_vision, scikit-learn and SciPy."""

import sys

import numpy as np
import pytest
from helpers import reference
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keras_vit import evaluation
from keras_vit.evaluation import ProtocolResult, neighbors, probe
from keras_vit.intervals import student_interval, wilson_interval

pytestmark = pytest.mark.one_backend

FOUR = ("train_features", "train_labels", "test_features", "test_labels")


def examples(num_train=60, num_test=40, width=7, classes=4, seed=0, spread=1.5):
    """Features and labels to train with and to test: overlapping clouds, one a class."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(classes, width))
    arrays = []
    for number in (num_train, num_test):
        labels = rng.permutation(np.arange(number) % classes)
        clouds = centers[labels] + spread * rng.normal(size=(number, width))
        arrays += [clouds.astype("float32"), labels]
    return arrays


# Few-shot.


@pytest.fixture(scope="module")
def big_vision():
    return reference("fewshot_big_vision")


def test_few_shot_is_that_of_big_vision(big_vision):
    settings = {name: big_vision[name] for name in ("shots", "l2", "seeds")}
    result = evaluation.few_shot(*(big_vision[name] for name in FOUR), **settings)
    np.testing.assert_array_equal(result.predictions, big_vision["predictions"])
    np.testing.assert_array_equal(result.chosen, big_vision["chosen_indices"])
    np.testing.assert_allclose(result.accuracy, big_vision["accuracy"], atol=1e-6)


@pytest.mark.parametrize("width", [5, 40])  # more examples than features, and fewer
@pytest.mark.parametrize("l2", [1e-4, 1.0, 1024.0])
def test_few_shot_by_the_normal_equations(width, l2):
    train, labels, test, truth = examples(width=width)
    result = evaluation.few_shot(train, labels, test, truth, shots=(5,), l2=l2, seeds=(3,))
    rng = np.random.default_rng(3)
    picked = [rng.permutation(np.flatnonzero(labels == c))[:5] for c in range(4)]
    picked = np.concatenate(picked)
    np.testing.assert_array_equal(result.chosen[0, 0], picked)
    x = train[picked].astype("float64")
    columns = [
        np.hstack([(y - x.mean(0)) / (x.std(0) + 1e-5), np.full((len(y), 1), 100.0)])
        for y in (x, test.astype("float64"))
    ]
    targets = 2 * np.eye(4)[labels[picked]] - 1
    gram = columns[0].T @ columns[0] + l2 * np.eye(width + 1)
    weights = np.linalg.solve(gram, columns[0].T @ targets)
    expected = (columns[1] @ weights).argmax(axis=1)
    np.testing.assert_array_equal(result.predictions[0, 0, 0], expected)
    assert result.accuracy[0, 0, 0] == (expected == truth).mean()


def test_few_shot_refuses_a_class_with_fewer_examples(big_vision):
    arrays = [big_vision[name] for name in FOUR]
    with pytest.raises(ValueError, match=r"class 2 has 4\. Give smaller `shots`"):
        evaluation.few_shot(*arrays, shots=(1, 10), fewer="error")
    with pytest.raises(ValueError, match="class 6 has 0"):
        evaluation.few_shot(*arrays, shots=(1,), num_classes=7, fewer="error")
    assert "class 2 has 4" in str(evaluation.few_shot(*arrays, shots=(1, 10)))
    assert evaluation.few_shot(*arrays, shots=(4,)).accuracy.shape == (1, 1, 1)


def test_few_shot_reads_memory_mapped_features(tmp_path):
    arrays = examples()
    for i in (0, 2):
        np.save(tmp_path / f"{i}.npy", arrays[i])
    mapped = [np.load(tmp_path / f"{i}.npy", mmap_mode="r") for i in (0, 2)]
    result = evaluation.few_shot(mapped[0], arrays[1], mapped[1], arrays[3], shots=(2, 3))
    expected = evaluation.few_shot(*arrays, shots=(2, 3))
    np.testing.assert_array_equal(result.predictions, expected.predictions)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"train_features": np.zeros((60, 6))}, "must have the same width"),
        ({"train_features": np.zeros((60, 7, 1))}, "an array (examples, width)"),
        ({"train_features": np.zeros((60, 7)) + 1j}, "of real numbers"),
        ({"test_features": np.full((40, 7), "1")}, "of real numbers"),
        ({"test_features": np.zeros((40, 0))}, "`test_features` must be an array"),
        ({"train_labels": np.zeros(60)}, "`train_labels` must be a whole number"),
        ({"test_labels": np.zeros(39, int)}, "`test_labels` must be a whole number"),
        ({"train_labels": np.full(60, -1)}, "classes from 0"),
        ({"train_features": np.full((60, 7), np.nan)}, "must be finite"),
        ({"test_features": np.full((40, 7), np.inf)}, "`test_features` must be finite"),
        ({"train_labels": np.full(60, 10**12)}, "below 1,000,000. Received: train_labels"),
        ({"test_labels": np.full(40, 2**63, "uint64")}, "with 9223372036854775808"),
        ({"num_classes": 3}, "num_classes=3 and the label 3"),
        ({"num_classes": 4.0}, "`num_classes` must be positive whole numbers"),
        ({"num_classes": 10**12}, "at most 1,000,000"),
        ({"shots": (0,)}, "`shots` must be positive whole numbers"),
        ({"shots": (2.5,)}, "`shots` must be positive whole numbers"),
        ({"l2": 0}, "`l2` must be positive numbers"),
        ({"l2": ()}, "`l2` must be positive numbers"),
        ({"seeds": ()}, "`seeds` must be"),
        ({"seeds": (0, 0)}, "`seeds` must be"),
        ({"fewer": "some"}, "`fewer` must be one of"),
    ],
)
def test_few_shot_refuses(change, error):
    arguments = {**dict(zip(FOUR, examples(), strict=True)), "shots": (2,), **change}
    with pytest.raises(ValueError) as refused:  # noqa: PT011, the text is compared below
        evaluation.few_shot(**arguments)
    assert error in str(refused.value)


# Nearest neighbours.


@pytest.fixture
def small_blocks(monkeypatch):
    """Searches in several blocks, which a few examples fill."""
    for name in ("_FIRST_ROWS", "_TEST_ROWS", "_VOTING_ROWS"):
        monkeypatch.setattr(neighbors, name, 8)
    monkeypatch.setattr(neighbors, "_TRAIN_ROWS", 32)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("temperature", [0.07, 1.0, None])
def test_nearest_neighbors_are_those_of_scikit_learn(small_blocks, dtype, temperature):
    train, labels, test, truth = examples(num_train=300, num_test=60)
    train, test = train.astype(dtype), test.astype(dtype)
    result = evaluation.nearest_neighbors(
        train, labels, test, truth, k=(1, 10, 20, 75), temperature=temperature
    )
    for k, predictions in zip((1, 10, 20, 75), result.predictions, strict=True):
        vote = "uniform"
        if temperature is not None:
            vote = lambda distance: np.exp((1 - distance) / temperature)  # noqa: E731
        expected = KNeighborsClassifier(k, weights=vote, metric="cosine")
        expected = expected.fit(train, labels).predict(test)
        np.testing.assert_array_equal(predictions, expected)
    np.testing.assert_array_equal(result.accuracy, (result.predictions == truth).mean(-1))


def test_neighbors_are_found_in_any_order(small_blocks):
    """Ever better examples, the worst case of the search, and worse and worse ones."""
    angles = np.linspace(1.5, 0.1, 100)
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")
    test = np.array([[2.0, 0.0], [0.0, 3.0]], "float32")
    similarities, indices = neighbors._search(train, test, 3)
    np.testing.assert_array_equal(indices, [[99, 98, 97], [0, 1, 2]])
    best = np.sin([angles[:3]])[0]
    np.testing.assert_allclose(similarities[1], best, rtol=1e-6)


def test_the_first_of_equals_counts(small_blocks):
    train, labels = np.ones((50, 3), "float32"), np.arange(50) % 7
    test = np.ones((1, 3), "float32")
    for k in (1, 3, 9):  # nine: classes 0 and 1 have two votes
        result = evaluation.nearest_neighbors(train, labels, test, [0], k=k)
        assert result.predictions == [[0]]
    indices = neighbors._search(train, test, 9)[1]
    np.testing.assert_array_equal(indices, [range(9)])


def test_a_low_temperature_does_not_overflow():
    train, labels, test, truth = examples()
    cold = evaluation.nearest_neighbors(train, labels, test, truth, k=10, temperature=1e-4)
    nearest = evaluation.nearest_neighbors(train, labels, test, truth, k=1)
    np.testing.assert_array_equal(cold.predictions, nearest.predictions)


def test_features_that_are_zero_are_like_no_other():
    train = np.array([[0, 0], [1, 0], [-1, 0]], "float32")
    test = np.array([[0, 0], [1, 1], [-1, 1]], "float32")
    result = evaluation.nearest_neighbors(train, [0, 1, 2], test, [0, 1, 2], k=1)
    np.testing.assert_array_equal(result.predictions, [[0, 1, 2]])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_neighbors_do_not_depend_on_the_scale(scale):
    """Squares of these numbers are no float32, which scikit-learn gives wrong votes for."""
    train, labels, test, truth = examples()
    expected = evaluation.nearest_neighbors(train, labels, test, truth)
    scales = np.where(np.arange(60) % 2, np.float32(scale), np.float32(1))[:, None]
    found = evaluation.nearest_neighbors(train * scales, labels, test / scales[:40], truth)
    np.testing.assert_array_equal(found.predictions, expected.predictions)


def test_nearest_neighbors_refuse():
    arrays = examples()
    for change, error in (
        ({"k": 61}, "k=61 and 60 examples"),
        ({"k": 0}, "`k` must be positive whole numbers"),
        ({"temperature": 0}, "`temperature` must be positive numbers"),
        ({"temperature": [0.1, 0.2]}, "`temperature` must be one number"),
    ):
        with pytest.raises(ValueError, match=error):
            evaluation.nearest_neighbors(*arrays, **change)


# Linear probe.


def scikit_learn_probe(l2, standardize=True):
    model = LogisticRegression(C=1 / l2, tol=1e-4, max_iter=1000)
    return make_pipeline(StandardScaler(), model) if standardize else model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("standardize", [True, False])
def test_linear_probe_is_that_of_scikit_learn(monkeypatch, dtype, standardize):
    monkeypatch.setattr(probe, "_ROWS", 16)  # several blocks
    train, labels, test, truth = examples(num_train=200, num_test=100, spread=3)
    train, test = 5 + 3 * train.astype(dtype), 5 + 3 * test.astype(dtype)
    l2 = (0.1, 10.0, 3000.0)
    arguments = {"l2": l2, "seed": 5, "standardize": standardize}
    result = evaluation.linear_probe(train, labels, test, truth, **arguments)

    parts = train_test_split(train, labels, test_size=0.2, stratify=labels, random_state=5)
    fit, held_out, fit_labels, held_out_labels = parts
    models = [scikit_learn_probe(one, standardize).fit(fit, fit_labels) for one in l2]
    accuracies = [model.score(held_out, held_out_labels) for model in models]
    np.testing.assert_array_equal(result.validation.accuracy, accuracies)
    best = max(zip(accuracies, l2, strict=True))[1]
    assert result.chosen == best
    assert result.settings == {"l2": (best,)}
    expected = scikit_learn_probe(best, standardize).fit(train, labels)
    np.testing.assert_array_equal(result.predictions[0], expected.predict(test))
    assert result.accuracy == [expected.score(test, truth)]


def test_linear_probe_with_validation_data():
    """The choice is made on it, and it is among the examples of the last fit."""
    train, labels, held_out, held_out_labels = examples(80, 40, spread=3)
    test, truth = examples(80, 40, seed=1, spread=3)[2:]
    result = evaluation.linear_probe(
        train, labels, test, truth, l2=(1, 50), validation_data=(held_out, held_out_labels)
    )
    models = [scikit_learn_probe(one).fit(train, labels) for one in (1, 50)]
    accuracies = [model.score(held_out, held_out_labels) for model in models]
    np.testing.assert_array_equal(result.validation.accuracy, accuracies)
    features, both = np.concatenate([train, held_out]), np.append(labels, held_out_labels)
    expected = scikit_learn_probe(result.chosen).fit(features, both)
    np.testing.assert_array_equal(result.predictions[0], expected.predict(test))


def test_a_single_l2_is_not_chosen():
    train, labels, test, truth = examples()
    train[:, 0], test[:, 0] = 4.0, 4.0  # a constant feature has no deviation
    labels = np.where(labels == 3, 7, labels)  # and classes may be missing
    result = evaluation.linear_probe(train, labels, test, truth, l2=2)
    expected = scikit_learn_probe(2).fit(train, labels).predict(test)
    np.testing.assert_array_equal(result.predictions, [expected])
    assert (result.chosen, result.validation) == (2, None)


def test_linear_probe_tells_what_to_doubt():
    arrays = examples(spread=3)
    with pytest.warns(ConvergenceWarning):
        result = evaluation.linear_probe(*arrays, l2=(1e-9, 1e-8), max_iterations=2)
    printed = str(result)
    assert (
        f"The chosen l2 is the {'smallest' if result.chosen < 5e-9 else 'largest'}"
        in printed
    )
    assert printed.count("had not converged") == 3
    assert "linear probe, validation" in printed


def test_linear_probe_refuses(monkeypatch):
    train, labels, test, truth = examples()
    arguments = dict(zip(FOUR, (train, labels, test, truth), strict=True))
    lonely = np.where(np.arange(60) == 9, 5, labels)
    for change, error in (
        ({"train_labels": lonely}, "one example of class 5. Give `validation_data`"),
        ({"train_labels": np.zeros(60, int)}, "Received: examples of class 0 alone"),
        ({"validation_split": 0.01}, "validation_split=0.01 (The test_size = 1 should"),
        ({"validation_data": (test[:, :3], truth)}, "(examples, 7), as those to train"),
        ({"validation_data": (test, truth[:3])}, "`labels of validation_data` must be"),
        ({"validation_data": (test, truth, 1)}, "a pair (features, labels)"),
        ({"validation_split": 5}, "validation_split=5.0 ("),
        ({"seed": 1.5}, "`seed` must be"),
        ({"tolerance": -1}, "`tolerance` must be positive"),
        ({"tolerance": (1e-4, 1e-3)}, "`tolerance` must be one number"),
        ({"max_iterations": 1.5}, "`max_iterations` must be positive whole"),
        ({"test_features": test * np.nan}, "`test_features` must be finite"),
    ):
        with pytest.raises(ValueError) as refused:  # noqa: PT011, compared below
            evaluation.linear_probe(**{**arguments, **change})
        assert error in str(refused.value)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-vit\[evaluation\]'"):
        evaluation.linear_probe(*arguments.values())


# ImageNet-ReaL.

RIGHT = [[3], [1, 4], [], [0, 2], [5], [], [2, 2]]


def test_real_accuracy_by_hand():
    # right, right, without a label, wrong, wrong, without a label, right: 3 of 5
    assert evaluation.real_accuracy([3, 4, 0, 1, 3, 5, 2], RIGHT) == 0.6
    scores = np.full((7, 6), 0.1)
    for image, best in enumerate([3, 1, 4, 2, 3, 0, 0]):  # 3 of 5, others than before
        scores[image, best] = 0.2
    assert evaluation.real_accuracy(scores, RIGHT) == 0.6
    scores[6] = [0, 0, 1, 0, 0, 0]
    assert evaluation.real_accuracy(scores, np.array(RIGHT, object)) == 0.8


def test_real_accuracy_refuses():
    for predictions, labels, error in (
        ([1, 2], RIGHT, "and 7 lists"),
        ([0.5] * 7, RIGHT, "type float64"),
        (1, [[1]], "whole numbers"),
        ([1, 2], [[], []], "2 empty lists"),
        ([1, 2], ["1", "2"], "Received: '1'"),
        ([1, 2], [1, 2], "Received: 1"),
        (np.zeros((2, 0)), [[1], [2]], r"shape \(2, 0\)"),
    ):
        with pytest.raises(ValueError, match=error):
            evaluation.real_accuracy(predictions, labels)


# The result.


def test_student_interval():
    for n in (2, 3, 4, 7, 30):
        values = np.random.default_rng(n).normal(size=n)
        for confidence in (0.5, 0.95, 0.999):
            expected = stats.t.interval(confidence, n - 1, values.mean(), stats.sem(values))
            np.testing.assert_allclose(student_interval(values, confidence), expected)
    with pytest.raises(ValueError, match="needs two values"):
        student_interval([0.5])


def result_of(correct, total=10):
    """A result with these numbers of correct predictions, by (seed, k)."""
    correct = np.array(correct)
    predictions = np.where(np.arange(total) < correct[..., None], 1, 0)
    settings = {"seeds": range(len(correct)), "k": (10, 20)}
    return ProtocolResult("test", settings, predictions, np.ones(total, int))


def test_intervals_are_wilsons_of_one_seed_and_students_of_several():
    one, several = result_of([[8, 10]]), result_of([[8, 10], [6, 10], [7, 10]])
    np.testing.assert_array_equal(one.mean_accuracy, [0.8, 1.0])
    expected = [wilson_interval(8, 10), wilson_interval(10, 10)]
    np.testing.assert_allclose(one.interval, expected)
    np.testing.assert_allclose(several.mean_accuracy, [0.7, 1.0])
    half = 4.302652730 * 0.1 / 3**0.5  # t of two degrees of freedom
    expected = [[0.7 - half, 0.7 + half], [1.0, 1.0]]
    np.testing.assert_allclose(several.interval, expected)


def test_a_result_is_a_table_and_json():
    result = result_of([[8, 10], [6, 10], [7, 10]])
    assert str(result).splitlines() == [
        "test; intervals: Student's t over 3 seeds",
        " k  accuracy  95 % interval",
        "10    70.0 %    45.2–94.8 %",
        "20   100.0 %  100.0–100.0 %",
    ]
    first, second = result.summary()["results"]
    assert first["k"] == 10
    assert first["accuracy_by_seed"] == [0.8, 0.6, 0.7]
    assert second["accuracy_low"] == second["accuracy_high"] == 1.0
    assert "Wilson, of 10 test examples" in str(result_of([[8, 10]]))
    assert "accuracy_by_seed" not in result_of([[8, 10]]).rows()[0]


def test_a_result_needs_predictions_of_its_settings():
    with pytest.raises(ValueError, match="seeds first"):
        ProtocolResult("t", {"k": (1, 2)}, np.zeros((3, 5)), np.zeros(5))
    with pytest.raises(ValueError, match="seeds first"):
        ProtocolResult("t", {"k": (1,), "seeds": (0,)}, np.zeros((1, 1, 5)), np.zeros(5))
