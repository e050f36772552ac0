"""Old names keep working for one release, and warn."""

import pickle
import pkgutil

import keras
import numpy as np
import pytest

import keras_vit
from keras_vit import deprecated, distribution, runs, training
from keras_vit.training import BiTHyperRule, SmallData, ViTFineTuning, average_weights

pytestmark = pytest.mark.one_backend


def test_recipes_take_resolution_for_image_size():
    with pytest.warns(FutureWarning, match="`resolution` is deprecated.*`image_size`"):
        recipe = SmallData(resolution=32)
    assert recipe.image_size == 32
    with pytest.warns(FutureWarning, match="`resolution`"):
        assert recipe.resolution == 32
    with pytest.warns(FutureWarning, match="`resolution`"):
        assert recipe.replace(resolution=48) == recipe.replace(image_size=48)
    with pytest.warns(FutureWarning, match="`resolution`"):
        assert SmallData.for_examples(10, resolution=64).image_size == 64


def test_a_pickled_recipe_of_before_keeps_its_size():
    recipe = SmallData(image_size=48)
    state = {**vars(recipe)}
    state["resolution"] = state.pop("image_size")
    old = object.__new__(SmallData)
    old.__setstate__(state)
    assert old == recipe == pickle.loads(pickle.dumps(recipe))


def test_methods_of_recipes_take_old_arguments():
    new = ViTFineTuning.for_data("cifar10", base_learning_rate=0.5)
    with pytest.warns(FutureWarning, match="`base_learning_rate`"):
        assert ViTFineTuning.for_data("cifar10", learning_rate=0.5) == new
    new = BiTHyperRule.for_data(1000, (32, 32))
    with pytest.warns(FutureWarning, match="`source_size`"):
        assert BiTHyperRule.for_data(1000, image_size=(32, 32)) == new
    assert BiTHyperRule.for_data(1000, 32, image_size=64) == new.replace(image_size=64)


def test_averages_take_momentum_for_ema_momentum():
    with pytest.warns(FutureWarning, match="`ema_momentum`"):
        optimizer = average_weights(keras.optimizers.SGD(0.1), momentum=0.5)
    assert optimizer.ema_momentum == 0.5


def test_image_data_has_the_old_methods():
    data = keras_vit.data.load((np.zeros((4, 8, 8, 3), "uint8"), [0, 1, 0, 1]))
    with pytest.warns(FutureWarning, match="`with_pipeline`"):
        pipeline = data.configured(image_size=16).pipeline
    assert pipeline == data.with_pipeline(image_size=16).pipeline
    model = keras_vit.VisionTransformer(16, 8, 8, 1, 1, 8)
    with pytest.warns(FutureWarning, match="`prepared_for`"):
        pipeline = data.configured_for(model).pipeline
    assert pipeline == data.prepared_for(model).pipeline


@pytest.mark.parametrize("module", [training, distribution, runs])
def test_names_that_are_public_no_longer_are_found(module):
    for name in module._OLD_NAMES:
        with pytest.warns(FutureWarning, match=name) as warned:
            found = getattr(module, name)
        advice = str(warned[0].message).partition("Use ")[2].removesuffix(".")
        assert pkgutil.resolve_name(advice) is found
        assert name not in module.__all__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_old_names_are_those_of_today():
    with pytest.warns(FutureWarning, match="gather_weights"):
        assert distribution.whole_weights is distribution.gather_weights
    with pytest.warns(FutureWarning, match="prepare_data"):
        assert training.configured is training.prepare_data
    with pytest.warns(FutureWarning, match="match_images"):
        assert runs.reunite is runs.image_digests.match_images


def test_a_warning_names_the_caller():
    @deprecated.renamed_arguments(old="new")
    def function(new):
        return new

    with pytest.warns(FutureWarning, match="`old`") as warned:
        assert function(old=1) == 1
    assert warned[0].filename == __file__
