"""Keras' training and prediction on the replicas of a `tf.distribute.MirroredStrategy`.

Keras 3.15 weights the mean loss of each replica equally, whatever its number of rows: a
batch that the replicas do not divide makes a wrong update. It clips the gradient of each
replica, and in `*_on_batch` each replica computes the complete batch.

Here each replica has equally many rows; copies of the last row pad the batch. The outputs
of all replicas are gathered and the copies removed, so that losses and metrics are those
of the complete batch.
"""

import contextlib
import functools
import re
import threading

import keras

from keras_vit.distribution.fit_arguments import call_options, has_added_losses
from keras_vit.keras_internals.added_losses import losses_of_call
from keras_vit.keras_internals.distribute_strategy import has_strategy, set_strategy
from keras_vit.keras_internals.loss_scaling import replace_scaling
from keras_vit.keras_internals.loss_tracker import track_loss
from keras_vit.keras_internals.masks import mask, set_mask
from keras_vit.keras_internals.sublayers import all_layers
from keras_vit.keras_internals.symbolic_build import symbolic_build
from keras_vit.keras_internals.trainers import overridden, replace_trainer

# Keys of a batch on its way to the replicas, and of its number of rows, repeated per row.
_BATCH, _ROWS = "keras_vit_batch", "keras_vit_rows"
_STEPS = (
    *("train_step", "test_step", "compute_loss"),
    *("compute_metrics", "get_metrics_result"),
)
_UNEVEN = "The rows of a batch must be divisible by the number of devices, "
_WAY_OUT = "or use one device."
# Each replica is traced in its own thread.
_here = threading.local()
_installed = []


def is_in_use() -> bool:
    """True if batches are divided this way under the strategy in use."""
    import tensorflow as tf

    return bool(_installed) and _several(tf.distribute.get_strategy())


def install() -> None:
    """Replaces methods of Keras' trainer under any `MirroredStrategy`, once."""
    if _installed:
        return
    replace_scaling(_not_of_whole_batches)
    replace_trainer(
        {
            "train_step": _train_step,
            "test_step": _test_step,
            "make_function": _make_function,
            "make_predict_function": _make_predict_function,
            "build": _symbolic_build,
        },
        iterator={"__init__": _init_iterator},
    )
    _installed.append(True)


def _several(strategy):
    """True if a strategy is a `MirroredStrategy` of several replicas."""
    import tensorflow as tf

    is_mirrored = isinstance(strategy, tf.distribute.MirroredStrategy)
    return is_mirrored and strategy.num_replicas_in_sync > 1


# Batches on their way to the replicas.


def _init_iterator(original, iterator, distribute_strategy=None, *arguments, **named):
    if not _several(distribute_strategy):
        return original(iterator, distribute_strategy, *arguments, **named)
    divider = _Divider(distribute_strategy)
    original(iterator, divider, *arguments, **named)
    set_strategy(iterator, distribute_strategy)
    iterator.keras_vit_spec = divider.spec
    return None


class _Divider:
    """Divides batches for an epoch's iterator, in place of a strategy.

    Args:
        strategy: a `tf.distribute.MirroredStrategy`.
    """

    def __init__(self, strategy):
        self.strategy = strategy
        self.spec = None

    def experimental_distribute_dataset(self, dataset):
        """Batches of which each replica gets equally many rows."""
        import tensorflow as tf

        if not all(map(_is_dense, tf.nest.flatten(dataset.element_spec))):
            return self.strategy.experimental_distribute_dataset(dataset)
        self.spec = dataset.element_spec
        count = self.strategy.num_replicas_in_sync

        def parts(*batch):
            whole = batch if isinstance(dataset.element_spec, tuple) else batch[0]
            return tf.data.Dataset.from_tensor_slices(_marked(whole, count))

        stream, number = dataset.flat_map(parts), dataset.cardinality()
        if number >= 0:
            stream = stream.apply(tf.data.experimental.assert_cardinality(number * count))
        elif number == tf.data.INFINITE_CARDINALITY:
            stream = stream.apply(tf.data.experimental.assert_cardinality(number))
        stream = stream.prefetch(count)
        return self.strategy.distribute_datasets_from_function(lambda context: stream)


def _is_dense(spec):
    import tensorflow as tf

    if isinstance(spec, tf.NoneTensorSpec):
        return True
    return isinstance(spec, tf.TensorSpec) and spec.shape.rank is not None


