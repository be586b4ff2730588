"""Convolutions: ranks, strides, dilation, groups, causal padding, depthwise, transposed."""

from keras import layers, ops

from tests.problems._base import stack

PROBLEMS = (
    stack("conv1d", (6, 2), (4, 3), lambda: [layers.Conv1D(3, 3, activation="tanh")]),
    stack(
        "conv1d_causal_dilated",
        (6, 2),
        (6, 3),
        lambda: [layers.Conv1D(3, 2, padding="causal", dilation_rate=2, activation="tanh")],
    ),
    stack("conv1d_groups", (6, 4), (5, 2), lambda: [layers.Conv1D(2, 2, groups=2)]),
    stack("conv1d_strides", (6, 2), (3, 3), lambda: [layers.Conv1D(3, 2, 2, use_bias=False)]),
    stack(
        "conv2d",
        (5, 4, 2),
        (2,),
        lambda: [
            layers.Conv2D(3, 3, activation="tanh"),
            layers.Flatten(),
            layers.Dense(2, activation="tanh"),
        ],
    ),
    stack(
        "conv2d_two_in_a_row",
        (5, 5, 2),
        (3, 3, 2),
        lambda: [
            layers.Conv2D(3, 2, activation="tanh"),
            layers.Conv2D(2, 2, activation="tanh"),
        ],
    ),
    stack("conv2d_strides_same", (5, 5, 2), (3, 3, 2), lambda: [layers.Conv2D(2, 3, 2, "same")]),
    stack("conv2d_dilation", (5, 5, 2), (3, 3, 2), lambda: [layers.Conv2D(2, 2, dilation_rate=2)]),
    stack(
        "conv2d_groups",
        (4, 4, 4),
        (3, 3, 4),
        lambda: [layers.Conv2D(4, 1, activation="tanh"), layers.Conv2D(4, 2, groups=2)],
    ),
    stack(
        "conv2d_groups_strides_same",
        (5, 4, 4),
        (3, 2, 6),
        lambda: [layers.Conv2D(6, 2, strides=2, groups=2, padding="same", activation="tanh")],
    ),
    stack("conv2d_pooled", (4, 4, 1), (2, 2, 2), lambda: [layers.Conv2D(2, 1), layers.MaxPool2D()]),
    stack("conv3d", (3, 4, 3, 2), (2, 3, 2, 2), lambda: [layers.Conv3D(2, 2, activation="tanh")]),
    stack("conv3d_groups", (3, 3, 3, 2), (2, 2, 2, 2), lambda: [layers.Conv3D(2, 2, groups=2)]),
    stack("conv3d_strides", (4, 4, 4, 1), (2, 2, 2, 2), lambda: [layers.Conv3D(2, 2, strides=2)]),
    stack(
        "depthwise_conv1d",
        (5, 2),
        (4, 4),
        lambda: [layers.DepthwiseConv1D(2, depth_multiplier=2, activation="tanh")],
    ),
    stack(
        "depthwise_conv2d",
        (4, 4, 2),
        (3, 3, 4),
        lambda: [layers.DepthwiseConv2D(2, depth_multiplier=2, activation="tanh")],
    ),
    stack(
        "depthwise_conv2d_strides",
        (5, 5, 2),
        (3, 3, 2),
        lambda: [
            layers.Conv2D(2, 1, activation="tanh"),
            layers.DepthwiseConv2D(3, strides=2, padding="same"),
        ],
    ),
    stack(
        "separable_conv1d",
        (5, 2),
        (4, 3),
        lambda: [layers.SeparableConv1D(3, 2, depth_multiplier=2, activation="tanh")],
    ),
    stack(
        "separable_conv2d",
        (4, 4, 2),
        (3, 3, 3),
        lambda: [layers.SeparableConv2D(3, 2, depth_multiplier=2, activation="tanh")],
    ),
    stack(
        "conv2d_after_padding_with_ones",
        (3, 3, 2),
        (4, 4, 2),
        lambda: [
            layers.Dense(2, "tanh"),
            layers.Lambda(
                lambda v: ops.pad(v, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=1.0)
            ),
            layers.Conv2D(2, 2),
        ],
    ),
    stack("conv1d_transpose", (4, 2), (8, 3), lambda: [layers.Conv1DTranspose(3, 2, 2)]),
    stack(
        "conv2d_transpose",
        (3, 3, 2),
        (6, 6, 2),
        lambda: [
            layers.Conv2DTranspose(2, 3, strides=2, padding="same", activation="tanh"),
            layers.Conv2DTranspose(2, 1),
        ],
    ),
    stack(
        "conv3d_transpose",
        (2, 3, 2, 2),
        (3, 4, 3, 2),
        lambda: [layers.Conv3DTranspose(2, 2, activation="tanh")],
    ),
)
