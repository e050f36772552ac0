"""Folders, files and columns as people have them: what is refused, read and said."""

import csv
import io
import os
import shutil
import struct
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_vit.data import Augmentation, Pipeline, load, load_images, read_image
from keras_vit.data.clutter import is_clutter
from keras_vit.data.split_names import look_like_splits, splits_of
from keras_vit.data.splits import choose_for_split
from keras_vit.runs.images import images_in

pytestmark = pytest.mark.one_backend

PLAIN = Augmentation(crop="resize", flip=False, evaluation_crop="resize")


def noise(seed=0, size=(6, 5, 3)):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def write(root, names):
    """Image files, each of other pixels, of the size 6 × 5."""
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(seed)).save(path)
    return root


def write_csv(root, *rows, name="a.csv"):
    with open(root / name, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return root / name


def tiff(pixels, path=None, photometric=None, extra=None):
    """A TIFF file of any numbers and channels, which Pillow would not write."""
    pixels = np.ascontiguousarray(pixels)
    rows, columns, *bands = pixels.shape
    bands = bands[0] if bands else 1
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags = {
        **{256: [columns], 257: [rows], 258: [8 * pixels.dtype.itemsize] * bands, 259: [1]},
        **{262: [(2 if bands > 2 else 1) if photometric is None else photometric]},
        **{273: [8], 277: [bands], 278: [rows], 279: [pixels.nbytes]},
        **({} if extra is None else {338: extra}),
        **{339: [kind] * bands},
    }
    contents = pixels.tobytes()
    directory, tail = b"", b""
    after = 8 + len(contents) + 2 + 12 * len(tags) + 4
    for tag, values in tags.items():
        data = struct.pack(f"<{len(values)}H", *values)
        if len(data) > 4:
            data, tail = struct.pack("<I", after + len(tail)), tail + data
        directory += struct.pack("<HHI4s", tag, 3, len(values), data)  # numbers of 16 bits
    directory = struct.pack("<H", len(tags)) + directory + bytes(4) + tail
    contents = struct.pack("<2sHI", b"II", 42, 8 + len(contents)) + contents + directory
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    return contents


# Splits by name


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("Training Testing", "train test"),
        ("TRAIN TEST VAL", "train test validation"),
        ("seg_train seg_test", "train test"),
        ("train_set test_set", "train test"),
        ("TrainSet TestSet ValidSet", "train test validation"),
        ("trainset testset devset", "train test validation"),
        ("train2017 val2017", "train validation"),
        ("train-images test-images", "train test"),
        ("imagesTrain imagesTest", "train test"),
        ("training_data development_data", "train validation"),
        ("train val eval", "train validation test"),
        ("train test evaluation", "train test validation"),
        ("train eval", "train -"),
        ("flowers_train flowers_test", "train test"),
        ("trn tst", "train test"),
        ("flowers_train insects_test", "- -"),
        ("racing_train goods_train", "- -"),
        ("trains contest vallhund", "- - -"),
        ("racing_train test_tube train_test", "- - -"),
        ("fold_1 part2 PublicTest", "- - -"),
    ],
)
def test_splits_by_name(names, expected):
    known = splits_of(names.split())
    assert [known.get(name, "-") for name in names.split()] == expected.split()


def test_what_looks_like_splits():
    for name in ("Training", "fold_1", "part2", "PublicTest", "eval", "set 1", "train_val"):
        assert look_like_splits([name]), name
    for name in ("daisy", "racing_train", "1", "images", "sunset", "parttime", ""):
        assert not look_like_splits([name]), name
        assert not look_like_splits(["train", name, "test"]), name
    assert look_like_splits(["trainA", "trainB", "testA", "testB"])
    assert look_like_splits(["roses fold 1", "roses fold 2"])
    assert not look_like_splits(["rose 1", "rose 2"])
    assert not look_like_splits([])


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "Testing"),
        ("TRAIN", "TEST"),
        ("seg_train", "seg_test"),
        ("train_set", "test_set"),
    ],
)
def test_folders_of_splits_of_many_spellings(tmp_path, names):
    train, test = names
    files = [f"{train}/{c}/{i}.png" for c in "ab" for i in range(5)]
    data = load(write(tmp_path, [*files, f"{test}/a/0.png", f"{test}/b/0.png"]))
    assert data.class_names == ("a", "b")
    assert data.num_examples == {"train": 8, "validation": 2, "test": 2}
    assert {Path(name).parts[-3] for name in data.names("test")} == {test}


def test_archives_with_a_folder_twice(tmp_path):
    files = [f"seg_{s}/seg_{s}/{c}/0.png" for s in ("train", "test") for c in "ab"]
    data = load(write(tmp_path, [*files, "seg_train/@eaDir/0.png"]))
    assert data.num_examples == {"train": 2, "test": 2}
    assert data.class_names == ("a", "b")


