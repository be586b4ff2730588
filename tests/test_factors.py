"""Every factor answers what the gradients that it stands for would, written out."""

import numpy as np
import pytest
import tensorflow as tf

from keras_pergrad.gradients import (
    Convolved,
    Gathered,
    Materialized,
    Product,
    View,
    Viewed,
    projected,
    projected_zeros,
    rows_of,
    summed,
    times,
)
from tests.problems import floats, whole

B = 5


def _product(positions: int, inputs: int, outputs: int, seed: int = 1) -> Product:
    left, right = floats(B, positions, inputs, seed=seed), floats(B, positions, outputs, seed=9)
    return Product(tf.constant(left), tf.constant(right))


def _gathered(positions: int = 4) -> Gathered:
    ids = tf.constant(whole(3, B, positions, seed=1))  # of six: some repeat, some never occur
    return Gathered(ids, tf.constant(floats(B, positions, 2, seed=2)), 6)


def _convolved(size: int, channels: int, strides=(1, 1), dilations=(1, 1)) -> Convolved:
    images = tf.constant(floats(B, 2, size, size, channels, seed=1))
    places = (size - dilations[0] - 1) // strides[0] + 1
    right = tf.constant(floats(B, 2, places, places, 3, seed=2))
    return Convolved(images, right, (2, 2), strides, dilations)


def _tied() -> object:
    """A table that is looked up, and met as a matrix, too."""
    matrix = _product(2, 2, 6)
    turned = Viewed(matrix, View((6, 2), (1, 0), (2, 6)))
    return summed([_gathered(), turned])


FACTORS = {
    "materialized": lambda: Materialized(tf.constant(floats(B, 3, 2, seed=1))),
    "one position": lambda: _product(1, 4, 3),
    "few positions, Gram form": lambda: _product(2, 9, 8),
    "many positions, matrices": lambda: _product(7, 2, 3),
    "two products": lambda: summed([_product(2, 4, 3), _product(3, 4, 3, seed=5)]),
    "lookup": _gathered,
    "two lookups": lambda: summed([_gathered(4), _gathered(2)]),
    "convolution": lambda: _convolved(4, 2),
    "wide convolution, Gram form": lambda: _convolved(3, 40),
    "strided convolution": lambda: _convolved(5, 2, strides=(2, 2)),
    "dilated convolution": lambda: _convolved(5, 2, dilations=(2, 2)),
    "transposed": lambda: Viewed(_product(2, 4, 3), View((3, 4), (1, 0), (4, 3))),
    "moved axes": lambda: Viewed(_product(2, 4, 6), View((3, 2, 4), (2, 0, 1), (4, 6))),
    "negated": lambda: Viewed(_product(2, 4, 3), View.reshape((12,), (4, 3)), -1),
    "tied": _tied,
    "scaled": lambda: times(tf.constant(-0.5), times(tf.constant(1.5), _product(2, 4, 3))),
}
each_factor = pytest.mark.parametrize("make", FACTORS.values(), ids=list(FACTORS))
pytestmark = pytest.mark.usefixtures("float64")


def _expect(found, expected) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@each_factor
def test_all_questions(make):
    factor = make()
    rows = Materialized(factor.materialize())
    weights, vector = tf.constant(floats(B, seed=3)), tf.constant(floats(*rows.values.shape[1:]))
    _expect(factor.squared_norms(), rows.squared_norms())
    _expect(factor.weighted_sum(None), rows.weighted_sum(None))
    _expect(factor.weighted_sum(weights), rows.weighted_sum(weights))
    _expect(factor.weighted_sum(tf.range(B)), rows.weighted_sum(tf.range(B)))
    _expect(factor.dot(vector), rows.dot(vector))
    _expect(factor.gram(factor), rows.gram(rows))
    _expect(factor.gram(rows), rows.gram(rows))
    _expect(factor.sum_of_squares(), rows.sum_of_squares())


@each_factor
def test_some_samples(make):
    factor, indices = make(), tf.constant([3, 0, 3])
    _expect(rows_of(factor, indices).materialize(), tf.gather(factor.materialize(), indices))


@each_factor
def test_nothing_is_written_out_for_a_sum(make):
    """No tensor of a weighted sum, and none of the sum's gradients, is as large as `B × P`."""
    factor = make()
    if factor.form == "materialized":
        pytest.skip("it is written out already")
    weights = tf.ones([B], tf.float64)
    graph = tf.function(lambda: factor.weighted_sum(weights)).get_concrete_function().graph
    size = B * int(np.prod(factor.materialize().shape[1:]))
    made = [o for o in graph.get_operations() if o.type not in ("Const", "Placeholder")]
    largest = max(t.shape.num_elements() or 0 for o in made for t in o.outputs)
    held = max(t.shape.num_elements() or 0 for t in graph.inputs)
    assert largest < size or largest <= held


@pytest.mark.parametrize(("inputs", "outputs", "written_out"), [(64, 64, False), (2, 3, True)])
def test_the_cheaper_form_is_chosen_by_the_shapes(inputs, outputs, written_out):
    factor = _product(4, inputs, outputs)
    graph = tf.function(factor.squared_norms).get_concrete_function().graph
    shapes = [t.shape.as_list() for o in graph.get_operations() for t in o.outputs]
    assert ([B, inputs, outputs] in shapes) is written_out
    assert ([B, 4, 4] in shapes) is not written_out


@each_factor
def test_sums_are_compared_by_projections(make):
    """Equal sums stay equal, and the norm of a difference is seen; exactly, or on average."""
    factor = make()
    total = factor.weighted_sum(None)
    _expect(factor.projected_sum(), projected(total))
    assert projected_zeros(total).shape == projected(total).shape
    assert projected_zeros(total).dtype == projected(total).dtype
    off = tf.constant(floats(*total.shape, seed=7))
    seen = tf.norm(projected(total + off) - projected(total))
    # Four vectors of signs estimate the norm; of a difference of random numbers within a half.
    assert 0.5 < seen / tf.norm(off) < 1.5


def test_a_large_sum_is_compared_without_it():
    factor = _product(1, 64, 48)
    graph = tf.function(factor.projected_sum).get_concrete_function().graph
    made = [o for o in graph.get_operations() if o.type not in ("Const", "Placeholder")]
    assert max(t.shape.num_elements() or 0 for o in made for t in o.outputs) < 64 * 48 / 4


@pytest.mark.parametrize(("inputs", "outputs", "few"), [(64, 64, True), (2, 3, False)])
def test_few_samples_meet_each_other_and_not_the_weight(inputs, outputs, few):
    factor = times(
        2.0,
        Viewed(_product(1, inputs, outputs), View.reshape((inputs, outputs), (inputs, outputs))),
    )
    assert factor.meets_few is few
