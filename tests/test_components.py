"""Principal components of filters and features, and similarity of positions."""

import numpy as np
import pytest
from helpers import array, assert_close, images, tiny
from sklearn.decomposition import PCA

import keras_vit
from keras_vit import analysis
from keras_vit.analysis.components import patch_features, principal_components
from keras_vit.resize import resize_grid


def assert_same_directions(actual, expected):
    """Up to the sign of each."""
    cosines = np.abs((actual * expected).sum(-1))
    np.testing.assert_allclose(cosines, 1, atol=1e-4)


@pytest.mark.one_backend
@pytest.mark.parametrize("shape", [(100, 12), (12, 12), (9, 40)])
def test_components_are_those_of_scikit_learn(shape):
    rng = np.random.default_rng(0)
    samples = rng.normal(size=shape) * np.linspace(1, 3, shape[1]) + 5
    mean, found = principal_components(samples, 4)
    expected = PCA(4).fit(samples)
    np.testing.assert_allclose(mean, expected.mean_)
    assert_same_directions(found, expected.components_)
    np.testing.assert_allclose(found @ found.T, np.eye(4), atol=1e-10)
    assert (found.max(1) == np.abs(found).max(1)).all()


@pytest.mark.parametrize("fields", [{}, {"data_format": "channels_first"}])
def test_filters_are_the_components_of_the_kernel(fields):
    model = tiny(patch_size=(8, 4), image_size=(16, 8), **fields)
    found = analysis.embedding_filters(model, 5)
    assert found.shape == (5, 8, 4, 3)
    kernel = array(model.get_layer("patch_embedding").kernel)  # (8, 4, 3, hidden_dim)
    expected = PCA(5).fit(np.float64(kernel).reshape(96, 48).T).components_
    assert_same_directions(found.reshape(5, 96), expected)
    assert analysis.embedding_filters(model).shape[0] == 28


def test_filters_of_known_directions():
    """Each filter is a number times one of two pictures, and a shift that all share."""
    model = tiny()
    rng = np.random.default_rng(0)
    pictures = np.linalg.qr(rng.normal(size=(192, 2)))[0].T
    shares = rng.normal(size=(48, 2)) * [5, 1]
    shares -= shares.mean(0)
    shares[:, 1] -= shares[:, 0] * (shares[:, 0] @ shares[:, 1]) / (shares[:, 0] ** 2).sum()
    kernel = (shares @ pictures + rng.normal(size=192)).T.reshape(8, 8, 3, 48)
    model.get_layer("patch_embedding").kernel.assign(kernel)
    found = analysis.embedding_filters(model, 2)
    assert_same_directions(found.reshape(2, 192), pictures)


@pytest.mark.parametrize("components", [0, 48])
def test_the_number_of_components_is_checked(components):
    with pytest.raises(ValueError, match=f"Received: components={components}"):
        analysis.embedding_filters(tiny(), components)


# Positions


def cosines(grid):
    """One pair of patches after the other."""
    rows, columns, _ = grid.shape
    found = np.zeros((rows, columns, rows, columns))
    for place in np.ndindex(rows, columns, rows, columns):
        first, second = np.float64(grid[place[:2]]), np.float64(grid[place[2:]])
        norms = np.linalg.norm(first) * np.linalg.norm(second)
        found[place] = first @ second / norms
    return found


@pytest.mark.parametrize("interpolation", ["linear", "bicubic"])
def test_similarity_of_learned_positions(interpolation):
    model = tiny(image_size=(16, 40), position_interpolation=interpolation)
    grid = array(model.get_layer("position_embedding").grid)
    assert_close(analysis.position_similarity(model), cosines(grid))
    resized = resize_grid(grid, (3, 4), interpolation)
    assert_close(analysis.position_similarity(model, (3, 4)), cosines(resized))


def test_similarity_of_positions_of_columns_and_rows():
    model = tiny(image_size=(16, 40), position="learned2d")
    layer = model.get_layer("position_embedding")

    def grid(x, y):
        x, y = np.broadcast_to(x, (len(y), *x.shape)), np.repeat(y[:, None], len(x), 1)
        return np.concatenate([x, y], -1)

    x, y = array(layer.columns), array(layer.rows)
    assert_close(analysis.position_similarity(model), cosines(grid(x, y)))
    x, y = (resize_grid(a[None], (1, n))[0] for a, n in ((x, 4), (y, 3)))
    assert_close(analysis.position_similarity(model, (3, 4)), cosines(grid(x, y)))


def test_similarity_of_fixed_positions():
    """It depends on the offset alone."""
    model = tiny(position="sincos2d")
    found = analysis.position_similarity(model)
    tokens = array(model.get_layer("position_embedding")(np.zeros((1, 4, 4, 48))))
    assert_close(found, cosines(tokens.reshape(4, 4, 48)))
    np.testing.assert_allclose(found[0, 0, 1, 2], found[2, 1, 3, 3], atol=1e-5)
    assert analysis.position_similarity(model, 6).shape == (6, 6, 6, 6)


