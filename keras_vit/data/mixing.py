"""MixUp and CutMix: the examples of a batch mixed with others of it, labels too.

keras-cv's layers for this draw from generators with a state in the very method that
mixes, so nothing of them can be used where randomness comes from a seed.
"""

from keras_vit.data.packages import tensorflow


def mix(images, labels, mixup_alpha: float, cutmix_alpha: float, seed):
    """MixUp or CutMix of a batch: by the one whose alpha is positive, or one at random.

    Args:
        images: float32 tensor (batch, height, width, channels).
        labels: float32 tensor (batch, classes), one-hot.
        mixup_alpha: float, 0 for no MixUp.
        cutmix_alpha: float, 0 for no CutMix.
        seed: int64 tensor (2,).
    """
    tf = tensorflow()
    choice, seed = tf.unstack(tf.random.split(seed, 2))
    if not cutmix_alpha:
        return mixup(images, labels, mixup_alpha, seed)
    if not mixup_alpha:
        return cutmix(images, labels, cutmix_alpha, seed)
    return tf.cond(
        tf.random.stateless_uniform([], choice) < 0.5,
        lambda: mixup(images, labels, mixup_alpha, seed),
        lambda: cutmix(images, labels, cutmix_alpha, seed),
    )


def mixup(images, labels, alpha: float, seed):
    """Each example blended with its neighbour in the batch, by one weight for all.

    The larger share is the example's own. Source: arXiv 1710.09412, as in BigVision's
    code, which is AugReg's.
    """
    share = _beta(alpha, seed)
    share = tensorflow().maximum(share, 1 - share)
    return _blend(images, share), _blend(labels, share)


def cutmix(images, labels, alpha: float, seed):
    """Each example with a rectangle from its neighbour, the same rectangle for all.

    Its area is one minus a Beta-distributed share, its middle anywhere in the image, at
    whose border it ends; labels are mixed by the area that is left. Source: arXiv
    1905.04899, algorithm 1.
    """
    tf = tensorflow()
    area, middle = tf.unstack(tf.random.split(seed, 2))
    sides = tf.cast(tf.shape(images)[1:3], "float32")
    half = tf.sqrt(1 - _beta(alpha, area)) * sides / 2
    middle = tf.random.stateless_uniform([2], middle) * sides
    low = tf.round(tf.maximum(middle - half, 0))
    high = tf.round(tf.minimum(middle + half, sides))
    rows, columns = (
        (tf.range(sides[axis]) >= low[axis]) & (tf.range(sides[axis]) < high[axis])
        for axis in (0, 1)
    )
    inside = (rows[:, None] & columns[None, :])[None, ..., None]
    share = 1 - tf.reduce_prod(high - low) / tf.reduce_prod(sides)
    return tf.where(inside, _neighbours(images), images), _blend(labels, share)


def _beta(alpha: float, seed):
    """One number of the distribution Beta(alpha, alpha).

    By way of Gamma(alpha) = Gamma(alpha + 1) · U^(1 / alpha), whose logarithm, unlike the
    number, is in range for small alphas, too.
    """
    tf = tensorflow()
    gamma_seed, uniform_seed = tf.unstack(tf.random.split(seed, 2))
    alpha = tf.constant(alpha, "float64")
    gammas = tf.random.stateless_gamma([2], gamma_seed, alpha + 1, dtype="float64")
    uniforms = tf.random.stateless_uniform([2], uniform_seed, dtype="float64")
    logs = tf.math.log(gammas) + tf.math.log(uniforms) / alpha
    return tf.cast(tf.sigmoid(logs[0] - logs[1]), "float32")


def _blend(values, share):
    return share * values + (1 - share) * _neighbours(values)


def _neighbours(values):
    return tensorflow().roll(values, 1, axis=0)