@pytest.mark.parametrize(
    "names", [("fold_1", "fold_2"), ("part1", "part2"), ("val", "test"), ("eval", "dev")]
)
def test_folders_that_look_like_splits_are_no_classes(tmp_path, names):
    write(tmp_path, [f"{name}/{c}/0.png" for name in names for c in "ab"])
    with pytest.raises(
        ValueError, match=r"look like parts of a data set.*splits=\{'train'"
    ):
        load(tmp_path)
    data = load(tmp_path, splits={"train": names[0], "test": names[1]})
    assert data.num_examples == {"train": 2, "test": 2}
    both = load(tmp_path, splits={"train": list(names)}, validation_split=0.5)
    assert both.num_examples == {"train": 2, "validation": 2}


def test_an_uncertain_split_beside_a_certain_one(tmp_path):
    write(tmp_path, [f"{s}/{c}/0.png" for s in ("train", "eval") for c in "ab"])
    with pytest.raises(
        ValueError, match=r"must be a split.*Received also: 'eval'.*splits="
    ):
        load(tmp_path)
    (tmp_path / "eval").rename(tmp_path / "Holdout")
    with pytest.raises(ValueError, match="Received also: 'Holdout'"):
        load(tmp_path)


def test_train_and_test_of_images_without_classes(tmp_path):
    for names in (("train", "test"), ("trainA", "trainB", "testA", "testB")):
        root = tmp_path / names[0]
        write(root, [f"{name}/0.png" for name in names])
        with pytest.raises(ValueError, match="look like parts of a data set"):
            load(root)
    batches = write(tmp_path / "batches", ["batch 1/0.png", "batch 2/1.png"])
    assert load(batches, validation_split=0).class_names == ("batch 1", "batch 2")


def test_folders_that_hold_the_same_folders_are_told(tmp_path, caplog):
    names = [f"{part}/{c}/0.png" for part in ("Entrenamiento", "Prueba") for c in "ab"]
    load(write(tmp_path / "parts", [*names, "Entrenamiento/c/0.png"]))
    assert "('Entrenamiento', 'Prueba') hold folders of the same names ('a', 'b', 'c')" in (
        caplog.text
    )
    caplog.clear()
    load(write(tmp_path / "kinds", ["cat/tame/0.png", "cat/wild/0.png", "dog/big/0.png"]))
    assert "hold folders" not in caplog.text


def test_names_that_speak_of_splits_hold_the_same_classes(tmp_path):
    for names in (("train_mini", "val"), ("Train - Copy", "Test"), ("train_aug", "test")):
        root = write(tmp_path / names[0], [f"{n}/{c}/0.png" for n in names for c in "ab"])
        with pytest.raises(ValueError, match="seem to be splits"):
            load(root)
    station = [f"{n}/{c}/0.png" for n in ("racing_train", "goods_train") for c in "ab"]
    data = load(write(tmp_path / "trains", station))
    assert data.class_names == ("goods_train", "racing_train")


def test_classes_that_are_called_as_splits_are(tmp_path):
    """Trains are vehicles: the folder itself, named as a split, holds the classes."""
    kinds = [f"{c}/{k}/{i}.png" for c in ("train", "bus") for k in "ab" for i in range(2)]
    with pytest.raises(ValueError, match=r"also: 'bus'.*splits=\{'train': '\.'\}"):
        load(write(tmp_path / "folders", kinds))
    write(tmp_path / "images", [f"{c}/{i}.png" for c in ("train", "test") for i in "0123"])
    with pytest.raises(ValueError, match=r"splits=\{'train': '\.'\}"):
        load(tmp_path / "images")
    for folder, count in (("folders", 8), ("images", 8)):
        data = load(tmp_path / folder, splits={"train": "."}, validation_split=0.25)
        assert data.num_classes == 2
        assert data.num_examples == {"train": count - 2, "validation": 2}
    inside = ["vehicle/train/0.png", "vehicle/train/1.png", "animal/cat/0.png"]
    assert load(write(tmp_path / "inside", inside)).num_classes == 2


def test_a_folder_beside_splits_is_left_out_as_the_message_says(tmp_path):
    files = [f"seg_{s}/seg_{s}/{c}/0.png" for s in ("train", "test") for c in "ab"]
    write(tmp_path, [*files, "seg_pred/seg_pred/0.png"])
    splits = {"test": "seg_test", "train": "seg_train"}
    with pytest.raises(ValueError, match="seg_pred") as error:
        load(tmp_path)
    assert f"splits={splits}" in str(error.value)
    data = load(tmp_path, splits=splits)
    assert data.class_names == ("a", "b")
    assert data.num_examples == {"train": 2, "test": 2}


def test_classes_a_folder_below(tmp_path):
    write(tmp_path, [f"photos/{c}/{i}.png" for c in "ab" for i in range(2)])
    with pytest.raises(ValueError, match=r"holds one folder, 'photos'.*\('a', 'b'\), give"):
        load(tmp_path)
    known = load(tmp_path, class_names=("photos", "other"), validation_split=0)
    assert known.num_examples == {"train": 4}