@pytest.mark.parametrize(
    "fields",
    [{"position": "none"}, {"position": "relative"}, {"position": "none", "rope": "axial"}],
)
def test_models_that_add_no_positions_are_refused(fields):
    with pytest.raises(ValueError, match=f"position='{fields['position']}'"):
        analysis.position_similarity(tiny(**fields))


def test_models_without_patches_are_refused():
    bit = keras_vit.BiTResNet(32, num_units=(1, 1), width_factor=0.5, classes=3)
    for function in (analysis.embedding_filters, analysis.position_similarity):
        with pytest.raises(ValueError, match="Received: model=BiTResNet"):
            function(bit)


# Colours


@pytest.mark.parametrize("fields", [{}, {"pooling": "gap", "num_registers": 2}])
def test_colours_are_components_of_all_images(fields):
    model = tiny(**fields)
    batch = images(batch=4)
    tokens = np.float64(array(model.features(batch)["patch_tokens"]))
    colors = analysis.feature_colors(model, batch, batch_size=2)
    assert colors.shape == (4, 4, 4, 3)
    assert colors.dtype == "float32"
    values = PCA(3).fit_transform(tokens.reshape(64, 48))
    low, high = values.min(0), values.max(0)
    expected = ((values - low) / (high - low)).reshape(4, 4, 4, 3)
    for channel in range(3):
        one = expected[..., channel]
        found = colors[..., channel]
        same, other = np.abs(found - one).max(), np.abs(found - (1 - one)).max()
        assert min(same, other) < 1e-3  # the sign of a component is free


def test_colours_of_a_mask_are_components_of_its_patches():
    model, batch = tiny(), images(batch=2)
    mask = np.zeros((2, 4, 4), bool)
    mask[0, 1:3], mask[1, :, 2] = True, True
    colors = analysis.feature_colors(model, batch, foreground=mask)
    assert (colors[~mask] == 0).all()
    shown = colors[mask]
    np.testing.assert_allclose(shown.min(0), 0, atol=1e-6)
    np.testing.assert_allclose(shown.max(0), 1, atol=1e-6)
    tokens = array(model.features(batch)["patch_tokens"]).reshape(2, 4, 4, 48)[mask]
    values = PCA(3).fit_transform(np.float64(tokens))
    correlation = np.corrcoef(values.T, shown.T)[:3, 3:]
    np.testing.assert_allclose(np.abs(np.diag(correlation)), 1, atol=1e-4)


@pytest.mark.one_backend
@pytest.mark.parametrize("sign", [1, -1])
def test_the_foreground_is_told_from_the_edges(monkeypatch, sign):
    """Two kinds of patches: one in the middle, the other around it, whatever their sign."""
    is_object = np.zeros((2, 5, 6), bool)
    is_object[0, 1:4, 2:5] = is_object[1, 2:4, 1:3] = True
    features = np.random.default_rng(0).normal(scale=0.1, size=(2, 5, 6, 8))
    features[is_object] += sign * 3
    monkeypatch.setattr(analysis.components, "patch_features", lambda *_: features)
    colors = analysis.feature_colors(None, None, foreground="first")
    np.testing.assert_array_equal(colors.any(-1), is_object)
    with pytest.raises(ValueError, match="a foreground of 0 patches"):
        analysis.feature_colors(None, None, foreground="first", threshold=9)


def test_features_of_merged_tokens_stand_at_their_places():
    model, batch = tiny(merged_tokens=(4, 0), pooling="gap"), images()
    found = model.features(batch)
    tokens, sizes = array(found["patch_tokens"]), array(found["patch_sizes"])
    features = patch_features(model, batch).reshape(2, 16, 48)
    for image in range(2):
        owners = [np.abs(tokens[image] - f).sum(-1).argmin() for f in features[image]]
        assert_close(features[image], tokens[image][owners])
        np.testing.assert_array_equal(np.bincount(owners), sizes[image])


def test_a_foreground_that_does_not_fit_is_refused():
    model, batch = tiny(), images()
    with pytest.raises(ValueError, match=r"Received: an array \(2, 4\) of bool"):
        analysis.feature_colors(model, batch, foreground=np.ones((2, 4), bool))
    with pytest.raises(ValueError, match=r"Received: an array \(2, 4, 4\) of int64"):
        analysis.feature_colors(model, batch, foreground=np.ones((2, 4, 4), "int64"))
    with pytest.raises(ValueError, match="Received: foreground='second'"):
        analysis.feature_colors(model, batch, foreground="second")
    damaged = np.where(np.arange(len(batch))[:, None, None, None] == 1, np.nan, batch)
    with pytest.raises(ValueError, match="infinity for the images 1"):
        analysis.feature_colors(model, damaged)
    small = tiny(image_size=16)
    with pytest.raises(ValueError, match="images of 2 x 2 patches"):
        analysis.feature_colors(small, images(16, 16), foreground="first")
