"""Plots of `keras_vit.analysis`: what they draw, in the colours of the report."""

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_vit
from keras_vit import analysis
from keras_vit.analysis.canvas import DARK, LIGHT

pytestmark = pytest.mark.one_backend

RNG = np.random.default_rng(0)
FILTERS = RNG.normal(size=(6, 4, 5, 3))
SIMILARITY = RNG.uniform(-1, 1, (2, 3, 2, 3))
DISTANCES = RNG.uniform(0, 100, (4, 3))
IMAGES = RNG.integers(0, 256, (4, 8, 12, 3), "uint8")
MAPS = RNG.uniform(size=(4, 2, 3))
PLOTS = {
    "filters": lambda **options: analysis.plot_filters(FILTERS, **options),
    "positions": lambda **options: analysis.plot_positions(SIMILARITY, **options),
    "distances": lambda **options: analysis.plot_distances(DISTANCES, **options),
    "maps": lambda **options: analysis.plot_maps(IMAGES, MAPS, **options),
}


def pictures(figure):
    """The arrays of all images in a figure."""
    return [
        np.ma.filled(i.get_array(), np.nan) for axes in figure.axes for i in axes.images
    ]


def test_colours_are_those_of_the_report():
    style = Path(keras_vit.__file__).parent / "report" / "templates" / "style.css"
    light, dark = re.findall(r":root \{(.*?)\}", style.read_text("utf-8"), re.S)
    for colors, text in ((LIGHT, light), (DARK, dark)):
        assert colors.items() <= dict(re.findall(r"--([\w-]+): (#\w+);", text)).items()


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
@pytest.mark.parametrize(("dark", "paper"), [(False, "fbfbf9"), (True, "14171a")])
def test_plots_are_drawn_light_and_dark(plot, dark, paper):
    figure = plot(dark=dark, title="A title")
    assert figure.get_suptitle() == "A title"
    file = io.BytesIO()
    figure.savefig(file, dpi=50)
    picture = np.asarray(Image.open(file).convert("RGB"))
    assert bytes(picture[-1, -1]).hex() == paper
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_each_filter_has_its_own_scale():
    (sheet,) = pictures(
        analysis.plot_filters(FILTERS * np.arange(1, 7)[:, None, None, None])
    )
    columns, gap = 4, 1
    assert sheet.shape == (2 * 4 + gap, columns * 5 + 3 * gap, 4)
    for i, one in enumerate(FILTERS):
        top, left = 5 * (i // columns), 6 * (i % columns)
        tile = sheet[top : top + 4, left : left + 5]
        np.testing.assert_allclose(tile[..., :3], 0.5 + one / np.abs(one).max() / 2)
        assert (tile[..., 3] == 1).all()
    assert (sheet[4, :, 3] == 0).all()
    assert (sheet[5:, 12:, 3] == 0).all()  # no seventh and eighth
    (grey,) = pictures(analysis.plot_filters(FILTERS[..., :1]))
    assert grey.shape == sheet.shape[:2]
    with pytest.raises(ValueError, match="one or three channels"):
        analysis.plot_filters(np.zeros((6, 1, 1, 64)))


def test_each_patch_has_its_similarities():
    figure = analysis.plot_positions(SIMILARITY)
    sheet = pictures(figure)[0]
    for row, column in np.ndindex(2, 3):
        tile = sheet[3 * row : 3 * row + 2, 4 * column : 4 * column + 3]
        np.testing.assert_array_equal(tile, SIMILARITY[row, column])
    assert np.isnan(sheet[2]).all()
    axes, bar = figure.axes
    assert list(axes.get_xticks()) == [1, 5, 9]
    assert bar.get_ylabel() == "cosine similarity"


def test_each_head_is_a_point():
    (axes,) = analysis.plot_distances(DISTANCES).axes
    points = axes.collections[0].get_offsets()
    expected = [(b, DISTANCES[b, h]) for b, h in np.ndindex(4, 3)]
    np.testing.assert_allclose(points, expected)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), DISTANCES.mean(1))
    assert axes.get_xlabel() == "block"
    assert "pixels" in axes.get_ylabel()


def test_an_image_is_beside_itself_times_its_map():
    figure = analysis.plot_maps(IMAGES, MAPS, titles="abcd")
    shown = pictures(figure)
    assert len(shown) == 8
    for image, one, left, right in zip(IMAGES, MAPS, shown[::2], shown[1::2], strict=True):
        np.testing.assert_allclose(left, image / 255)
        import torch
        from torch.nn.functional import interpolate

        large = interpolate(
            torch.tensor(one)[None, None], (8, 12), mode="bilinear", antialias=True
        )
        mask = large[0, 0].numpy()
        expected = image / 255 * (mask / mask.max())[..., None]
        np.testing.assert_allclose(right, expected, atol=1e-6)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title for title in titles if title] == list("abcd")


def test_colours_of_features_are_drawn_as_they_are():
    colors = RNG.uniform(size=(1, 2, 3, 3))
    images = RNG.normal(size=(1, 1, 8, 12))  # channels first, one channel, any range
    left, right = pictures(analysis.plot_maps(images, colors, data_format="channels_first"))
    np.testing.assert_allclose(right, np.repeat(np.repeat(colors[0], 4, 0), 4, 1))
    assert left.shape == (8, 12, 3)
    assert (left.min(), left.max()) == (0, 1)


def test_maps_and_titles_are_as_many_as_images():
    with pytest.raises(ValueError, match="Received: 3 maps for 4 images"):
        analysis.plot_maps(IMAGES, MAPS[:3])
    with pytest.raises(ValueError, match="Received: 2 titles for 4 images"):
        analysis.plot_maps(IMAGES, MAPS, titles=["a", "b"])


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
def test_without_matplotlib_it_is_said_how_to_install_it(plot, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-vit\[plot\]'"):
        plot()