def test_splits_within_classes(tmp_path):
    write(tmp_path, [f"{c}/{s}/0.png" for c in "ab" for s in ("Train", "Test")])
    with pytest.raises(ValueError, match=r"holds parts of a data set, 'Test', 'Train'"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("Split", ("Train", "TEST", "Val"), {"train": 2, "validation": 2, "test": 2}),
        (
            "subset",
            ("training", "testing", "dev"),
            {"train": 2, "validation": 2, "test": 2},
        ),
        ("usage", ("train_set", "Test_set"), {"train": 2, "test": 2}),
        ("data_split", ("train", "test"), {"train": 2, "test": 2}),
        ("note", ("fine", "bad"), {"train": 4}),
        ("train station", ("one", "two"), {"train": 4}),
    ],
)
def test_columns_of_splits(tmp_path, column, values, expected):
    pairs = [(v, c) for v in values for c in "ab"]
    write(tmp_path, [f"{v}{c}.png" for v, c in pairs])
    rows = [(f"{v}{c}.png", c, v) for v, c in pairs]
    file = write_csv(tmp_path, ("path", "label", column), *rows)
    assert load(file, validation_split=0).num_examples == expected
    alone = load(file, validation_split=0, split_column="none")
    assert alone.num_examples == {"train": len(rows)}


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("fold", "12"),
        ("kFold", "12"),
        ("is_train", "10"),
        ("train", "10"),
        ("Subset", "AB"),
        ("Usage", ("Training", "PublicTest")),
    ],
)
def test_columns_that_do_not_tell_which_split(tmp_path, column, values):
    pairs = [(v, c) for v in values for c in "ab"]
    write(tmp_path, [f"{v}{c}.png" for v, c in pairs])
    rows = [(f"{v}{c}.png", c, v) for v, c in pairs]
    file = write_csv(tmp_path, ("path", "label", column), *rows)
    with pytest.raises(ValueError, match=f"'{column}' must be one.*split_column='none'"):
        load(file)
    splits = {"train": values[0], "test": values[1]}
    data = load(file, split_column=column, splits=splits)
    assert data.num_examples == {"train": 2, "test": 2}
    assert data.labels("test").tolist() == [0, 1]
    data = load(file, split_column=column, splits={"train": list(values)})
    assert data.num_examples == {"train": 4}
    with pytest.raises(ValueError, match=r"Received: 'nope'\. There are"):
        load(file, split_column=column, splits={"train": values[0], "test": "nope"})
    with pytest.raises(ValueError, match="must belong to one split"):
        load(file, split_column=column, splits={"train": list(values), "test": values[1]})


def test_two_columns_of_splits(tmp_path):
    write(tmp_path, ["0.png", "1.png"])
    rows = [("0.png", "a", "train", 1), ("1.png", "b", "train", 2)]
    file = write_csv(tmp_path, ("path", "label", "subset", "fold"), *rows)
    with pytest.raises(ValueError, match="several columns.*'subset', 'fold'"):
        load(file)


def csv_of_two(root, text):
    write(root, [f"img/{i}.png" for i in range(4)])
    rows = [(f"img/{i}.png", "ab"[i % 2]) for i in range(4)]
    body = text.partition("\n")[2]
    lines = [body.format(path=path, label=label) for path, label in rows]
    (root / "a.csv").write_text("\n".join([text.partition("\n")[0], *lines]), "utf-8-sig")
    return root / "a.csv"


@pytest.mark.parametrize(
    "text",
    [
        "path;label\n{path};{label}",
        "path\tlabel\n{path}\t{label}",
        "path, label\n{path}, {label}",
        ",path,label\n7,{path},{label}",
        "path;label;note\n{path} ;{label};1,5",
    ],
)
def test_separators_of_spreadsheets(tmp_path, text):
    file = csv_of_two(tmp_path, text)
    data = load(file, validation_split=0)
    assert data.class_names == ("a", "b")
    assert data.labels("train").tolist() == [0, 1, 0, 1]
    file = file.rename(tmp_path / "a.tsv")
    assert load(file).fingerprint == load(file).fingerprint


def test_rows_and_paths_of_spreadsheets(tmp_path):
    file = csv_of_two(tmp_path, "path,label\n{path},{label}")
    plain = file.read_text("utf-8-sig")
    file.write_text(plain.replace("/", "\\") + "\n,\n,\n", "utf-8")
    assert load(file, validation_split=0).num_examples == {"train": 4}
    file.write_text(f"{plain}\n{'x' * 300}.png,a\n")
    with pytest.raises(FileNotFoundError, match="do not exist.*line 6"):
        load(file)
    file.write_text(
        plain.replace("path,label", "path,label,label").replace(".png,", ".png,c,")
    )
    with pytest.raises(ValueError, match="must have one column 'label'. Received 2"):
        load(file)


# Clutter and other files


