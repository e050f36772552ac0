"""VTAB from a checkpoint to a table: protocols against NumPy and scikit-learn, resuming."""

import io
import json

import numpy as np
import pytest
from helpers import array, tiny
from PIL import Image
from prepared_tfds import serialized, write_prepared
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import keras_vit
from keras_vit.cli import main
from keras_vit.evaluation import vtab
from keras_vit.evaluation.vtab import protocols
from keras_vit.runs import evaluate_vtab, vtab_states
from keras_vit.runs import vtab as runs_vtab
from keras_vit.training import VTAB

one_backend = pytest.mark.one_backend
SIDE = 16  # of the images and of the model, so that nothing is resized
TEST = 60


def images(number, seed, brightness):
    """Noise around a brightness for each image, uint8 (number, SIDE, SIDE, 3)."""
    noise = np.random.default_rng(seed).normal(0, 60, (number, SIDE, SIDE, 3))
    centers = np.array([brightness(k) for k in range(number)])[:, None, None, None]
    return np.clip(centers + noise, 0, 255).astype("uint8")


def encoded(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    file.seek(0)
    return file


def object_of_clevr(depth):
    plain = {"color": 0, "material": 0, "shape": 0, "size": 0, "rotation": 0.0}
    return plain | {"3d_coords": (0.0, 0.0, 0.0), "pixel_coords": (1.0, 2.0, depth)}


# The label of a texture is the brightness of the image; in CLEVR it is darker the more
# objects there are, and the distance is at random.
TEXTURES = images(1000 + TEST, 0, lambda k: 5 * (k % 47))
TEXTURE_LABELS = np.arange(1000 + TEST) % 47
CLEVR = images(1000 + TEST, 1, lambda k: 250 - 30 * (k % 8))
COUNTS = np.arange(1000 + TEST) % 8
DISTANCES = np.random.default_rng(2).integers(0, 6, 1000 + TEST)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The data sets of three tasks: textures, and CLEVR's two."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    info = tfds.builder("dtd", data_dir=folder).info

    def texture(k):
        label = int(TEXTURE_LABELS[k])
        example = {"image": encoded(TEXTURES[k]), "file_name": f"{k}", "label": label}
        return serialized(info.features, example)

    parts = {"train": range(800), "validation": range(800, 1000)}
    parts["test"] = range(1000, 1000 + TEST)
    splits = {split: [[texture(k) for k in part]] for split, part in parts.items()}
    write_prepared(folder, "dtd", info.features, splits, str(info.version))
    clevr = tfds.builder("clevr", data_dir=folder).info

    def scene(k):
        depths = [50.0] * (COUNTS[k] + 2) + [7.75 + 0.5 * DISTANCES[k]]
        example = {"image": encoded(CLEVR[k]), "file_name": f"{k}", "question_answer": []}
        example["objects"] = [object_of_clevr(depth) for depth in depths]
        return serialized(clevr.features, example)

    scenes = [scene(k) for k in range(1000 + TEST)]
    train = scenes[:800] + [scenes[0]] * 1000 + scenes[800:1000]  # 90 % of 2,000: 1,800
    splits = {"train": [train], "validation": [scenes[1000:]], "test": [scenes[:1]]}
    write_prepared(folder, "clevr", clevr.features, splits, str(clevr.version))
    return folder


THREE = ("dtd", "clevr_count", "clevr_distance")
LABELS = dict(zip(THREE, (TEXTURE_LABELS, COUNTS, DISTANCES), strict=True))


@pytest.fixture
def model():
    return tiny(classes=0, image_size=SIDE)


def features_of(model, pixels):
    """Pooled features of all images, from arrays and without `keras_vit.data`."""
    found = [
        array(model(part / np.float32(127.5) - 1))
        for part in np.array_split(pixels.astype("float32"), 8)
    ]
    return np.concatenate(found)


def least_squares(train, labels, test, num_classes):
    """Predictions of ridge regression on whitened features with a bias of 100."""
    mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-5
    x = np.hstack([(train - mean) / scale, np.full((len(train), 1), 100.0)])
    t = np.hstack([(test - mean) / scale, np.full((len(test), 1), 100.0)])
    targets = 2.0 * (labels[:, None] == np.arange(num_classes)) - 1
    weights = np.linalg.solve(x.T @ x + 1024.0 * np.eye(x.shape[1]), x.T @ targets)
    return (t @ weights).argmax(axis=1)


def logistic(train, labels, test, l2):
    scaler = StandardScaler().fit(train)
    fitted = LogisticRegression(C=1 / l2, max_iter=1000).fit(
        scaler.transform(train), labels
    )
    return fitted.predict(scaler.transform(test))


@one_backend
def test_linear_is_chosen_on_the_200_and_fitted_to_the_1000(model, data_dir):
    result = vtab.evaluate(model, ["clevr_count"], data_dir, verbose=0)
    score = result.scores["clevr_count"]
    features = features_of(model, CLEVR)
    tried = {}
    for l2 in (0.01, 1.0, 100.0, 10_000.0):
        found = logistic(features[:800], COUNTS[:800], features[800:1000], l2)
        tried[l2] = (found == COUNTS[800:1000]).mean()
        kept = score.details["validation_accuracy"][f"{l2:g}"]
        assert abs(kept - tried[l2]) <= 0.01
    best = score.details["l2"]
    assert tried[best] >= max(tried.values()) - 0.01
    found = logistic(features[:1000], COUNTS[:1000], features[1000:], best)
    assert abs(score.correct - (found == COUNTS[1000:]).sum()) <= 1


@one_backend
def test_tasks_of_the_same_images_share_their_features(
    model, data_dir, monkeypatch, tmp_path
):
    """Two data sets of three splits each, once; then from the cache, for one task, too."""
    passes = []
    extract = protocols.extract_features

    def counted(*arguments, **options):
        passes.append(options)
        return extract(*arguments, **options)

    predicted = []
    predict = type(model).predict
    monkeypatch.setattr(protocols, "extract_features", counted)
    options = {"protocol": "few-shot", "cache_dir": tmp_path, "verbose": 0}
    first = vtab.evaluate(model, THREE, data_dir, **options)
    assert len(passes) == 6

    def recorded(*arguments, **keywords):
        predicted.append(1)
        return predict(*arguments, **keywords)

    monkeypatch.setattr("keras.Model.predict", recorded)
    second = vtab.evaluate(model, ["clevr_distance"], data_dir, **options)
    assert not predicted
    name = "clevr_distance"
    assert second.scores[name].correct == first.scores[name].correct


# Scores.


def score(correct, examples=100):
    return vtab.TaskScore(correct, examples)


@one_backend
def test_means_count_what_is_there_and_say_so():
    scores = {"dtd": score(50), "pets": score(100), "dmlab": score(7, 10)}
    result = vtab.Scores(
        "linear", scores, {"svhn": "tfds build svhn_cropped"}, {"sun397": "E"}
    )
    natural = result.mean("natural")
    assert (natural.accuracy, natural.tasks, natural.of) == (0.75, 2, 7)
    assert not natural.is_complete
    assert str(natural) == "75.0 % (2 of 7 tasks)"
    assert result.mean("structured").accuracy == 0.7
    assert result.mean("specialized").accuracy is None
    assert str(result.mean("specialized")) == "– (0 of 4 tasks)"
    # Of the tasks, not of the groups: (0.5 + 1 + 0.7) / 3.
    assert result.mean().accuracy == pytest.approx(2.2 / 3)
    text = str(result)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "mean, natural 75.0 % 2 of 7 tasks" in rows
    assert "mean, all 73.3 % 3 of 19 tasks" in rows
    assert "dmlab 70.0 % 39.7–89.2 % 10" in rows  # Wilson's interval of 7 of 10
    assert "missing svhn: tfds build svhn_cropped" in text
    assert "failed sun397: E" in text
    summary = json.loads(json.dumps(result.summary()))
    assert summary["means"]["all"] == {**{"accuracy": 2.2 / 3, "tasks": 3, "of": 19}}
    assert summary["tasks"]["dmlab"]["correct"] == 7


@one_backend
def test_complete_means():
    counts = {name: k for k, name in enumerate(vtab.TASKS)}
    result = vtab.Scores("linear", {name: score(k) for name, k in counts.items()})
    assert result.mean().is_complete
    assert result.mean().accuracy == pytest.approx(0.09)  # 0 to 18 percent
    assert str(result.mean("natural")) == "3.0 %"  # 0 to 6
    assert str(result.mean("specialized")) == "8.5 %"  # 7 to 10
    assert str(result.mean("structured")) == "14.5 %"  # 11 to 18


# From a checkpoint into a folder.


@pytest.fixture
def checkpoint(model, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path)
    return path


@pytest.fixture
def ended_after(monkeypatch):
    """Makes a process end after some tasks, as Ctrl-C does."""

    def ended(number):
        kept = runs_vtab.ScoresFolder.write
        done = []

        def write(folder, task, *arguments):
            kept(folder, task, *arguments)
            done.append(task)
            if len(done) == number:
                raise KeyboardInterrupt

        monkeypatch.setattr(runs_vtab.ScoresFolder, "write", write)
        return done

    return ended


def test_an_evaluation_that_was_killed_is_resumed(
    checkpoint, model, data_dir, tmp_path, ended_after
):
    """Finished tasks are not run again, and the scores are those of least squares."""
    options = {"data_dir": data_dir, "tasks": THREE, "protocol": "few-shot", "verbose": 0}
    done = ended_after(1)
    with pytest.raises(KeyboardInterrupt):
        evaluate_vtab(checkpoint, tmp_path / "out", **options)
    assert done == ["dtd"]
    said = []
    result = evaluate_vtab(checkpoint, tmp_path / "out", say=said.append, **options)
    assert done == list(THREE)  # dtd once
    assert "dtd: finished earlier" in said
    scores = result.scores
    assert (dict(scores.missing), dict(scores.failed)) == ({}, {})
    assert list(scores.scores) == list(THREE)
    for name, pixels in zip(THREE, (TEXTURES, CLEVR, CLEVR), strict=True):
        features = features_of(model, pixels).astype("float64")
        parts = features[:1000], LABELS[name][:1000], features[1000:]
        found = least_squares(*parts, vtab.TASKS[name].num_classes)
        assert scores.scores[name].examples == TEST
        # An example on the border between two classes may fall on either side.
        difference = scores.scores[name].correct - (found == LABELS[name][1000:]).sum()
        assert abs(difference) <= 1
    assert scores.scores["clevr_count"].accuracy > 0.3  # of 8 classes
    assert json.loads(result.results.read_text())["means"]["natural"]["tasks"] == 1
    assert "VTAB-1k" in result.report.read_text("utf-8")


# Two epochs of three steps, each with a checkpoint at its end.
RECIPE = VTAB(
    steps=6, batch_size=250, warmup_steps=1, base_learning_rate=0.05, image_size=SIDE
)


def test_fine_tuning_is_resumed_within_a_task(checkpoint, data_dir, tmp_path, monkeypatch):
    """The accuracy is that of a training by hand, also if it is killed between."""
    options = {"data_dir": data_dir, "tasks": ["clevr_count"], "verbose": 0}
    options |= {"protocol": "finetune", "recipe": RECIPE, "seed": 3}
    data = vtab.load_task(vtab.TASKS["clevr_count"], data_dir, joined=True, seed=3)
    import keras

    keras.utils.set_random_seed(3)
    by_hand = keras_vit.from_pretrained(checkpoint, classes=8, classifier_activation=None)
    keras_vit.training.finetune(by_hand, data, RECIPE, verbose=0)
    logits = features_of(by_hand, CLEVR[1000:])
    expected = (logits.argmax(axis=1) == COUNTS[1000:]).sum()

    batches = []
    resume = keras_vit.training.ExactResume
    end = resume.on_train_batch_end

    def on_train_batch_end(callback, batch, logs=None):
        end(callback, batch, logs)
        batches.append(batch)
        if len(batches) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(resume, "on_train_batch_end", on_train_batch_end)
    with pytest.raises(KeyboardInterrupt):
        evaluate_vtab(checkpoint, tmp_path / "out", **options)
    result = evaluate_vtab(checkpoint, tmp_path / "out", **options)
    assert len(batches) == 4 + 3  # the first epoch is not run again
    assert abs(result.scores.scores["clevr_count"].correct - expected) <= 1
    assert not (tmp_path / "out" / "resume" / "clevr_count").exists()


@one_backend
def test_other_settings_are_refused(checkpoint, data_dir, tmp_path, model):
    options = {"data_dir": data_dir, "tasks": ["dtd"], "verbose": 0}
    evaluate_vtab(checkpoint, tmp_path / "out", protocol="few-shot", **options)
    with pytest.raises(
        ValueError, match="protocol='few-shot' before, protocol='linear' now"
    ):
        evaluate_vtab(checkpoint, tmp_path / "out", **options)
    model.weights[0].assign_add(np.ones(model.weights[0].shape))
    model.save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="of other settings: model='ViT of depth 2"):
        evaluate_vtab(
            tmp_path / "other.keras", tmp_path / "out", protocol="few-shot", **options
        )
    options["overwrite"] = True
    said = []
    evaluate_vtab(checkpoint, tmp_path / "out", say=said.append, **options)
    assert "dtd: finished earlier" not in said
    file = tmp_path / "out" / "dtd.json"
    assert json.loads(file.read_text())["settings"]["protocol"] == "linear"
    options["overwrite"] = False
    for damaged in ("{", "[]", '{"score": {"correct": 1, "examples": 2}, "settings": []}'):
        file.write_text(damaged)
        with pytest.raises(ValueError, match="is damaged.*overwrite=True"):
            evaluate_vtab(checkpoint, tmp_path / "out", **options)


