"""The planted engines plant what their names say, so that finding them proves something."""

import pytest
import tensorflow as tf

import keras_pergrad as pg
from tests import oracle, planted
from tests.cases import make_case
from tests.problems import by_name
from tests.samples import expect_exact, materialized

SHARED = ("dense_called_twice", "dense_on_two_inputs", "tied_transposed_kernel")


@pytest.mark.parametrize("name", ["dense", "conv2d"])
def test_the_first_use_of_weights_that_are_used_once_is_all_of_them(float64, name):
    case = make_case(by_name(name))
    expected = oracle.own_gradients(case.model, *case.batch)
    found = materialized(case.model, *case.batch, engine=planted.FirstUse(), of="own")
    expect_exact(found, expected, "float64")


@pytest.mark.parametrize("name", SHARED)
def test_the_first_use_of_weights_that_are_used_twice_is_found_out(name):
    case = make_case(by_name(name))
    report = pg.check_equivalence(case.model, *case.batch, engine=planted.FirstUse())
    assert not report.equivalent and not report.mean.passed and not report.oracle.passed


def test_the_first_use_is_one_of_two(float64):
    """With the second call's weights held constant by hand, plain Keras gives the same."""
    case = make_case(by_name("dense_called_twice"))
    [shared] = [layer for layer in case.model.layers if layer.weights]
    found = materialized(case.model, *case.batch, engine=planted.FirstUse(), of="own")
    call, calls = shared.call, []

    def first_only(inputs, training=None):
        calls.append(inputs)
        if len(calls) % 2:
            return call(inputs)
        kernel, bias = (tf.stop_gradient(tf.convert_to_tensor(v)) for v in shared.weights)
        return shared.activation(inputs @ kernel + bias)

    shared.call = first_only
    expected = oracle.own_gradients(case.model, *case.batch)
    expect_exact(found, expected, "float64")