def test_clutter_is_neither_a_class_nor_an_image(tmp_path, caplog):
    names = (
        *("@eaDir", "$RECYCLE.BIN", "__MACOSX", ".git", "System Volume Information"),
        *("lost+found", ".ipynb_checkpoints", "#recycle", ".Trash-1000"),
    )
    write(tmp_path, [f"{c}/{i}.png" for c in "ab" for i in range(2)])
    for name in names:
        write(tmp_path, [f"{name}/0.jpg", f"a/{name}/0.jpg"])
    for name in (
        "Thumbs.db",
        "._0.png",
        ".DS_Store",
        "desktop.ini",
        "0.png:Zone.Identifier",
    ):
        (tmp_path / "a" / name).write_text("clutter")
        assert is_clutter(name)
    data = load(tmp_path, validation_split=0)
    assert data.class_names == ("a", "b")
    assert data.num_examples == {"train": 4}
    assert not caplog.records
    images, others = images_in(str(tmp_path))
    assert images == data.names("train")
    assert others == ""
    splits = tmp_path / "splits"
    files = [f"{s}/{c}/0.png" for s in ("train", "test") for c in "ab"]
    write(splits, [*files, "@eaDir/train/0.png", "train/__MACOSX/._0.png"])
    assert load(splits).num_examples == {"train": 2, "test": 2}


def test_links_to_folders_above(tmp_path):
    root = write(tmp_path / "data", [f"{c}/{i}.png" for c in "ab" for i in range(2)])
    write(tmp_path, ["outside.png"])
    for name, target in (("loop", root / "a"), ("up", root), ("out", tmp_path)):
        os.symlink(target, root / "a" / name)
    assert load(root, validation_split=0).num_examples == {"train": 4}
    assert len(images_in(str(root))[0]) == 4


def test_files_that_are_still_loaded_down(tmp_path, caplog):
    write(tmp_path, ["a/0.png", "b/0.png"])
    (tmp_path / "a/1.png.part").write_bytes((tmp_path / "a/0.png").read_bytes()[:-20])
    assert load(tmp_path, validation_split=0).num_examples == {"train": 2}
    assert "1 .part" in caplog.text


def test_every_suffix_of_a_format_that_is_read(tmp_path, caplog):
    formats = {
        "0.jfif": "JPEG",
        "1.JPE": "JPEG",
        "2.jp2": "JPEG2000",
        "3.ppm": "PPM",
        "4.PNG": "PNG",
        "5": "PNG",
        "6.jpg_large": "JPEG",
        "7.dat": "WEBP",
    }
    for i, (name, image_format) in enumerate(formats.items()):
        for label in "ab":
            (tmp_path / label).mkdir(exist_ok=True)
            Image.fromarray(noise(2 * i + (label == "b"))).save(
                tmp_path / label / name, image_format
            )
    data = load(tmp_path, validation_split=0, image_size=5)
    assert data.num_examples == {"train": 2 * len(formats)}
    assert [Path(name).name for name in data.names("train")][: len(formats)] == [*formats]
    np.testing.assert_array_equal(data.images("train", [4])[0], noise(8))
    assert not caplog.records


def test_files_that_are_not_read_are_counted(tmp_path, caplog):
    write(tmp_path, [f"{c}/{i}.png" for c in "ab" for i in range(2)])
    Image.fromarray(noise()).save(tmp_path / "a/picture.tga")
    thumbnail = io.BytesIO()  # the raw file of a camera is a TIFF file of a kind
    Image.fromarray(noise()).save(thumbnail, "TIFF")
    (tmp_path / "b/raw.NEF").write_bytes(thumbnail.getvalue())
    for name in ("a/0.heic", "a/1.HEIC", "a/README", "b/0.json", "b/0.xml", "labels.csv"):
        (tmp_path / name).write_text("BMW is no bitmap")
    os.mkfifo(tmp_path / "a/pipe.png")  # nobody will write to it
    data = load(tmp_path, validation_split=0)
    assert data.num_examples == {"train": 4}
    (message,) = [record.getMessage() for record in caplog.records]
    assert "Left out 9 files" in message
    for part in (
        "2 .heic (pip install pillow-heif reads them)",
        *(
            "1 .tga",
            "1 .nef",
            "1 .json",
            "1 .xml",
            "1 .csv",
            "1 .png",
            "1 without a suffix",
        ),
    ):
        assert part in message
    images, others = images_in(str(tmp_path))
    assert [Path(path).name for path in images] == ["0.png", "1.png"] * 2
    assert "2 .heic" in others


def test_a_plugin_that_reads_a_format_is_used(tmp_path, monkeypatch):
    """A stand-in for `pillow_heif`, which registers its format in the same way."""

    class Plugin(Image.Image):
        def __init__(self, file, name):
            super().__init__()
            contents = Path(name).read_bytes()
            self._mode, self._size, self.format = "RGB", (5, 6), "HEIF"
            self.tile, self.im = [], Image.frombytes("RGB", (5, 6), contents[4:]).im

    monkeypatch.setitem(Image.OPEN, "HEIF", (Plugin, lambda prefix: prefix[:4] == b"heif"))
    monkeypatch.setitem(Image.EXTENSION, ".heic", "HEIF")
    monkeypatch.setattr(Image, "ID", [*Image.ID, "HEIF"])
    for i, name in enumerate(("a/0.heic", "b/0.HEIC")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"heif" + noise(i).tobytes())
    data = load(tmp_path, validation_split=0)
    np.testing.assert_array_equal(data.images("train", [1])[0], noise(1))


# The same image twice


