"""VTAB's tasks: labels, and the examples of each split, against numbers written by hand."""

import io
import shlex

import numpy as np
import pytest
from helpers import tiny
from PIL import Image
from prepared_tfds import serialized, write_prepared

from keras_vit.evaluation.vtab import (
    GROUPS,
    TASKS,
    evaluate,
    load_task,
    prepare_command,
)
from keras_vit.evaluation.vtab.labels import (
    GroupedLabel,
    clevr_count,
    clevr_distance,
    kitti_distance,
)
from keras_vit.evaluation.vtab.tasks import chosen
from keras_vit.presets.bit import _VTAB_CLASSES

pytestmark = pytest.mark.one_backend

# Labels.


def objects(depths, types=(), name="pixel_coords"):
    """Values of an example with an object at each depth."""
    places = np.array([(7.0, -3.0, depth) for depth in depths], "float32").reshape(-1)
    return {
        f"objects/{name}": places,
        "objects/size": np.zeros(len(depths), int),
        "objects/type": np.array(types, int),
    }


@pytest.mark.parametrize(("count", "label"), [(3, 0), (4, 1), (10, 7)])
def test_clevr_count(count, label):
    assert clevr_count(objects([9.0] * count)) == label


@pytest.mark.parametrize("count", [0, 2, 11])
def test_clevr_count_of_other_images(count):
    with pytest.raises(ValueError, match=f"3 to 10 objects. Received: {count}"):
        clevr_count(objects([9.0] * count))


@pytest.mark.parametrize(
    ("depths", "label"),
    [
        # On an edge: the bin below.
        *(([0.01], 0), ([8.0], 0), ([8.001], 1), ([8.5], 1), ([8.51], 2), ([9.0], 2)),
        *(([9.25], 3), ([9.5], 3), ([9.75], 4), ([10.0], 4), ([10.01], 5), ([100.0], 5)),
        # The closest of several, wherever it stands in the list.
        *(([12.0, 8.7, 9.9], 2), ([8.2, 20.0, 9.1], 1), ([11.0, 13.0, 10.5], 5)),
    ],
)
def test_clevr_distance(depths, label):
    assert clevr_distance(objects(depths)) == label


@pytest.mark.parametrize("depth", [0.0, -1.0, 100.5])
def test_clevr_distance_of_other_images(depth):
    with pytest.raises(ValueError, match="above 0 and at most 100. Received: "):
        clevr_distance(objects([9.0, depth] if depth < 9 else [depth]))


@pytest.mark.parametrize(
    ("depths", "types", "label"),
    [
        # Car 0, Van 1, Truck 2; 3 is a pedestrian, 7 anything else.
        *(([7.9], [0], 0), ([8.0], [1], 0), ([8.01], [2], 1), ([20.0], [0], 1)),
        *(([20.01], [0], 2), ([-2.0], [0], 0), ([95.0], [2], 2)),
        # The closest vehicle; who is closer and no vehicle does not count.
        *(([30.0, 12.0, 25.0], [0, 2, 1], 1), ([3.0, 5.0, 22.0], [3, 7, 0], 2)),
        # No vehicle, and no object at all.
        *(([3.0, 9.0], [3, 4], 3), ([], [], 3)),
    ],
)
def test_kitti_distance(depths, types, label):
    assert kitti_distance(objects(depths, types, "location")) == label


def test_groups_of_dsprites():
    """32 positions in pairs; 40 orientations in groups of 3, 2, 3, 2, …"""
    x = GroupedLabel("label_x_position", 32, 16)
    found = [x({"label_x_position": np.array([k])}) for k in range(32)]
    assert found == [k for k in range(16) for _ in range(2)]
    turn = GroupedLabel("label_orientation", 40, 16)
    found = [turn({"label_orientation": np.array([k])}) for k in range(40)]
    assert found[:20] == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 5, 5, 6, 6, 6, 7, 7]
    assert found[20:] == [8 + k for k in found[:20]]


# Rows.


def test_nineteen_tasks_in_three_groups():
    assert len(TASKS) == 19
    counts = [sum(t.group == group for t in TASKS.values()) for group in GROUPS]
    assert counts == [7, 4, 8]


def test_classes_are_those_of_the_files_of_bit():
    """BiT published a model for each task, in the order of the same groups."""
    classes = [task.num_classes for task in TASKS.values()]
    assert classes == list(_VTAB_CLASSES.values())


def test_tasks_are_chosen_by_name_and_group():
    assert [t.name for t in chosen(["specialized", "dtd"])] == [
        *("dtd", "camelyon", "eurosat", "resisc45", "retinopathy")
    ]
    assert [t.name for t in chosen("pets")] == ["pets"]
    assert chosen(None) == tuple(TASKS.values())
    with pytest.raises(
        ValueError, match="'natural'.*'smallnorb_elevation'. Received.*'mnist'"
    ):
        chosen(["dtd", "mnist"])
    with pytest.raises(ValueError, match="one task or more"):
        chosen([])


