"""MixUp and CutMix, which mix the examples of a batch and their labels.

keras-cv's layers draw random numbers from stateful generators in the method that mixes, so
they cannot be used with a given seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_vit.data.packages import tensorflow

if TYPE_CHECKING:
    import tensorflow as tf


def mix(
    images: tf.Tensor,
    labels: tf.Tensor,
    mixup_alpha: float,
    cutmix_alpha: float,
    seed: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies MixUp or CutMix to a batch; if both alphas are positive, one at random.

    Args:
        images: float32 tensor (batch, height, width, channels).
        labels: float32 tensor (batch, classes), one-hot.
        mixup_alpha: parameter of MixUp; 0 for none.
        cutmix_alpha: parameter of CutMix; 0 for none.
        seed: int64 tensor (2,).

    Returns:
        The mixed images and labels.
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


def mixup(
    images: tf.Tensor, labels: tf.Tensor, alpha: float, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Blends each example with its neighbour in the batch, by one weight for all.

    The example itself has the larger share. Source: arXiv 1710.09412, as in BigVision's
    code, which AugReg uses.
    """
    share = _beta(alpha, seed)
    share = tensorflow().maximum(share, 1 - share)
    return _blend(images, share), _blend(labels, share)


def cutmix(
    images: tf.Tensor, labels: tf.Tensor, alpha: float, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pastes a rectangle of its neighbour into each example, the same for all.

    The area is one minus a Beta-distributed share. The centre is anywhere in the image, and
    the rectangle is clipped at the border. Labels are mixed by the remaining area. Source:
    arXiv 1905.04899, algorithm 1.
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
    """Draws one number from the distribution Beta(alpha, alpha).

    It uses Gamma(alpha) = Gamma(alpha + 1) · U^(1 / alpha) in logarithms, which do not
    underflow for small alphas.
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