@one_backend
def test_what_is_missing_and_what_fails_is_named(checkpoint, data_dir, tmp_path):
    """A damaged image ends its task alone."""
    import tensorflow_datasets as tfds

    info = tfds.builder("dtd", data_dir=tmp_path).info
    example = {"image": io.BytesIO(b"no image"), "file_name": "x", "label": 1}
    record = serialized(info.features, example)
    splits = {"train": [[record] * 800], "validation": [[record] * 200], "test": [[record]]}
    write_prepared(tmp_path / "tfds", "dtd", info.features, splits, str(info.version))
    (tmp_path / "tfds" / "clevr").symlink_to(data_dir / "clevr")
    options = {"data_dir": tmp_path / "tfds", "protocol": "few-shot", "verbose": 0}
    said = []
    result = evaluate_vtab(checkpoint, tmp_path / "out", say=said.append, **options)
    scores = result.scores
    assert list(scores.scores) == ["clevr_count", "clevr_distance"]
    assert list(scores.failed) == ["dtd"]
    assert "Cannot read the image 'dtd-train.tfrecord" in scores.failed["dtd"]
    assert any("'dtd' has failed" in line for line in said)
    assert len(scores.missing) == 16
    assert (
        scores.missing["pets"] == f"tfds build oxford_iiit_pet --data_dir {tmp_path}/tfds"
    )
    page = result.report.read_text("utf-8")
    assert "2 of 19 tasks" in page
    assert "dtd has failed" in page