# (examples of the published data set, where validation and test begin).
PUBLISHED = {
    "caltech101": ({"train": 3059, "test": 6085}, "train[2753:2953]", "test"),
    "cifar100": ({"train": 50_000, "test": 10_000}, "train[45000:45200]", "test"),
    "dtd": (
        dict.fromkeys(("train", "validation", "test"), 1880),
        "validation[0:200]",
        "test",
    ),
    "pets": ({"train": 3680, "test": 3669}, "train[2944:3144]", "test"),
    "svhn": ({"train": 73_257, "test": 26_032}, "train[65931:66131]", "test"),
    "eurosat": ({"train": 27_000}, "train[16200:16400]", "train[21600:]"),
    "resisc45": ({"train": 31_500}, "train[18900:19100]", "train[25200:]"),
    "clevr_count": (
        {"train": 70_000, "validation": 15_000, "test": 15_000},
        *("train[63000:63200]", "validation"),
    ),
    "dsprites_location": ({"train": 737_280}, "train[589824:590024]", "train[663552:]"),
    "smallnorb_azimuth": ({"train": 24_300, "test": 24_300}, "test[0:200]", "test[12150:]"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_splits_of_the_published_data_sets(name):
    examples, validation, test = PUBLISHED[name]
    assert TASKS[name].splits.expressions(examples) == {
        **{"train": "train[:800]", "validation": validation, "test": test}
    }


@pytest.mark.parametrize(
    ("name", "examples", "message"),
    [
        ("cifar100", {"train": 1990, "test": 9}, "200 examples of the split 'train', from"),
        ("pets", {"train": 990, "test": 9}, "200 examples of the split 'train', from"),
        ("eurosat", {"train": 990}, "from number 594 on"),
        ("eurosat", {"train": 1330}, "first 800 examples of the split 'train'"),
        ("dtd", {"train": 799, "validation": 200, "test": 9}, "first 800 examples"),
        ("dtd", {"train": 800, "validation": 199, "test": 9}, "of the split 'validation'"),
        (
            "smallnorb_azimuth",
            {"train": 800, "test": 399},
            "200 examples of the split 'test'",
        ),
        (
            "kitti_distance",
            {"train": 800, "test": 9},
            "'train', 'test'.*split='validation'",
        ),
    ],
)
def test_data_sets_that_are_too_small(name, examples, message):
    with pytest.raises(ValueError, match=message):
        TASKS[name].splits.expressions(examples)


# Data sets of each name, with the features of TensorFlow Datasets, on the disk.

# Examples of each split, hardly more than VTAB takes, and by hand: the split and number of
# the first validation and the first test example.
OWN = ({"train": 801, "validation": 201, "test": 33}, ("validation", 0), ("test", 0))
LOCAL = {
    "caltech101": ({"train": 2000, "test": 33}, ("train", 1800), ("test", 0)),
    "cifar100": ({"train": 2003, "test": 33}, ("train", 1802), ("test", 0)),
    "oxford_iiit_pet": ({"train": 1000, "test": 33}, ("train", 800), ("test", 0)),
    "svhn_cropped": ({"train": 2000, "test": 33}, ("train", 1800), ("test", 0)),
    "eurosat/rgb": ({"train": 1400}, ("train", 840), ("train", 1120)),
    "resisc45": ({"train": 1334}, ("train", 800), ("train", 1067)),
    "clevr": (
        {"train": 2000, "validation": 33, "test": 5},
        *(("train", 1800), ("validation", 0)),
    ),
    "dsprites": ({"train": 2010}, ("train", 1608), ("train", 1809)),
    "smallnorb": ({"train": 800, "test": 411}, ("test", 0), ("test", 205)),
}
CYCLE = 37  # the example `number` is the same as `number % CYCLE`
# The labels of these examples; of the other tasks the example's number.
LABELS = {
    "dsprites_location": [k % 32 // 2 for k in range(CYCLE)],
    "dsprites_orientation": [int(k / 2.5) for k in range(CYCLE)],
}


def value(name, feature, k):
    """The value of a feature in the example `k`."""
    import tensorflow_datasets as tfds

    if name == "objects":
        return objects_of(feature, k)
    if isinstance(feature, tfds.features.Image):
        height, width, channels = (side or 20 for side in feature.shape)
        pixels = np.full((height, width, channels), k % 2, np.uint8)
        encoded = io.BytesIO()
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        image.save(encoded, feature._image_encoder.encoding_format or "PNG")
        encoded.seek(0)
        return encoded
    if isinstance(feature, tfds.features.ClassLabel):
        return k % feature.num_classes
    if isinstance(feature, tfds.features.BBoxFeature):
        return tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
    if isinstance(feature, tfds.features.Text):
        return str(k)
    if isinstance(feature, tfds.features.Sequence):
        return []
    return np.zeros(feature.shape, feature.np_dtype)


def objects_of(feature, k):
    """Objects of CLEVR: 3 to 10, the last one closest. Of KITTI: a pedestrian, then a car,
    van or truck except in each fourth example."""
    if "pixel_coords" in feature.feature:
        depths = [30.0] * (k % 8 + 2) + [7.75 + 0.5 * (k % 6)]
        own = [{"pixel_coords": (1.0, 2.0, depth)} for depth in depths]
    else:
        own = [{"location": (1.0, 2.0, 1.0), "type": 3}]
        vehicles = [(5.0, 0), (12.0, 1), (40.0, 2)]
        own += [{"location": (1.0, 2.0, z), "type": t} for z, t in vehicles[k % 4 :][:1]]
    plain = {name: value(name, part, k) for name, part in feature.feature.items()}
    return [plain | one for one in own]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder with the sixteen data sets."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    for name in {task.data_set for task in TASKS.values()}:
        info = tfds.builder(name, data_dir=folder).info
        cycle = []
        for k in range(CYCLE):
            example = {key: value(key, part, k) for key, part in info.features.items()}
            cycle.append(serialized(info.features, example))
        counts, *_ = LOCAL.get(name, OWN)
        splits = {
            split: [[cycle[i % CYCLE] for i in range(n)]] for split, n in counts.items()
        }
        write_prepared(folder, name, info.features, splits, str(info.version))
    return folder


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_its_examples_and_labels(data_dir, name):
    task = TASKS[name]
    counts, (validation, start), (test, test_start) = LOCAL.get(task.data_set, OWN)
    numbers = {
        "train": [("train", i) for i in range(800)],
        "validation": [(validation, start + i) for i in range(200)],
        "test": [(test, i) for i in range(test_start, counts[test])],
    }
    data = load_task(task, data_dir)
    assert data.num_classes == task.num_classes
    assert set(data.splits) == set(numbers)
    own = LABELS.get(name, [k % task.num_classes for k in range(CYCLE)])
    base = task.data_set.split("/")[0]
    for split, expected in numbers.items():
        names = [f"{base}-{s}.tfrecord-00000-of-00001__{i}" for s, i in expected]
        assert data.names(split) == names
        assert data.labels(split).tolist() == [own[i % CYCLE] for _, i in expected]
    both = load_task(task, data_dir, joined=True)
    assert set(both.splits) == {"train", "test"}
    assert both.names("train") == data.names("train") + data.names("validation")
    assert both.names("test") == data.names("test")
    image = data.images("test", [1])[0]
    bright = (test_start + 1) % CYCLE % 2 * (255 if base == "dsprites" else 1)
    assert image.shape[-1] == 3
    assert image.min() == image.max() == bright


# Of small images, from each group: all nineteen take a minute.
@pytest.mark.parametrize("name", ["svhn", "eurosat", "dsprites_location"])
def test_a_task_is_scored(data_dir, name):
    """From the data set on the disk to the accuracy."""
    model = tiny(image_size=8, num_layers=1, classes=0)
    scores = evaluate(model, [name], data_dir, protocol="few-shot", verbose=0)
    counts, _, (test, start) = LOCAL[TASKS[name].data_set]
    assert scores.scores[name].examples == counts[test] - start


def test_tasks_of_the_same_images_are_different_data(data_dir):
    prints = {load_task(task, data_dir).fingerprint for task in TASKS.values()}
    assert len(prints) == 19


def test_a_fourth_channel_is_left_out(data_dir, tmp_path):
    """As TensorFlow Datasets decodes the files of CLEVR, which have one."""
    import tensorflow_datasets as tfds

    features = tfds.builder("clevr", data_dir=data_dir).info.features
    example = {key: value(key, part, 0) for key, part in features.items()}
    image = io.BytesIO()
    Image.fromarray(np.full((8, 8, 4), 40, np.uint8)).save(image, "PNG")
    image.seek(0)
    record = serialized(features, example | {"image": image})
    splits = {"train": [[record] * 2000], "validation": [[record]]}
    write_prepared(tmp_path, "clevr", features, splits)
    data = load_task(TASKS["clevr_count"], tmp_path)
    assert (data.images("test", [0])[0] == 40).all()


def test_data_that_is_not_there(tmp_path, monkeypatch):
    """The command that prepares it is named; nothing is asked of the network."""
    import tensorflow_datasets as tfds

    def no_network(*arguments, **options):
        pytest.fail("the network is asked")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", no_network)
    folder = tmp_path / "my data"
    command = f"tfds build eurosat/rgb --data_dir '{folder}'"
    assert prepare_command(TASKS["eurosat"], folder) == command
    assert shlex.split(command)[-1] == str(folder)
    with pytest.raises(
        FileNotFoundError, match="'eurosat/rgb' of VTAB's task 'eurosat'"
    ) as e:
        load_task(TASKS["eurosat"], folder)
    assert command in str(e.value)
    assert prepare_command(TASKS["pets"]) == "tfds build oxford_iiit_pet"


def test_another_data_set_of_the_same_name(tmp_path):
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=46)}
    )
    record = serialized(features, {"image": np.zeros((4, 4, 3), np.uint8), "label": 1})
    splits = {name: [[record] * n] for name, n in OWN[0].items()}
    write_prepared(tmp_path, "dtd", features, splits)
    with pytest.raises(
        ValueError, match="'dtd' has 47 classes. Received: dtd/1.2.3 with 46"
    ):
        load_task(TASKS["dtd"], tmp_path)
