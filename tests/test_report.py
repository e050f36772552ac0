"""The report: its numbers, and a page that is whole, safe and alone."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

from keras_vit.report import (
    Evaluation,
    wilson_interval,
    write_report,
    write_scores_report,
)
from keras_vit.report.bars import Bar, BarGroup

pytestmark = pytest.mark.one_backend

VOID = {"meta", "img", "rect", "line", "polyline", "circle", "br"}
HISTORY = {
    "loss": [2.0, 1.2, 0.9],
    "val_loss": [1.9, float("nan"), 1.0],
    "accuracy": [0.3, 0.6, 0.7],
    "val_accuracy": [0.4, 0.8, 0.7],
    "learning_rate": [1e-3, 5e-4, 1e-6],
}


def evaluation(classes, examples=60, names=None):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, examples)
    scores = rng.random((examples, classes))
    scores[np.arange(examples), labels] += 0.7
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    return Evaluation(
        labels, probabilities, names or [f"class {i:03}" for i in range(classes)]
    )


class Page(HTMLParser):
    """The text and the tags of a page; fails where a tag is not closed in its place."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self._open = [], "", []
        with open(path, encoding="utf-8") as file:
            self.source = file.read()
        self.feed(self.source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.text += data

    def count(self, tag):
        return sum(name == tag for name, _ in self.tags)


# The numbers.


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [  # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval(correct, total, low, high):
    np.testing.assert_allclose(wilson_interval(correct, total), (low, high), atol=5e-5)
    mirrored = wilson_interval(total - correct, total)
    np.testing.assert_allclose(mirrored, (1 - high, 1 - low), atol=5e-5)


def test_wilson_interval_refuses():
    for wrong in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="0 <= correct <= total"):
            wilson_interval(*wrong)


def test_evaluation_against_scikit_learn():
    result = evaluation(7)
    labels, predictions = result.labels, result.probabilities.argmax(axis=1)
    np.testing.assert_array_equal(result.confusion, confusion_matrix(labels, predictions))
    precision, recall, f1, support = precision_recall_fscore_support(labels, predictions)
    rows = result.by_class()
    np.testing.assert_allclose([row.precision for row in rows], precision)
    np.testing.assert_allclose([row.recall for row in rows], recall)
    np.testing.assert_allclose([row.f1 for row in rows], f1)
    assert [row.examples for row in rows] == list(support)
    assert result.loss == pytest.approx(log_loss(labels, result.probabilities))
    assert result.accuracy == (labels == predictions).mean()
    balanced = balanced_accuracy_score(labels, predictions)
    assert result.balanced_accuracy == pytest.approx(balanced)
    assert result.macro_f1 == pytest.approx(f1_score(labels, predictions, average="macro"))


def test_one_class_of_95_percent():
    """A model that names the larger class always is right 95 times of 100."""
    labels = np.repeat([0, 1], [95, 5])
    result = Evaluation(labels, np.tile([0.9, 0.1], (100, 1)), ["a", "b"])
    assert result.accuracy == 0.95
    assert result.balanced_accuracy == 0.5
    expected = f1_score(labels, np.zeros(100), average="macro", zero_division=0)
    assert result.macro_f1 == pytest.approx(expected)  # 0.487
    summary = result.summary()
    assert (summary["balanced_accuracy"], summary["macro_f1"]) == (0.5, result.macro_f1)
    assert "classes_without_examples" not in summary


def test_means_leave_out_classes_without_examples():
    """Classes that are only predicted count as in scikit-learn's balanced accuracy."""
    labels, predictions = np.array([0, 0, 0, 3, 3]), np.array([0, 0, 1, 3, 2])
    result = Evaluation(labels, np.eye(5)[predictions], list("abcde"))
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = balanced_accuracy_score(labels, predictions)
    assert result.balanced_accuracy == pytest.approx(balanced)
    f1 = f1_score(labels, predictions, labels=[0, 3], average="macro")
    assert result.macro_f1 == pytest.approx(f1)
    assert result.summary()["classes_without_examples"] == ["b", "c", "e"]


def test_the_loss_has_no_bound_that_training_lacks():
    """Keras computes it from logits: a truth that is missed by 40 costs 40."""
    logits = np.array([[40.0, 0.0], [0.0, 0.0]], "float32")
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    result = Evaluation([1, 0], shares, ["a", "b"])
    assert result.loss == pytest.approx((40 + np.log(2)) / 2, rel=1e-6)


def test_evaluation_of_classes_that_do_not_occur():
    result = Evaluation([0, 0, 1], np.eye(4)[[0, 1, 1]], list("abcd"))
    a, b, c, _ = result.by_class()
    assert (a.recall, a.precision, b.recall, b.precision) == (0.5, 1.0, 1.0, 0.5)
    assert (c.recall, c.precision, c.f1) == (None, None, None)
    assert result.confusions(5) == [(0, 1, 1)]
    assert result.top_5_accuracy is None
    assert "top_5_accuracy" not in result.summary()


def test_top_5_and_confident_mistakes():
    probabilities = np.array([[6, 5, 4, 3, 2, 1]] * 3) / 21
    probabilities[2, 0] = 0.9
    result = Evaluation([4, 5, 5], probabilities, list("abcdef"))
    assert result.top_5_accuracy == pytest.approx(1 / 3)
    assert list(result.confident_mistakes(2)) == [2, 0]
    assert result.summary()["correct"] == 0


def test_evaluation_refuses():
    for labels, shape in (([], (0, 2)), ([0], (2, 2)), ([0], (1, 3))):
        with pytest.raises(ValueError, match="An evaluation needs"):
            Evaluation(labels, np.zeros(shape), ["a", "b"])
    with pytest.raises(ValueError, match="from 0 to 1"):
        Evaluation([2], np.zeros((1, 2)), ["a", "b"])


# The page.


@pytest.mark.parametrize("classes", [2, 20, 21, 102, 1000])
def test_a_page_of_any_number_of_classes(classes, tmp_path):
    result = evaluation(classes, examples=4 * classes)
    shown = []

    def images(indices):
        shown.extend(indices)
        sizes = [(20, 30, 3), (300, 400, 3), (40, 40, 1)]
        return [np.full(sizes[i % 3], i % 256, "uint8") for i in indices]

    path = write_report(
        tmp_path / "report",
        result,
        title="Shapes",
        accuracy_name="test accuracy",
        history=HISTORY,
        images=images,
        settings={"Recipe": {"steps": 500}, "Nothing": {}},
        num_mistakes=5,
    )
    page = Page(path)
    assert page.source.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert f"{100 * result.accuracy:.1f} %" in page.text
    assert shown == list(result.confident_mistakes(5))
    assert page.count("img") == len(shown) + (classes > 120)
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    assert page.text.count("class 001") >= 1
    assert "500" in page.text
    # Alone: all that it shows is in it, and nothing is run.
    addresses = [a[key] for _, a in page.tags for key in ("src", "href") if key in a]
    assert all(re.match("data:image/(png|jpeg);base64,|#", a) for a in addresses)
    assert not re.search(r"url\(|@import|https?://|<script|<link", page.source)
    assert len(page.source) < 1_500_000
    assert [file.name for file in (tmp_path / "report").iterdir()] == ["index.html"]


def test_names_are_text(tmp_path):
    evil = "<script>alert(1)</script>\" onerror='x' &amp; \udcff\x00"
    result = Evaluation([0, 1], np.array([[0.1, 0.9], [0.8, 0.2]]), [evil, "b"])
    path = write_report(
        tmp_path,
        result,
        title=evil,
        remark=evil,
        accuracy_name=evil,
        settings={evil: {evil: evil}},
        names=[evil, evil],
        images=lambda indices: [np.zeros((4, 4, 3), "uint8") for _ in indices],
    )
    page = Page(path)
    assert page.count("script") == 0
    assert not any("onerror" in attributes for _, attributes in page.tags)
    shown = evil.replace("\udcff", "\ufffd").replace("\x00", "\ufffd")
    assert page.text.count(shown) >= 8


def test_a_page_of_classes_without_images(tmp_path):
    result = Evaluation([0, 0, 1], np.eye(3)[[0, 1, 1]], ["a", "b", "<c>"])
    page = Page(write_report(tmp_path, result, title="Two of three"))
    assert "balanced accuracy75.0 %" in page.text
    assert "left out of balanced accuracy and macro F1: <c>" in page.text


def test_a_page_with_little_to_tell(tmp_path):
    result = Evaluation([0, 1], np.eye(2), ["a", "b"])
    page = Page(write_report(tmp_path, result, title="All right"))
    assert "100.0 %" in page.text
    assert "Every example is classified correctly." in page.text
    assert "Learning curves" not in page.text
    assert "mistakes" not in page.text
    one = {"loss": [float("nan")], "accuracy": [0.5], "val_accuracy": [0.5]}
    page = Page(
        write_report(
            tmp_path,
            result,
            title="One epoch",
            history=one,
            images=list,
            loss_note="cross-entropy; val_loss includes a label smoothing of 0.1",
        )
    )
    assert "val_loss includes a label smoothing of 0.1" in page.text
    assert "Accuracy" in page.text
    assert "There are none." in page.text


def test_a_chart_of_numbers_of_any_size(tmp_path):
    result = Evaluation([0, 1], np.eye(2), ["a", "b"])
    for values in ([1e-9, 1e-7], [5e5, 1e6], [0.0, 0.0], [3.0] * 200, [-1.0, 1.0]):
        page = Page(write_report(tmp_path, result, title="T", history={"loss": values}))
        numbers = [
            float(y) for y in re.findall(r'<circle cx="[^"]+" cy="([^"]+)"', page.source)
        ]
        assert numbers
        assert all(0 <= y <= 240 for y in numbers)


# Accuracies on several tasks.


def test_bars_are_as_long_as_their_shares(tmp_path):
    """From 156 to 400 units for 0 to 100 %; every text is escaped."""
    groups = [
        BarGroup(
            "first, mean 45.0 %",
            [Bar("a<b", 0.25, 0.2, 0.4), Bar("b", 0.65, 0.5, 0.75)],
            0.45,
        ),
        BarGroup("empty", []),
        BarGroup("last", [Bar("c", 1.0, 0.9, 1.0)]),
    ]
    path = write_scores_report(
        tmp_path,
        groups,
        title="Tasks & more",
        mean="63.3 %",
        mean_name="mean of 3 tasks",
        means={"first": "45.0 %"},
        rows=[("Task", "group", "accuracy"), ("a<b", "first", "25.0 %")],
        remarks=["One is missing."],
        settings={"Settings": {"protocol": "linear"}},
    )
    page = Page(path)
    bars = [tag for name, tag in page.tags if name == "rect" and tag["class"] == "share"]
    assert [(tag["x"], tag["width"]) for tag in bars] == [
        *(("156", "61.0"), ("156", "158.6"), ("156", "244.0"))
    ]
    spreads = [t for name, t in page.tags if name == "line" and t["class"] == "spread"]
    assert [(t["x1"], t["x2"]) for t in spreads] == [
        *(("204.8", "253.6"), ("278.0", "339.0"), ("375.6", "400.0"))
    ]
    means = [t for name, t in page.tags if name == "line" and t["class"] == "marked"]
    assert [t["x1"] for t in means] == ["265.8"]
    for text in ("63.3 %", "a<b", "One is missing.", "linear", "Tasks & more", "65.0 %"):
        assert text in page.text
    assert "empty" not in page.text
    assert "<script" not in page.source
    assert "http" not in page.source
