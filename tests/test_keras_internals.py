"""The assumptions of `keras_vit/keras_internals` about Keras, a test for each module.

Where one fails, Keras has changed: its first words are the assumption. Elsewhere in the
package nothing of Keras is used that is not public.
"""

import ast
import contextlib
import importlib
import pkgutil
import re
import tomllib
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_vit import keras_internals
from keras_vit.keras_internals import (
    added_losses,
    assumption,
    call_context,
    callback_attributes,
    data_adapters,
    distribute_strategy,
    efficientnet_network,
    fit_frame,
    fit_loop,
    gradient_clipping,
    jax_data,
    jax_state,
    keras_tensors,
    layout_maps,
    loss_scaling,
    loss_tracker,
    masks,
    optimizer_averages,
    optimizer_classes,
    optimizer_steps,
    post_build,
    replaced_methods,
    seed_generators,
    stateless_scope,
    sublayers,
    symbolic_build,
    torch_parameters,
    trainers,
    variable_values,
)
from keras_vit.training import ExactResume

BACKEND = keras.backend.backend()
ROOT = Path(__file__).parent.parent
MODULES = [module.name for module in pkgutil.iter_modules(keras_internals.__path__)]


def only_on(backend):
    return pytest.mark.skipif(backend != BACKEND, reason=f"is of {backend}")


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


@contextlib.contextmanager
def assumed(module):
    """Has whatever fails inside say what a module assumes."""
    sentence = " ".join(module.__doc__.split("\n\n")[0].split())
    try:
        yield
    except Exception as error:
        pytest.fail(
            f"{sentence} In Keras {keras.__version__} on {BACKEND} this does not hold: "
            f"{type(error).__name__}: {error}"
        )