@one_backend
def test_arguments_that_are_refused(checkpoint, model, tmp_path):
    with pytest.raises(ValueError, match="'linear', 'few-shot'. Received: protocol='knn'"):
        vtab.evaluate(model, protocol="knn")
    with pytest.raises(ValueError, match="keras_vit.runs.evaluate_vtab"):
        vtab.evaluate(model, protocol="finetune")
    with pytest.raises(ValueError, match="'finetune'. Received: protocol='knn'"):
        evaluate_vtab(checkpoint, tmp_path / "out", protocol="knn")
    with pytest.raises(ValueError, match="`recipe` is for protocol='finetune'"):
        evaluate_vtab(checkpoint, tmp_path / "out", recipe=RECIPE)
    with pytest.raises(ValueError, match="Received: tasks='mnist'"):
        evaluate_vtab(checkpoint, tmp_path / "out", tasks="mnist")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file, and a folder is to be written"):
        evaluate_vtab(checkpoint, tmp_path / "file")


# The command line.


@one_backend
def test_vtab_on_the_command_line(checkpoint, data_dir, tmp_path, capsys):
    folder = tmp_path / "out"
    command = ["vtab", "--model", str(checkpoint), "--data-dir", str(data_dir)]
    command += ["--output", str(folder), "--protocol", "few-shot"]
    assert main([*command, "--dry-run", "--tasks", "dtd", "eurosat", "structured"]) == 0
    printed = capsys.readouterr().out
    assert not folder.exists()
    lines = [line.split() for line in printed.splitlines()]
    assert ["dtd", "natural", "dtd", "ready"] in lines
    assert ["eurosat", "specialized", "eurosat/rgb", "missing"] in lines
    assert printed.count("tfds build dsprites") == 1  # of two tasks
    assert f"tfds build eurosat/rgb --data_dir {data_dir}" in printed
    assert main([*command, "--tasks", "dtd", "pets", "--json"]) == 0
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert summary["tasks"]["dtd"]["examples"] == TEST
    assert list(summary["missing"]) == ["pets"]
    assert main([*command, "--dry-run", "--tasks", "dtd", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "finished"
    assert main([*command, "--tasks", "dtd"]) == 0
    assert "mean, natural" in capsys.readouterr().out
    assert main([*command, "--tasks", "pets"]) == 2  # nothing has a score
    assert main([*command[:-1], "linear", "--tasks", "dtd"]) == 2
    assert "`--overwrite`" in capsys.readouterr().err
    assert main([*command, "--steps", "5"]) == 2
    assert "--steps: for the fine-tuning" in capsys.readouterr().err


@one_backend
def test_states_without_a_folder(data_dir):
    states = {s.task.name: s.state for s in vtab_states(data_dir=data_dir)}
    assert [name for name, state in states.items() if state == "ready"] == list(THREE)
    assert len(states) == 19