@pytest.mark.parametrize("kind", ["copy", "symlink", "hardlink"])
def test_an_image_in_two_splits(tmp_path, caplog, kind):
    root = tmp_path / "data"
    write(root, [f"train/{c}/{i}.png" for c in "ab" for i in range(3)])
    write(tmp_path, [f"{i}.png" for i in range(9)])
    for label, number in (("a", 7), ("b", 8)):
        (root / f"test/{label}").mkdir(parents=True)
        shutil.copy(tmp_path / f"{number}.png", root / f"test/{label}/0.png")
    source, copy = root / "train/b/1.png", root / "test/b/copy.png"
    {"copy": shutil.copy, "symlink": os.symlink, "hardlink": os.link}[kind](source, copy)
    with pytest.raises(
        ValueError, match=r"1 of 6 images of 'train' are also in 'test'"
    ) as error:
        load(root)
    assert f"{str(source)!r} is {str(copy)!r}" in str(error.value)
    assert "duplicates='drop'" in str(error.value)
    data = load(root, duplicates="drop", validation_split=0)
    assert data.num_examples == {"train": 5, "test": 3}
    assert str(source) not in data.names("train")
    assert "Left out 1 of 6 images of 'train'" in caplog.text
    kept = load(root, duplicates="keep", validation_split=0)
    assert kept.num_examples == {"train": 6, "test": 3}


def test_files_of_one_size_are_no_copies(tmp_path):
    """Also where the start, middle and end agree."""
    for name, place in (("train/a/0", 5000), ("train/b/0", 5001), ("test/a/0", 5002)):
        pixels = np.zeros((100, 200, 3), np.uint8)
        pixels.reshape(-1)[[place, -1, 0, 30_000]] = 255
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / f"{name}.bmp")
    sizes = {path.stat().st_size for path in tmp_path.rglob("*.bmp")}
    assert len(sizes) == 1
    assert load(tmp_path).num_examples == {"train": 2, "test": 1}


def test_rows_twice_stay_in_one_split(tmp_path, caplog):
    """Whatever the seed; recomputed from the paths, links and bytes."""
    write(tmp_path, [f"{i}.png" for i in range(12)])
    os.symlink(tmp_path / "0.png", tmp_path / "link.png")
    shutil.copy(tmp_path / "2.png", tmp_path / "copy.png")
    names = [f"{i}.png" for i in range(12)]
    rows = [(name, "ab"[i % 2]) for i, name in enumerate(names)]
    rows += [("./4.png", "a"), ("link.png", "a"), ("copy.png", "a"), ("1.png", "b")]
    file = write_csv(tmp_path, ("path", "label"), *rows)
    sides = set()
    for seed in range(8):
        data = load(file, validation_split=0.3, test_split=0.2, seed=seed)
        contents = {
            split: {Path(name).read_bytes() for name in data.names(split)}
            for split in data.splits
        }
        assert len(set().union(*contents.values())) == 12
        assert sum(map(len, contents.values())) == 12
        assert sum(data.num_examples.values()) == 16
        sides.add(frozenset(contents["validation"]))
    assert len(sides) > 1
    assert "4 of 16 images are copies of others" in caplog.text
    plain = load(file, validation_split=0.3, duplicates="keep")
    assert sum(plain.num_examples.values()) == 16


def test_groups_are_taken_whole():
    labels = np.array([0] * 10 + [1] * 10)
    alone = choose_for_split(labels, np.arange(20), 0.3, 0, "validation")
    assert alone[:10].sum() == alone[10:].sum() == 3
    groups = np.array([0, 0, 0, 0, 0, 5, 5, 5, 5, 5, *range(10, 19), 0])
    taken = choose_for_split(labels, groups, 0.3, 0, "validation")
    assert taken[5:10].all()  # the smallest that is no more than half
    assert not taken[:5].any()  # with an example of the other class, so it stays
    assert taken[10:19].sum() == 3
    assert not taken[19]
    one = choose_for_split(np.zeros(4, int), np.zeros(4, int), 0.5, 0, "validation")
    assert not one.any()


def test_one_path_with_two_labels(tmp_path, caplog):
    write(tmp_path, [f"{i}.png" for i in range(4)])
    rows = [(f"{i}.png", "ab"[i % 2]) for i in range(4)]
    file = write_csv(tmp_path, ("path", "label"), *rows, ("0.png", "b"))
    with pytest.raises(ValueError, match=r"must have one label.*0\.png"):
        load(file)
    data = load(file, validation_split=0, duplicates="keep")
    assert data.num_examples == {"train": 5}
    shutil.copy(tmp_path / "0.png", tmp_path / "9.png")
    file = write_csv(tmp_path, ("path", "label"), *rows, ("9.png", "b"))
    assert load(file, validation_split=0).num_examples == {"train": 5}
    assert "1 images have several labels" in caplog.text