def _marked(batch, count):
    """A batch as a part per replica, (count, rows, …), with its number of rows."""
    import tensorflow as tf

    batch = _map(tf.convert_to_tensor, batch)
    rows = tf.shape(next(x for x in keras.tree.flatten(batch) if x is not None))[0]
    own = -(-rows // count)

    def parts(leaf):
        indices = tf.minimum(tf.range(count * own), rows - 1)
        filled = tf.cond(
            tf.equal(rows, count * own), lambda: leaf, lambda: tf.gather(leaf, indices)
        )
        return tf.reshape(filled, tf.concat([[count, own], tf.shape(leaf)[1:]], 0))

    def with_shape(leaf):
        divided = parts(leaf)
        divided.set_shape((count, None, *leaf.shape[1:]))
        return divided

    return {_BATCH: _map(with_shape, batch), _ROWS: tf.fill([count, own], rows)}


def _is_marked(data):
    return isinstance(data, dict) and set(data) == {_BATCH, _ROWS}


def _values(batch, strategy):
    """The values of one batch on the replicas."""
    count = strategy.num_replicas_in_sync
    marked = _marked(batch, count)
    leaves = [leaf for leaf in keras.tree.flatten(marked) if leaf is not None]
    values = iter(
        strategy.experimental_distribute_values_from_function(
            lambda context, leaf=leaf: leaf[context.replica_id_in_sync_group]
        )
        for leaf in leaves
    )
    return _map(lambda _: next(values), marked)


def _map(function, data):
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else function(leaf), data
    )


def _symbolic_build(original, model, iterator=None, data_batch=None):
    """Keras reads a batch, of which it adds up the parts; here nothing is read."""
    spec = getattr(iterator, "keras_vit_spec", None)
    if not has_strategy(model) or spec is None:
        return original(model, iterator, data_batch)

    def symbolic(leaf):
        return keras.KerasTensor(tuple(leaf.shape), leaf.dtype.name)

    if any(
        leaf.shape.rank is None for leaf in keras.tree.flatten(spec) if leaf is not None
    ):
        return original(model, iterator, data_batch)
    with model.distribute_strategy.scope():
        symbolic_build(model, _map(symbolic, spec), "Training under a `MirroredStrategy`")


# A step.


def _make_function(original, model, step_function):
    import tensorflow as tf

    strategy = model.distribute_strategy
    if not _several(strategy):
        return original(model, step_function)
    _check_options(model, is_training=step_function == model.train_step)
    function = original(model, lambda data: _step_in_replica(model, step_function, data))
    streams = (tf.data.Iterator, tf.distribute.DistributedIterator)

    def divided(iterator):
        if not isinstance(iterator, streams):
            iterator = (_values(batch, strategy) for batch in iterator)
        with _own_words():
            return function(iterator)

    return divided


def _check_options(model, is_training):
    """Raises a ValueError for options with which Keras 3.15 fails on several replicas."""
    found = []
    if model.steps_per_execution > 1:
        found.append(f"steps_per_execution={model.steps_per_execution}")
    if model.jit_compile and not model.run_eagerly:
        found.append("jit_compile=True")
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    names = ("gradient_accumulation_steps", "ema_overwrite_frequency")
    for name in names if is_training else ():
        if value := getattr(optimizer, name, None):
            found.append(f"{name}={value} of the optimizer")
    if found:
        raise ValueError(
            "Under a tf.distribute strategy Keras cannot run several steps at once, "
            "compile a step with XLA, accumulate gradients, or overwrite weights with "
            f"their averages during training. Received: {', '.join(found)}. Leave it out, "
            "or use one device."
        )


@contextlib.contextmanager
def _own_words():
    import tensorflow as tf

    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        said = re.search(f"{_UNEVEN}.*?{_WAY_OUT}", error.message)
        if said is None:
            raise
        raise ValueError(said[0]) from None


def _step_in_replica(model, step_function, data):
    if _is_marked(data):
        rows, data = data[_ROWS][0], data[_BATCH]
        reason = _needs_equal_parts(model)
    else:
        rows, reason = _sum(_num_rows(data)), "as they were divided elsewhere"
    if reason is not None:
        data = _only_if_even(data, rows, reason)
    _here.rows = None if reason else rows
    try:
        return step_function(data)
    finally:
        _here.rows = None


def _needs_equal_parts(model):
    """Reason to leave a model to Keras' steps, which need equal parts; or `None`."""
    if own := overridden(model, _STEPS):
        return f"as {type(model).__name__} has a {own[0]} of its own"
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            return (
                f"as BatchNormalization ({layer.name}) has statistics of the rows of each"
            )
    return None


def _only_if_even(data, rows, reason):
    """The data, with an assertion that each replica has equally many rows."""
    import tensorflow as tf

    count = _context().num_replicas_in_sync
    said = tf.strings.format(
        f"{_UNEVEN}{reason}. Received: a batch of {{}} for {count} devices. Use a "
        f"multiple of {count} and drop_remainder=True, {_WAY_OUT}",
        rows,
    )
    with tf.control_dependencies([tf.debugging.Assert(rows % count == 0, [said])]):
        return _map(tf.identity, data)


def _num_rows(data):
    """Number of rows of dense, sparse or ragged data."""
    import tensorflow as tf

    first = next(x for x in keras.tree.flatten(data) if x is not None)
    return first.nrows() if isinstance(first, tf.RaggedTensor) else tf.shape(first)[0]