class Pair(keras.layers.Layer):
    """A layer with two layers inside, and a weight of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.first, self.second = keras.layers.Dense(2), keras.layers.Dense(2)

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones")
        self.first.build(shape)
        self.second.build(shape)

    def call(self, inputs):
        return self.second(self.first(inputs)) * self.scale


def tiny(model_class=keras.Model, **compiled):
    inputs = keras.Input((2,))
    model = model_class(inputs, keras.layers.Dense(1)(inputs))
    model.compile(**{"optimizer": "sgd", "loss": "mse", **compiled})
    return model


def arrays(rows=4):
    return np.ones((rows, 2), "float32"), np.zeros((rows, 1), "float32")


# The contracts.


def test_sublayers():
    layer = Pair()
    layer.build((None, 2))
    layer.first.trainable = False
    with assumed(sublayers):
        assert list(sublayers.all_layers(layer)) == [layer, layer.first, layer.second]
        inside = list(sublayers.all_layers(layer, include_self=False))
        assert inside == [layer.first, layer.second] == sublayers.direct_layers(layer)
        own = sublayers.own_weights(layer.first)
        assert [weight.name for weight in own] == ["kernel", "bias"]
        assert [weight.shape for weight in sublayers.own_weights(layer)] == [()]


def test_efficientnet_network():
    state, name = "backend.common.global_state", "get_global_attribute"
    attribute = assumption.internal(state, name, "a test")
    waiting = list(attribute("uninitialized_variables", []))
    names = []

    def copy(layer, name):
        names.append(name)
        return layer.from_config({**layer.get_config(), "name": name})

    with assumed(efficientnet_network):
        stages = efficientnet_network.stages()
        assert [stage["repeats"] for stage in stages] == [1, 2, 2, 3, 3, 4, 1]
        assert {"kernel_size", "filters_in", "filters_out"} <= set(stages[0])
        assert {"expand_ratio", "strides", "se_ratio"} <= set(stages[0])
        images = keras.Input((32, 32, 3))
        features = efficientnet_network.feature_map(
            images,
            num_blocks=(1, 2, 1, 1, 1, 1, 1),
            width_factor=0.25,
            drop_path_rate=0.2,
            copy=copy,
        )
        assert features.shape == (None, 1, 1, 320)
        model = keras.Model(images, features)
        assert [layer.name for layer in model.layers[1:]] == names
        assert names[:3] == ["stem_conv_pad", "stem_conv", "stem_bn"]
        assert "stage_1_unit_1_drop" in names
        assert names[-1] == "top_activation"
        assert model(np.zeros((1, 32, 32, 3), "float32")).shape == (1, 1, 1, 320)
        # Keras' own network, which is copied, is not waiting for values.
        assert attribute("uninitialized_variables", []) == waiting


def test_post_build():
    class Noted(post_build.AfterBuild, Pair):
        def after_build(self):
            self.weights_then = len(self.weights)
            self.first.trainable = False

    layer = Noted()
    with assumed(post_build):
        layer(np.ones((1, 2), "float32"))
        assert layer.weights_then == 5
        assert len(layer.trainable_weights) == 3
        post_build.check_post_build()


def test_stateless_scope():
    seen = []

    class Seen(keras.layers.Layer):
        def call(self, inputs):
            seen.append(stateless_scope.in_symbolic_scope())
            return inputs

    with assumed(stateless_scope):
        assert not stateless_scope.in_stateless_scope()
        with keras.StatelessScope():
            assert stateless_scope.in_stateless_scope()
        Seen()(keras.Input((2,)))
        assert seen[-1] is True
        Seen()(np.ones((1, 2)))
        assert seen[-1] is False


@only_on("torch")
def test_torch_parameters():
    class Named(torch_parameters.NamedParameters, keras.Model):
        def parameter_names(self):
            return [f"of_ours_{i}" for i, _ in enumerate(self.variables)]

    model = tiny(Named)
    with assumed(torch_parameters):
        model.name_parameters()
        names = [name.rpartition(".")[2] for name, _ in model.named_parameters()]
        assert names == ["of_ours_0", "of_ours_1"]
        assert {id(p) for p in model.parameters()} == {id(v.value) for v in model.weights}


def test_variable_values():
    variable = keras.Variable(np.ones(2), dtype="float32")
    with assumed(variable_values):
        assert variable_values.raw_value(variable) is variable.value
        assert variable_values.raw_dtype(variable) == "float32"
        assert variable_values.layout(variable) is None
        other = keras.ops.convert_to_tensor(np.full(2, 3.0), "float32")
        variable_values.set_raw_value(variable, other)
        assert variable_values.raw_value(variable) is other
        assert numpy(variable).tolist() == [3, 3]


def test_keras_tensors():
    inputs = keras.Input((2,))
    with assumed(keras_tensors):
        assert keras_tensors.is_input(inputs)
        assert not keras_tensors.is_input(keras.layers.Dense(1)(inputs))
        assert not keras_tensors.is_input(np.ones(2))


def test_call_context():
    seen = []

    class Seen(keras.layers.Layer):
        def call(self, inputs):
            seen.append(call_context.outermost_training_layer())
            return inputs

    inputs = keras.Input((2,))
    model = keras.Model(inputs, Seen()(inputs))
    with assumed(call_context):
        model(np.ones((1, 2)), training=True)
        assert seen[-1] is model
        model(np.ones((1, 2)))
        assert seen[-1] is None
        assert call_context.outermost_training_layer() is None


HOOKS = {"torch": "batches", "jax": "get_state", "tensorflow": "make_function"}


def test_trainers(monkeypatch):
    called = set()

    def note(name):
        def function(original, self, *arguments, **named):
            called.add(name)
            if name == "evaluate":
                called.add(("validation", trainers.is_validation(named)))
            return original(self, *arguments, **named)

        return function

    hook = HOOKS[BACKEND]
    given = [{n: note(n) for n in ("fit", "evaluate", "train_step")}, {}]
    given[1]["__init__"] = note("__init__")
    given[hook == "batches"][hook] = note(hook)
    for index, functions in enumerate(given):
        owner = trainers._class(index)
        for name in functions:
            name = trainers._HOOKS.get(name, name)
            monkeypatch.setattr(owner, name, getattr(owner, name))
    with assumed(trainers):
        trainers.replace_trainer(*given)
        model = tiny()
        model.fit(*arrays(), validation_data=arrays(), verbose=0)
        expected = {"fit", "evaluate", "train_step", "__init__", hook}
        assert called == {*expected, ("validation", True)}
        called.clear()
        model.evaluate(*arrays(), verbose=0)
        assert ("validation", False) in called


def test_trainers_tell_what_a_model_overrides():
    class Own(keras.Model):
        def train_step(self, *arguments):
            return super().train_step(*arguments)

        def compute_loss(self, *arguments, **named):
            return super().compute_loss(*arguments, **named)

    names = ("train_step", "test_step", "compute_loss")
    with assumed(trainers):
        assert trainers.overridden(tiny(), names) == []
        assert trainers.overridden(tiny(Own), names) == ["train_step", "compute_loss"]


def test_loss_tracker():
    model = tiny()
    with assumed(loss_tracker):
        loss_tracker.track_loss(model, 1.0, 1)
        loss_tracker.track_loss(model, 4.0, 2)
        assert float(numpy(model.get_metrics_result()["loss"])) == 3


def test_added_losses():
    layer = keras.layers.ActivityRegularization(1.0)
    model = keras.Sequential([keras.Input((1,)), layer])
    model(np.ones((1, 1)))
    kept = list(model.losses)
    model(np.ones((1, 1)) * 2)
    with assumed(added_losses):
        with added_losses.losses_of_call(model, kept):
            assert [float(numpy(loss)) for loss in model.losses] == [1]
        assert [float(numpy(loss)) for loss in model.losses] == [2]


def test_symbolic_build():
    model, other = tiny(metrics=["mae"]), tiny(metrics=["mae"])
    other.fit(*arrays(), verbose=0)
    batch = tuple(keras.KerasTensor(array.shape) for array in arrays())
    with assumed(symbolic_build):
        symbolic_build.symbolic_build(model, batch, "This test")
        assert model.optimizer.built
        made, expected = model.metrics_variables, other.metrics_variables
        assert [v.shape for v in made] == [v.shape for v in expected]


@only_on("tensorflow")
def test_distribute_strategy():
    import tensorflow as tf
    from keras.src.backend.tensorflow.trainer import TFEpochIterator

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        inside = tiny()
    x, y = arrays()
    iterator = TFEpochIterator(strategy, x=x, y=y, batch_size=2)
    with assumed(distribute_strategy):
        assert distribute_strategy.has_strategy(inside)
        assert not distribute_strategy.has_strategy(tiny())
        distribute_strategy.set_strategy(iterator, None)
        shapes = [spec.shape[1:] for spec in distribute_strategy.element_spec(iterator)]
        assert shapes == [(2,), (1,)]


@only_on("tensorflow")
def test_loss_scaling(monkeypatch):
    from keras.src.losses import loss

    for name in loss_scaling._NAMES:
        monkeypatch.setattr(loss, name, getattr(loss, name))
    called = set()

    def wrap(function):
        def wrapped(value):
            called.add(function.__name__)
            return function(value)

        return wrapped

    with assumed(loss_scaling):
        loss_scaling.replace_scaling(wrap)
        tiny().fit(*arrays(), verbose=0)
        assert called == set(loss_scaling._NAMES)


@only_on("jax")
def test_jax_state():
    seen = []

    class Seen(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            jax_state.synchronize(self.model)
            seen.append(numpy(self.model.weights[0]).copy())

    model = tiny()
    with assumed(jax_state):
        model.fit(*arrays(), batch_size=2, verbose=0, callbacks=[Seen()])
        assert not np.array_equal(seen[0], seen[1])
        assert np.array_equal(seen[1], numpy(model.weights[0]))
        doubled = [weight.value * 2 for weight in model.trainable_variables]
        asked = {"trainable_variables": True, "purge_model_variables": True}
        jax_state.keep_state(model, [doubled], asked)
        model._jax_state_synced = False  # as `fit` sets it then
        jax_state.synchronize(model)
        assert np.array_equal(numpy(model.weights[0]), seen[1] * 2)


@only_on("jax")
def test_jax_state_has_the_step_and_its_arguments():
    import jax

    model = tiny()
    batch = arrays()
    symbolic = tuple(keras.KerasTensor(array.shape) for array in batch)
    symbolic_build.symbolic_build(model, symbolic, "This test")
    shapes = tuple(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in batch)
    with assumed(jax_state):
        lowered = jax_state.lowered_train_step(model, shapes)
        assert "tensor<4x2xf32>" in lowered.as_text()


@only_on("jax")
def test_jax_data():
    import jax

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("batch",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    with assumed(jax_data):
        rows = jax_data.on_devices(np.ones((2, 3), "float32"), sharding, "batch")
        assert rows.sharding.is_equivalent_to(sharding, 2)
        assert np.array_equal(rows, np.ones((2, 3)))


def test_masks():
    tensor = keras.ops.ones((1, 2, 1))
    with assumed(masks):
        assert masks.mask(tensor) is None
        masks.set_mask(tensor, keras.ops.ones((1, 2), "bool"))
        assert numpy(masks.mask(tensor)).tolist() == [[True, True]]
        masked = keras.layers.Masking()(np.array([[[1.0], [0.0]]]))
        assert numpy(masks.mask(masked)).tolist() == [[True, False]]


def test_seed_generators(monkeypatch):
    with assumed(seed_generators):
        keras.utils.set_random_seed(3)
        assert seed_generators.random_seed() == 3
        assert seed_generators.global_state() is None
        made = seed_generators.made_global_state()
        before = numpy(made).copy()
        keras.random.normal((1,))
        assert seed_generators.global_state() is made
        assert not np.array_equal(before, numpy(made))
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.5)])
        inside = model.layers[0].seed_generator.state
        assert [id(s) for s in seed_generators.seed_states(model)] == [id(inside), id(made)]
        monkeypatch.setattr(keras.random.SeedGenerator, "next", draw := made_next())
        seed_generators.replace_draws(lambda seed: seed * 0)
        generator = keras.random.SeedGenerator(5)
        first, second = (keras.random.normal((3,), seed=generator) for _ in range(2))
        assert np.array_equal(numpy(first), numpy(second))
        assert draw is not keras.random.SeedGenerator.next


def made_next():
    return keras.random.SeedGenerator.next


@pytest.mark.parametrize("shuffle", [True, False])
def test_data_adapters(shuffle):
    from keras.src.trainers.epoch_iterator import EpochIterator

    x, y = arrays()
    with assumed(data_adapters):
        iterator = EpochIterator(x, y, batch_size=2, shuffle=shuffle)
        assert data_adapters.shuffles(iterator.data_adapter) == shuffle


@only_on("torch")
def test_data_adapters_of_one_process():
    tf = pytest.importorskip("tensorflow")
    stream = tf.data.Dataset.from_tensor_slices(arrays()).batch(2)
    seen = []

    class Seen(keras.Model):
        def train_step(self, data):
            seen.append((getattr(data[0], data_adapters.ROWS), len(data[0])))
            return super().train_step(data)

    with assumed(data_adapters):
        adapter = data_adapters.shard_adapter()(stream, 4, class_weight=None)
        tiny(Seen).fit(adapter, verbose=0)
        assert seen == [(4, 2), (4, 2)]


@only_on("jax")
def test_layout_maps():
    devices = keras.distribution.list_devices()[:1]
    mesh = keras.distribution.DeviceMesh((1, 1), ("batch", "model"), devices)
    layouts = keras.distribution.LayoutMap(mesh)
    distribution = keras.distribution.ModelParallel(
        layout_map=layouts, batch_dim_name="batch"
    )
    with assumed(layout_maps):
        assert layout_maps.layout_map(distribution) is layouts


def test_callback_attributes(tmp_path):
    pytest.importorskip("tensorboard")
    callbacks = [
        keras.callbacks.EarlyStopping("loss"),
        keras.callbacks.ReduceLROnPlateau("loss"),
        keras.callbacks.ModelCheckpoint(
            tmp_path / "a.weights.h5", monitor="loss", save_weights_only=True
        ),
        keras.callbacks.TensorBoard(tmp_path / "logs"),
    ]
    with assumed(callback_attributes):
        assert list(map(type, callbacks)) == list(callback_attributes.STATES)
        tiny().fit(*arrays(), callbacks=callbacks, verbose=0)
        for callback, names in zip(
            callbacks, callback_attributes.STATES.values(), strict=True
        ):
            for name in names:
                assert hasattr(callback, name), f"{type(callback).__name__}.{name}"


def optimizer_with(base, optimizer, **attributes):
    """An optimizer that is given another class, as `adapt` does it."""
    optimizer.__class__ = type("Other", (base, type(optimizer)), attributes)
    return optimizer


def stepped(optimizer, values, gradients=None, dtype="float32"):
    """Variables that an optimizer has taken a step on, with gradients of -1."""
    variables = [keras.Variable(np.full(2, value), dtype=dtype) for value in values]
    for _ in range(2 if optimizer.use_ema else 1):
        steps = gradients or [-keras.ops.ones((2,)) for _ in values]
        optimizer.apply(steps, variables)
    return variables


def test_gradient_clipping(monkeypatch):
    name, called = gradient_clipping._NAME, []
    clip = getattr(keras.optimizers.Optimizer, name)
    monkeypatch.setattr(keras.optimizers.Optimizer, name, clip)
    large = keras.ops.full((2,), 3e4, "float16")  # of which the squares are not float16

    def noted(original, optimizer, gradients):
        called.append(optimizer)
        return original(optimizer, gradients)

    with assumed(gradient_clipping):
        gradient_clipping.replace_clipping(noted)
        optimizer = optimizer_with(
            gradient_clipping.ClippedInFloat32, keras.optimizers.SGD(1.0, clipnorm=1.0)
        )
        (variable,) = stepped(optimizer, [0.0], [large], "float16")
        assert called == [optimizer]
        assert np.allclose(numpy(variable), -(0.5**0.5), atol=1e-3)


@pytest.mark.parametrize(
    ("factor", "expected"),
    # 2 - 0.1 · 2 + 1; half of both; half of one. Then with three times the decay.
    [(None, [2.8, 2.4, 2.5]), (3.0, [2.4, 2.2, 2.5])],
)
def test_optimizer_steps(factor, expected):
    def multiplier(self, variable):
        return [1.0, 0.5, 0.5][self.position(variable)]

    def is_decayed(self, variable):
        return self.position(variable) < 2

    optimizer = optimizer_with(
        optimizer_steps.StepsByVariable,
        keras.optimizers.SGD(1.0, weight_decay=0.1),
        multiplier=multiplier,
        is_decayed=is_decayed,
        decay_factor=lambda self: factor,
    )
    with assumed(optimizer_steps):
        optimizer_steps.check_steps(optimizer)
        variables = stepped(optimizer, [2.0, 2.0, 2.0])
        values = [float(numpy(variable)[0]) for variable in variables]
        assert np.allclose(values, expected)


def test_optimizer_averages():
    optimizer = optimizer_with(
        optimizer_averages.AveragesByUpdate,
        keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.75),
    )
    with assumed(optimizer_averages):
        optimizer_averages.check_averages(optimizer)
        (variable,) = stepped(optimizer, [0.0])
        assert optimizer_averages.num_steps(optimizer) == 2
        assert optimizer.has_averages()
        ((weight, average),) = optimizer.averages()
        assert weight is variable
        assert np.allclose(numpy(average), 1.25)  # 1, and a quarter of what came to it
        optimizer.finalize_variable_values([variable])
        assert np.allclose(numpy(variable), 1.25)


def test_optimizer_classes():
    class Own(keras.optimizers.Adam):
        pass

    ours = optimizer_averages.AveragesByUpdate
    with assumed(optimizer_classes):
        for kind in (keras.optimizers.Adam, keras.optimizers.SGD, keras.optimizers.Nadam):
            assert optimizer_classes.public_class(kind(), ours) is kind
            assert optimizer_classes.is_of_keras(kind)
        adapted = optimizer_with(ours, keras.optimizers.Adam())
        assert optimizer_classes.public_class(adapted, ours) is keras.optimizers.Adam
        assert not optimizer_classes.is_of_keras(Own)


def test_replaced_methods():
    class Ours(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    def doubled(original, self, inputs):
        return original(self, inputs) * 2

    with assumed(replaced_methods):
        replaced_methods.replace_methods({Ours: {"call": doubled}}, "This test")
        assert numpy(Ours()(np.ones(2))).tolist() == [2, 2]
    both = {Ours: {"call": doubled, "no_such_method": doubled}}
    with pytest.raises(assumption.AssumptionError, match=r"`Ours` has `no_such_method`"):
        replaced_methods.replace_methods(both, "This test")
    assert numpy(Ours()(np.ones(2))).tolist() == [2, 2]


class Batches(keras.callbacks.Callback):
    """Notes (epoch, batch) of all that is trained on."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append((self.epoch, batch))