def test_arrays_with_an_image_twice(caplog):
    images = np.stack([noise(i) for i in range(10)])
    labels = np.arange(10) % 2
    pairs = {"train": (images, labels), "test": (images[4:6], labels[4:6])}
    with pytest.raises(ValueError, match=r"2 of 10 images.*'\[4\]' is '\[0\]'"):
        load(pairs)
    data = load(pairs, duplicates="drop", validation_split=0)
    assert data.names("train") == [f"[{i}]" for i in (0, 1, 2, 3, 6, 7, 8, 9)]
    twice = np.concatenate([images, images])
    for seed in range(4):
        data = load((twice, np.tile(labels, 2)), validation_split=0.4, seed=seed)
        sides = [
            {int(name[1:-1]) % 10 for name in data.names(s)}
            for s in ("train", "validation")
        ]
        assert not sides[0] & sides[1]
    assert "10 of 20 images are copies" in caplog.text


# Values that mean something else


def write_of(root, arrays, suffix="png"):
    """Image files of arrays, in two classes."""
    for i, pixels in enumerate(arrays):
        path = root / "ab"[i % 2] / f"{i}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


def deep_images(white, count=4):
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, white + 1, (count, 6, 5)).astype(np.uint16)
    arrays[:, 0, 0] = white
    return arrays


@pytest.mark.parametrize("suffix", ["png", "tif", "jp2"])
@pytest.mark.parametrize(("bits", "white"), [(12, 4095), (10, 1023), (14, 16383)])
def test_twelve_bits_in_sixteen(tmp_path, bits, white, suffix):
    arrays = deep_images(white)
    options = {}
    for i, pixels in enumerate(arrays):
        path = tmp_path / "ab"[i % 2] / f"{i}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path, **options)
    with pytest.raises(ValueError, match=rf"have {bits} bits.*value_range=\(0, {white}\)"):
        load(tmp_path)
    data = load(tmp_path, validation_split=0, value_range=(0, white), image_size=5)
    expected = np.round(arrays[0] / white * 255).astype(np.uint8)
    actual = data.images("train", [0])[0]
    np.testing.assert_array_equal(actual, np.repeat(expected[..., None], 3, -1))
    path = data.names("train")[0]
    np.testing.assert_array_equal(read_image(path, value_range=(0, white)), actual)
    pipeline = Pipeline(image_size=(6, 5), image_mean=None, image_std=None, alpha="drop")
    pipeline = Pipeline(
        image_size=(6, 5),
        image_mean=None,
        image_std=None,
        augmentation=PLAIN,
        value_range=(0, white),
    )
    np.testing.assert_array_equal(load_images([path], pipeline)[0], actual)
    dark = load(tmp_path, validation_split=0, value_range=(0, 65535))
    assert dark.images("train", [0])[0].max() == round(white / 257)


def test_sixteen_bits_are_read_as_they_are(tmp_path):
    arrays = deep_images(40_000)
    data = load(write_of(tmp_path, arrays), validation_split=0)
    expected = np.round(arrays[2] / 65535 * 255)
    np.testing.assert_array_equal(data.images("train", [1])[0][..., 0], expected)
    changed = data.with_pipeline(value_range=(0, 40_000))
    expected = np.round(arrays[2] / 40_000 * 255)
    np.testing.assert_array_equal(changed.images("train", [1])[0][..., 0], expected)


def test_sixteen_bits_of_which_zero_is_white(tmp_path):
    pixels = deep_images(65535, 1)[0]
    actual = read_image(tiff(pixels, photometric=0), 1)[..., 0]
    np.testing.assert_array_equal(actual, 255 - np.round(pixels / 257))


def test_masks_of_zero_and_one(tmp_path, caplog):
    masks = [noise(i, (6, 5)) % 2 for i in range(4)]
    with pytest.raises(ValueError, match=r"masks.*value_range=\(0, 1\)"):
        load(write_of(tmp_path, masks))
    data = load(tmp_path, validation_split=0, value_range=(0, 1))
    np.testing.assert_array_equal(data.images("train", [1])[0][..., 1], 255 * masks[2])
    as_it_is = load(tmp_path, validation_split=0, value_range=(0, 255))
    np.testing.assert_array_equal(as_it_is.images("train", [1])[0][..., 1], masks[2])
    images = np.stack(masks).astype(np.int64)
    for kind in (np.int64, np.uint8, np.float32):
        with pytest.raises(ValueError, match=r"value_range=\(0, 1\)"):
            load((images.astype(kind), np.arange(4) % 2))
        data = load(
            (images.astype(kind), np.arange(4) % 2),
            validation_split=0,
            value_range=(0, 1),
        )
        np.testing.assert_array_equal(data.images("train", [2])[0][..., 0], 255 * masks[2])
    write_of(tmp_path / "numbered", [m * 9 for m in masks])
    load(tmp_path / "numbered", validation_split=0)
    assert "values up to 9 of 255" in caplog.text


def test_a_few_deep_images_among_many(tmp_path, caplog):
    write(tmp_path, [f"{c}/{i}.png" for c in "ab" for i in range(40)])
    Image.fromarray(deep_images(4095, 1)[0]).save(tmp_path / "a/5x.png")
    with pytest.raises(ValueError, match=r"up to 4095 of 65535 \(1 were checked\)"):
        load(tmp_path)
    load(tmp_path, validation_split=0, value_range=(0, 65535))
    assert "images of 'train' of Pillow's mode 'RGB' are almost black" in caplog.text
    masks = write_of(tmp_path / "masks", [noise(i, (6, 5)) % 2 for i in range(4)])
    Image.fromarray(noise(1, (6, 5))).save(masks / "a/9.png")
    with pytest.raises(ValueError, match="4 of 5 that were checked"):
        load(masks)