def _train_step(original, model, data):
    if getattr(_here, "rows", None) is None:
        return original(model, data)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss, logs = _loss_and_logs(model, data, training=True)
        # Gradients are summed over the replicas, and each has the complete loss.
        scaled = model.optimizer.scale_loss(loss / _context().num_replicas_in_sync)
    weights = model.trainable_weights
    model.optimizer.apply_gradients(
        zip(tape.gradient(scaled, weights), weights, strict=True)
    )
    return logs


def _test_step(original, model, data):
    if getattr(_here, "rows", None) is None:
        return original(model, data)
    return _loss_and_logs(model, data, training=False)[1]


def _loss_and_logs(model, data, training):
    """The loss of the complete batch and the values of the metrics, in each replica."""
    rows = _here.rows
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    outputs = model(x, **call_options(model, training))
    # The replicas share one list of losses, and take turns where they exchange tensors.
    added, is_added = list(model.losses), has_added_losses(model)
    y_pred = keras.tree.map_structure(lambda own: _whole_output(own, rows), outputs)
    y, sample_weight = _map(lambda leaf: _whole(leaf)[:rows], (y, sample_weight))
    _here.is_whole = True
    try:
        with losses_of_call(model, added):
            loss = model.compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
            )
    finally:
        _here.is_whole = False
    value = loss
    if added:
        if is_added:
            loss = _only_if_even(loss, rows, "as layers add losses of their own rows")
        value = _sum(loss) / _context().num_replicas_in_sync
    # Keras sums the metrics over the replicas, so only one of them updates.
    if _index() == 0:
        track_loss(model, value, rows)
        logs = model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
    else:
        logs = model.get_metrics_result()
    return loss, _map(_of_first, logs)


def _not_of_whole_batches(scale):
    """Keras' scaling of a replica's loss, skipped for the loss of a complete batch."""

    @functools.wraps(scale)
    def scaled(value):
        return value if getattr(_here, "is_whole", False) else scale(value)

    return scaled


# Collective operations of the replicas.


def _context():
    import tensorflow as tf

    return tf.distribute.get_replica_context()


def _index():
    import tensorflow as tf

    return int(tf.get_static_value(_context().replica_id_in_sync_group))


def _sum(tensor):
    import tensorflow as tf

    return _context().all_reduce(tf.distribute.ReduceOp.SUM, tensor)


def _of_first(tensor):
    """A tensor of the first replica, in all of them."""
    import tensorflow as tf

    tensor = tf.convert_to_tensor(tensor)
    return _sum(tensor if _index() == 0 else tf.zeros_like(tensor))


def _whole(own):
    """The rows of all replicas."""
    import tensorflow as tf

    if own.dtype.is_bool or own.dtype.size < 2:  # not every device can add these
        return tf.cast(_whole(tf.cast(own, "int32")), own.dtype)
    index, count, rows = _index(), _context().num_replicas_in_sync, tf.shape(own)[0]
    around = [[index * rows, (count - 1 - index) * rows]]
    return _sum(tf.pad(own, around + [[0, 0]] * (own.shape.rank - 1)))


def _whole_output(own, rows):
    """The outputs for all rows; the gradients of this replica's rows flow back."""
    import tensorflow as tf

    if not own.shape.rank:
        mean = _sum(own) / _context().num_replicas_in_sync
        mean = _only_if_even(mean, rows, "as the model returns a mean of its own rows")
        return own + tf.stop_gradient(mean - own)

    @tf.custom_gradient
    def gathered(own):
        def back(gradient):
            index, number = _index(), tf.shape(own)[0]
            part = gradient[index * number : (index + 1) * number]
            return part * _context().num_replicas_in_sync

        return _whole(own), back

    whole = gathered(own)[:rows]
    part = mask(own)
    if part is not None:
        set_mask(whole, _whole(part)[:rows])
    return whole


# Predictions.


def _make_predict_function(original, model, force=False):
    before = model.predict_function
    original(model, force)
    function, strategy = model.predict_function, model.distribute_strategy
    if function is before or not _several(strategy):
        return

    def predict(steps):
        import tensorflow as tf

        outputs = [_predicted(function, step, strategy) for step in steps]
        return keras.tree.map_structure(lambda *parts: tf.concat(parts, 0), *outputs)

    model.predict_function = predict


def _predicted(function, step, strategy):
    import tensorflow as tf

    leaves = keras.tree.flatten(step)
    if not any(isinstance(leaf, tf.distribute.DistributedValues) for leaf in leaves):
        step = _values(step, strategy)
    if not _is_marked(step):
        return function([step])
    rows = strategy.experimental_local_results(step[_ROWS])[0][0]
    outputs = function([step[_BATCH]])
    return keras.tree.map_structure(lambda output: output[:rows], outputs)
