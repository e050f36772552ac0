"""Images by formula: bytes, formulas against independent values, labels, streams."""

import hashlib

import numpy as np
import pytest

from keras_vit.data import Augmentation, formula_images, load
from keras_vit.data.formula import KINDS, canvas, fractals, outlines
from keras_vit.data.formula.draws import Draws
from keras_vit.data.formula.kinds import draw

pytestmark = pytest.mark.one_backend

PLAIN = Augmentation(crop="resize", flip=False, evaluation_crop="resize")
AS_IT_IS = {"image_mean": None, "image_std": None, "augmentation": PLAIN}
# SHA-256, its start, of images 0 to 3 of class 1 at 48 pixels. Released images stay.
DIGESTS = {
    "fractals": "a4cbe6b23a0f9b50",
    "julia": "d954801418e0a7cd",
    "contours": "f8a1a2eef87c1db0",
    "shapes": "522bb6134b277ad9",
    "strokes": "8042a475032b4f9a",
    "noise": "7416fdcf961a7bae",
    "gratings": "548cb9b85641efe1",
    "leaves": "f125b2b32184cc9e",
}


def images(kind, numbers, size=48, seed=5):
    return np.stack([draw(kind, seed, 1, number, size) for number in numbers])


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_the_same_bytes_everywhere(kind):
    digest = hashlib.sha256(images(kind, range(4)).tobytes()).hexdigest()
    assert digest[:16] == DIGESTS[kind]


def test_no_rounding_hangs_on_the_last_bits_of_a_library():
    sines = np.sin(np.arange(4096) * (2 * np.pi / 4096)) * 2**14
    assert np.abs(np.abs(sines % 1) - 0.5).min() > 1e-9
    # Products of matrices are exact: whole numbers give the same.
    spectrum = canvas.amplitudes(32, 0)
    found = canvas.noise(Draws(1, 2, 3), 32, spectrum)
    waves = canvas._waves(32)
    values = Draws(1, 2, 3).normals(*spectrum.shape) * spectrum
    exact = waves.astype("int64") @ values.astype("int64") @ waves.T.astype("int64")
    assert np.abs(exact).max() < 2**53
    heights = exact >> 28
    expected = np.floor(heights * (128 * 32 / np.sqrt(float((heights**2).sum()))))
    np.testing.assert_array_equal(found, expected)
    maps = fractals.system(Draws(0, 0, 0)) * 2**12
    np.testing.assert_array_equal(maps, np.rint(maps))
    points = fractals.attractor(maps / 2**12) * 2**20
    np.testing.assert_array_equal(points, np.rint(points))


def test_draws_are_numbers_of_their_own_for_seed_stream_and_number():
    found = {Draws(*key).below(2**32) for key in np.ndindex(4, 4, 4)}
    assert len(found) == 64
    draws = Draws(7, 0, 0)
    counts = np.bincount([draws.within(2, 5) for _ in range(4000)], minlength=7)
    assert counts[[0, 1, 6]].sum() == 0
    assert counts[2:6].min() > 880
    normals = draws.normals(101, 99)
    assert abs(normals.mean()) < 4
    assert normals.std() == pytest.approx(256 / np.sqrt(3), rel=0.02)  # of four bytes
    reals = draws.reals(-1, 3, 10_000)
    assert reals.min() >= -1
    assert reals.max() < 3
    assert abs(reals.mean() - 1) < 0.05


# The formulas.


def test_noise_has_the_spectrum_of_its_slope():
    for slope in (0, 4, 8):
        spectrum = canvas.amplitudes(64, slope)
        drawn = [canvas.noise(Draws(0, 0, i), 64, spectrum) for i in range(40)]
        power = np.mean([np.abs(np.fft.fft2(one)) ** 2 for one in drawn], axis=0)
        rows, columns = np.meshgrid(*[np.fft.fftfreq(64, 1 / 64)] * 2, indexing="ij")
        distance = np.hypot(rows, columns)
        kept = (distance >= 2) & (distance <= 16)
        line = np.polyfit(np.log(distance[kept]), np.log(power[kept]), 1)
        assert line[0] == pytest.approx(-slope / 2, abs=0.15)  # power, by octave


def test_attractor_of_the_sierpinski_triangle():
    maps = np.zeros((3, 2, 3))
    maps[:, 0, 0] = maps[:, 1, 1] = 0.5
    maps[:, :, 2] = [[0, 0], [0, 0.5], [0.5, 0]]
    cells = np.floor(fractals.attractor(maps) * 2**6).astype(int)
    assert len(np.unique(cells, axis=1).T) == 3**6
    assert not (cells[0] & cells[1]).any()  # Pascal's triangle, modulo 2


def test_julia_set_of_zero_is_the_unit_disc():
    places = np.linspace(-1.5, 1.5, 101, dtype="float32")
    x, y = np.meshgrid(places, places)
    count = fractals._escape(x, y, np.float32(0), np.float32(0))
    distance = np.hypot(x, y)
    assert (count[distance < 0.99] == 24).all()
    assert (count[distance > 1.01] < 24).all()


@pytest.mark.parametrize("corners", [3, 4, 7])
def test_filled_outlines_have_the_area_of_their_polygon(corners):
    curve = outlines.moved(outlines.ring(corners), 64, 300, 0.7, 0.2, np.array([0.1, 0]))
    (y, x), (b, a) = curve.T, np.roll(curve, -1, axis=0).T
    area = abs((x * b - a * y).sum()) / 2  # the shoelace formula
    for polygon in (curve, curve[::-1]):
        assert outlines.filled(polygon, 64).sum() / 256 == pytest.approx(area, rel=0.01)