def test_fit_frame():
    found = []

    class Seen(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            found.append(fit_frame.variables_of_fit(self.model))

    with assumed(fit_frame):
        model, callback = tiny(), Seen()
        model.fit(*arrays(), epochs=2, initial_epoch=1, callbacks=[callback], verbose=0)
        assert callback in found[0]["callbacks"].callbacks
        assert found[0]["initial_epoch"] == 1
    with pytest.raises(RuntimeError, match=r"works in `keras\.Model\.fit`"):
        fit_frame.variables_of_fit(model)


def test_fit_loop():
    class Begun(Batches):
        def on_train_begin(self, logs=None):
            loop = fit_loop.FitLoop(self.model)
            loop.check_order_of_data()
            loop.build()
            loop.begin_at(fit_loop.Position(1, 1, 3), is_at_position=False, logs={})

    with assumed(fit_loop):
        callback, model = Begun(), tiny()
        options = dict(batch_size=2, epochs=3, shuffle=False, verbose=0)
        model.fit(*arrays(), callbacks=[callback], **options)
        assert callback.seen == [(1, 1), (2, 0), (2, 1)]


# What a user is told.


def test_assumption(monkeypatch, tmp_path):
    """The feature that needs it says so, and everything else goes on."""
    monkeypatch.setattr(fit_frame, "_NAMES", (*fit_frame._NAMES, "no_such_variable"))
    model = tiny()
    said = r"ExactResume assumes that `fit` .*`no_such_variable`.* Received: Keras 3\."
    with pytest.raises(assumption.AssumptionError, match=said):
        model.fit(*arrays(), callbacks=[ExactResume(tmp_path)], verbose=0)
    callback = Batches()
    model.fit(*arrays(), callbacks=[callback], verbose=0)
    assert callback.seen == [(0, 0)]


def test_assumption_names_what_keras_lacks():
    said = r"This test assumes that `keras\.src\.losses\.loss` has `no_such_function`"
    with pytest.raises(assumption.AssumptionError, match=said):
        assumption.internal("losses.loss", "no_such_function", "This test")
    with pytest.raises(assumption.AssumptionError, match="`keras.src.no_such_module`"):
        assumption.internal("no_such_module", "it", "This test")
    with pytest.raises(assumption.AssumptionError, match="`Model` has `_no_such_name`"):
        assumption.private(keras.Model, "_no_such_name", "This test")


def test_window_of_keras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"keras{assumption.WINDOW}" in project["dependencies"]


# The sources.


def test_each_assumption_has_a_docstring_and_a_test():
    tests = re.findall(r"def test_(\w+)", Path(__file__).read_text("utf-8"))
    for name in MODULES:
        module = importlib.import_module(f"keras_vit.keras_internals.{name}")
        assert name in tests
        if name != "assumption":
            assert module.__doc__.startswith("Assumption: ")
            seen = r"Seen to hold in Keras (3\.13, )?3\.14 and 3\.15\."
            assert re.search(seen, module.__doc__)


def sources():
    """(path, text) of the modules outside of `keras_internals`."""
    package = ROOT / "keras_vit"
    paths = (p for p in package.rglob("*.py") if "keras_internals" not in p.parts)
    return [(path.relative_to(ROOT), path.read_text("utf-8")) for path in paths]


@pytest.mark.one_backend
def test_keras_src_and_frames_are_in_one_room():
    found = [
        f"{path}:{i}: {line.strip()}"
        for path, text in sources()
        for i, line in enumerate(text.splitlines(), 1)
        if re.search(r"keras\.src|_getframe", line)
    ]
    assert not found, "\n".join(found)


KERAS_SOURCES = (
    *("backend", "callbacks", "distribution", "layers/layer.py", "losses/loss.py"),
    *("metrics/metric.py", "models", "ops/function.py", "ops/node.py", "optimizers"),
    *("ops/operation.py", "random", "trainers", "utils/tracking.py"),
)


def private_names_of_keras():
    """The names of methods and attributes in Keras that begin with an underscore."""
    found = set()
    for part in KERAS_SOURCES:
        part = Path(keras.__file__).parent / "src" / part
        assert part.exists(), part
        for path in part.rglob("*.py") if part.is_dir() else [part]:
            if not path.name.endswith("_test.py"):
                found |= own_names(ast.parse(path.read_text("utf-8")))
    return {name for name in found if re.match(r"_[a-z]\w+$", name)}


def own_names(tree):
    """The methods of classes, and the attributes that something sets."""
    methods = {
        method.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if isinstance(method, ast.FunctionDef)
    }
    is_set = (ast.Store, ast.Del)
    attributes = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, is_set)
    }
    return methods | attributes


# Names of Keras' that our own classes happen to have, too, and one of TensorFlow's.
OWN = {"_lock", "_model", "_name", "_shape", "_size", "_variables", "_writers"}
TENSORFLOW = ("keras_vit/data/ending.py", "_dataset")


@pytest.mark.one_backend
def test_private_attributes_of_keras_are_used_in_one_room():
    private, found = private_names_of_keras(), []
    assert {"_flatten_layers", "_value", "_clip_gradients", "_torch_params"} <= private
    for path, text in sources():
        for line, name in names_used(ast.parse(text)):
            if name in private and (path.as_posix(), name) != TENSORFLOW:
                found.append(f"{path}:{line}: {name}")
    assert not found, "\n".join(found)


def names_used(tree):
    """(line, name) of the attributes, of the texts that may be for `getattr`, and of the
    methods of classes, without those that are our own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if not (ast.unparse(node.value) == "self" and node.attr in OWN):
                yield node.lineno, node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name not in OWN:
                    yield method.lineno, method.name