def test_arrays_of_twelve_bits():
    images = deep_images(4095)
    with pytest.raises(ValueError, match=r"values from \d+.* to 4095.*value_range"):
        load((images, np.arange(4) % 2))
    data = load((images, np.arange(4) % 2), validation_split=0, value_range=(0, 4095))
    expected = np.round(images[1] / 4095 * 255)
    np.testing.assert_array_equal(data.images("train", [1])[0][..., 0], expected)


@pytest.mark.parametrize(
    ("kind", "value_range"),
    [(np.float32, (-1.5, 2.5)), (np.int32, (-70_000, 90_000)), (np.int16, (-1000, 400))],
)
def test_values_of_which_nothing_tells_the_white(tmp_path, kind, value_range):
    low, high = value_range
    pixels = np.linspace(2 * low, 2 * high, 30).reshape(6, 5).astype(kind)
    for name in ("a/0.tif", "b/0.tif"):
        tiff(pixels, tmp_path / name)
    (tmp_path / "b/0.tif").write_bytes(tiff(pixels[::-1]))
    with pytest.raises(
        ValueError, match=r"2 of 2 images cannot be read(.|\n)*value_range="
    ):
        load(tmp_path)
    data = load(tmp_path, validation_split=0, value_range=value_range)
    shares = (pixels.astype(float) - low) / (high - low)
    expected = np.round(np.clip(shares, 0, 1) * 255)
    np.testing.assert_array_equal(data.images("train", [0])[0][..., 2], expected)


def test_floats_that_are_no_numbers(tmp_path):
    pixels = np.full((3, 3), np.nan, np.float32)
    with pytest.raises(ValueError, match="NaN or infinity"):
        read_image(tiff(pixels), value_range=(0, 1))


@pytest.mark.parametrize("value_range", [(1, 0), (0, 0), (0, float("nan")), 5, ("a", "b")])
def test_value_ranges_that_are_none(value_range):
    with pytest.raises(ValueError, match="`value_range` must be a pair"):
        Pipeline(value_range=value_range)
    with pytest.raises(ValueError, match="`alpha` must be one of"):
        Pipeline(alpha="infrared")


def test_near_infrared_is_no_opacity(tmp_path, caplog):
    pixels = [noise(i, (6, 5, 4)) for i in range(2)]
    for name, part in zip("ab", pixels, strict=True):
        tiff(part, tmp_path / f"unmarked/{name}/0.tif")
        tiff(part, tmp_path / f"unknown/{name}/0.tif", extra=[0])
        tiff(part, tmp_path / f"marked/{name}/0.tif", extra=[2])
    for folder in ("unmarked", "unknown"):
        data = load(tmp_path / folder, validation_split=0)
        for i in range(2):
            actual = data.images("train", [i])[0]
            np.testing.assert_array_equal(actual, pixels[i][..., :3])
        assert "channels beside the colours (up to 1)" in caplog.text
        caplog.clear()
    with pytest.raises(ValueError, match="not look like opacity.*alpha='drop'"):
        load(tmp_path / "marked")
    data = load(tmp_path / "marked", validation_split=0, alpha="drop")
    np.testing.assert_array_equal(data.images("train", [1])[0], pixels[1][..., :3])
    data = load(tmp_path / "marked", validation_split=0, alpha="white")
    share = pixels[1][..., 3:] / 255
    expected = pixels[1][..., :3] * share + 255 * (1 - share)
    assert np.abs(data.images("train", [1])[0] - expected).max() <= 1


def test_images_that_are_transparent_throughout(tmp_path):
    pixels = [noise(i, (6, 5, 4)) for i in range(2)]
    for part in pixels:
        part[..., 3] = 0
    with pytest.raises(ValueError, match="in 2 of 2 .*or is 0 everywhere.*alpha='drop'"):
        load(write_of(tmp_path, pixels))
    data = load(tmp_path, validation_split=0, alpha="drop")
    np.testing.assert_array_equal(data.images("train", [0])[0], pixels[0][..., :3])


def test_near_infrared_in_arrays():
    images = np.stack([noise(i, (6, 5, 4)) for i in range(4)])
    with pytest.raises(ValueError, match="not look like opacity.*alpha='drop'"):
        load((images, [0, 1, 0, 1]))
    data = load((images, [0, 1, 0, 1]), validation_split=0, alpha="drop")
    np.testing.assert_array_equal(data.images("train", [3])[0], images[3, ..., :3])
    images[..., 3] = 255
    load((images, [0, 1, 0, 1]))