@pytest.mark.parametrize("place", [32.0, 32.5])  # between two pixels, on one
@pytest.mark.parametrize("width", [1.5, 3, 6])
def test_strokes_have_their_width_to_a_pixel(width, place):
    ends = np.array([[12, place], [52, place]])
    line = outlines.stroke(outlines.straight(ends, 120), 64, width)
    assert line[20:44].sum(axis=1).mean() / 256 == pytest.approx(width, abs=1)
    assert line.max() == 256
    assert not line[:, :20].any()


# The data.


def test_labels_are_balanced_and_name_the_kind():
    data = formula_images(160, 16, classes=16, validation_split=0.1)
    assert data.num_examples == {"train": 144, "validation": 16}
    assert np.bincount(data.labels("train")).tolist() == [9] * 16
    assert np.bincount(data.labels("validation")).tolist() == [1] * 16
    assert data.class_names[:2] == ("fractals_0", "julia_0")
    assert data.class_names[8] == "fractals_1"
    kinds = {name.partition("_")[0] for name in data.class_names}
    assert kinds == set(KINDS)


def test_an_image_does_not_depend_on_the_number_of_images():
    few, many = formula_images(20, 16, classes=10), formula_images(30, 16, classes=10)
    few, many = (data.images("train", range(20)) for data in (few, many))
    np.testing.assert_array_equal(few, many)
    assert len({one.tobytes() for one in few}) == 20


@pytest.mark.parametrize("size", [16, 33, 128])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_draws_pictures_of_every_size(kind, size):
    data = formula_images(12, size, kinds=kind, classes=4)
    drawn = np.stack(data.images("train", range(12)))
    assert drawn.shape == (12, size, size, 3)
    assert drawn.dtype == np.uint8
    assert np.mean(drawn.std(axis=(1, 2)).max(axis=-1) > 4) > 0.9  # hardly any is plain


def test_images_in_memory_are_those_that_are_drawn():
    plain, kept = (formula_images(8, 16, classes=4, in_memory=m) for m in (False, True))
    for _ in range(2):
        np.testing.assert_array_equal(
            plain.images("train", range(8)), kept.images("train", range(8))
        )
    assert kept.splits["train"].memory.is_drawn.all()


def test_a_stream_goes_on_from_any_step():
    data = formula_images(20, 16, classes=4, batch_size=6)
    batches = [x.numpy() for x, _ in data.train.take(6)]
    rest = [x.numpy() for x, _ in data.train_from(4).take(2)]
    np.testing.assert_array_equal(batches[4:], rest)


def test_the_name_formula_loads_the_same_images():
    name = "formula:count=20,size=16,classes=4,kinds=strokes+leaves,seed=3,in_memory=true"
    data = load(name, validation_split=0.2, image_size=16, batch_size=16, **AS_IT_IS)
    own = formula_images(20, 16, classes=4, kinds=("strokes", "leaves"), seed=3)
    assert data.num_examples == {"train": 16, "validation": 4}
    assert data.class_names == own.class_names
    ((found, labels),) = data.evaluation("train")
    np.testing.assert_array_equal(found, own.images("train", range(16)))
    np.testing.assert_array_equal(labels.numpy().argmax(1), np.arange(16) % 4)


def test_known_class_names_renumber_the_labels():
    names = ["noise_0", "strokes_0", "leaves_0"]
    data = load("formula:count=6,classes=2,kinds=leaves+noise", class_names=names)
    assert data.labels("train").tolist() == [2, 0] * 3


def test_formulas_without_labels_have_no_classes():
    data = load("formula:count=20,size=16,classes=4", labels="none", image_size=16)
    assert data.class_names == ()
    assert not data.labels("train").any()
    own = formula_images(20, 16, classes=4)
    np.testing.assert_array_equal(data.images("train", [3]), own.images("train", [3]))


def test_fingerprints_tell_formulas_apart():
    options = [{}, {"size": 17}, {"seed": 1}, {"classes": 5}, {"kinds": "noise"}]
    found = [
        formula_images(10, **{"size": 16, "classes": 4, **one}).fingerprint
        for one in options
    ]
    assert len(set(found)) == len(options)
    assert found[0] == formula_images(10, 16, classes=4, in_memory=True).fingerprint


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 15}, "`size` must be an integer from 16 to 512. Received: size=15"),
        ({"size": 64.0}, "`size` must be"),
        ({"seed": -1}, "`seed` must be"),
        ({"seed": True}, "`seed` must be"),
        ({"classes": 1}, "`classes` must be"),
        ({"classes": 11}, "`count` must give each class an image to train on"),
        ({"validation_split": 0.5, "classes": 6}, "of which 5 to train on"),
        ({"validation_split": 1.0}, "`validation_split` must be in"),
        ({"count": 0}, "`count` must be a positive integer"),
        ({"kinds": ()}, "one or more different kinds"),
        ({"kinds": ("noise", "noise")}, "one or more different kinds"),
        ({"kinds": "dogs"}, "`kinds` must be one of 'fractals'"),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        formula_images(**{"count": 10, "size": 16, "classes": 4, **wrong})


@pytest.mark.parametrize(
    "name",
    [
        "count",
        "count=",
        "count=-5",
        "size=1e2",
        "kind=noise",
        "seed=1,seed=2",
        "in_memory=1",
    ],
)
def test_wrong_options_of_the_name_show_how_to_write_them(name):
    with pytest.raises(ValueError, match=r"formula:count=5000,kinds=fractals\+strokes"):
        load(f"formula:{name}")


def test_formulas_have_no_splits_to_choose():
    with pytest.raises(ValueError, match="no splits to choose from"):
        load("formula", splits={"train": "train"})
