"""`tf.vectorized_map`, exactly, and without a word.

Operations that TensorFlow 2.21 stacks wrongly or not at all are stacked here, one file for each
kind of them.
"""

from keras_pergrad._stacking._map import stacked_map

__all__ = ["stacked_map"]