def test_alpha_that_is_opacity_is_laid_over_white(tmp_path):
    pixels = [noise(i, (6, 5, 4)) for i in range(2)]
    for part in pixels:
        part[..., 3] = 255
        part[:2, :, 3] = 0
        part[2, 0, 3] = 100
    data = load(write_of(tmp_path, pixels), validation_split=0)
    assert (data.images("train", [0])[0][:2] == 255).all()
    dropped = data.with_pipeline(alpha="drop").images("train", [0])[0]
    np.testing.assert_array_equal(dropped, pixels[0][..., :3])
    stretched = data.with_pipeline(value_range=(50, 150)).images("train", [0])[0]
    expected = np.round(np.clip((pixels[0][3:, :, :3] - 50.0) / 100, 0, 1) * 255)
    np.testing.assert_array_equal(stretched[3:], expected)
    assert (stretched[:2] == 255).all()


def test_further_bands_are_left_out(tmp_path):
    pixels = noise(3, (6, 5, 6))
    actual = read_image(tiff(pixels, extra=[0, 0, 0]))
    np.testing.assert_array_equal(actual, pixels[..., :3])


def test_colours_of_sixteen_bits(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    assert np.abs(read_image(tiff(pixels)) - pixels / 257).max() <= 1
    with pytest.raises(ValueError, match="Pillow reads the upper 8"):
        read_image(tiff(pixels), value_range=(0, 4095))
    for i, name in enumerate("ab"):
        tiff(pixels // 16 + i, tmp_path / f"{name}/0.tif")
    with pytest.raises(
        ValueError, match=r"16 bits for each colour hold values below 4\d\d\d"
    ):
        load(tmp_path)
    dark = load(tmp_path, validation_split=0, value_range=(0, 65535))
    np.testing.assert_array_equal(dark.images("train", [0])[0], pixels // 16 >> 8)


def test_files_shorter_than_their_header_says(tmp_path):
    write(tmp_path, ["a/0.bmp", "b/0.bmp"])
    whole = tiff(noise(5), tmp_path / "a/1.tif")
    assert load(tmp_path, validation_split=0).num_examples == {"train": 3}
    contents = (tmp_path / "b/0.bmp").read_bytes()
    (tmp_path / "b/0.bmp").write_bytes(contents[:-30])
    size = struct.pack("<HHIH", 279, 3, 1, noise(5).nbytes)  # of the strip of pixels
    assert whole.count(size) == 1
    longer = struct.pack("<HHIH", 279, 3, 1, noise(5).nbytes + 5000)
    (tmp_path / "a/1.tif").write_bytes(whole.replace(size, longer))
    with pytest.raises(
        ValueError, match=r"2 of 3 images cannot be read(.|\n)*cut off(.|\n)*cut off"
    ):
        load(tmp_path)


# Names


FORMS = [unicodedata.normalize(form, "rosé") for form in ("NFC", "NFD")]


def test_two_spellings_of_one_class_in_folders(tmp_path):
    assert FORMS[0] != FORMS[1]
    files = [f"{name}/{i}.png" for i, name in enumerate(("daisy", *FORMS, FORMS[1]))]
    data = load(write(tmp_path, files), validation_split=0)
    assert data.class_names == ("daisy", FORMS[0])
    assert data.labels("train").tolist() == [0, 1, 1, 1]
    splits = tmp_path / "splits"
    names = {"train": ("daisy", FORMS[1]), "test": ("daisy", FORMS[0])}
    write(splits, [f"{s}/{name}/0.png" for s, both in names.items() for name in both])
    data = load(splits)
    assert data.class_names == ("daisy", FORMS[0])
    assert data.num_examples == {"train": 2, "test": 2}


def test_two_spellings_of_one_class_in_csv_and_arrays(tmp_path, caplog):
    write(tmp_path, [f"{FORMS[1]}{i}.png" for i in range(4)])
    labels = ["daisy", FORMS[0], FORMS[1], f" {FORMS[0]} "]
    rows = [(f"{FORMS[i % 2]}{i}.png", label) for i, label in enumerate(labels)]
    data = load(write_csv(tmp_path, ("path", "label"), *rows), validation_split=0)
    assert data.class_names == ("daisy", FORMS[0])
    assert data.labels("train").tolist() == [0, 1, 1, 1]
    images = np.stack([noise(i) for i in range(4)])
    arrays = load((images, np.array(labels)), validation_split=0)
    assert arrays.class_names == data.class_names
    assert not caplog.records
    arrays = load((images, ["Cat", "cat", "dog", "dog"]), validation_split=0)
    assert arrays.num_classes == 3
    assert "'Cat' and 'cat'" in caplog.text


def test_names_that_are_not_utf8(tmp_path):
    write(tmp_path, ["a/0.png", "b/0.png", "b/1.png"])
    name = os.fsencode(tmp_path / "a") + b"/caf\xe9.png"
    try:
        shutil.copy(os.fsencode(tmp_path / "b/1.png"), name)
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    with pytest.raises(ValueError, match=r"must be UTF-8. Received 1.*caf\\udce9\.png"):
        load(tmp_path)
    os.remove(name)
    os.rename(tmp_path / "b", os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(ValueError, match=r"must be UTF-8. Received 2.*caf\\udce9"):
        load(tmp_path)


def test_an_image_that_is_a_pipe_or_a_folder_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")  # nobody will write to it
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(ValueError, match=f"{name}.*it is a folder, pipe or device"):
            read_image(tmp_path / name)
