"""What is done before anything imports Keras, which may import TensorFlow."""

from keras_vit import remarks

remarks.leave_out_at_import()
