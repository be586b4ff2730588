"""From the gradient of what met the samples back to that of the weight it was made of."""

from __future__ import annotations

import tensorflow as tf

from keras_pergrad._stacking import stacked_map
from keras_pergrad.gradients import Factor, Materialized, Viewed
from keras_pergrad.sites._site import NoSiteError, Site
from keras_pergrad.sites.rules import apply_rule


def factor_at(site: Site, gradient: tf.Tensor, met: list[tf.Tensor]) -> Factor:
    """The sample gradients of a weight, as far as they come from one site.

    Args:
        site: the site.
        gradient: of the loss with respect to the site's output.
        met: the outputs of all sites of the weight, behind which others count what is made of it.

    Raises:
        NoSiteError: there is no rule for the operation, or no way back to the weight.
    """
    factor = apply_rule(site, gradient)
    found = site.view()
    if found is None:
        return _pulled(site, factor, met)
    view, sign = found
    return factor if sign == 1 and view.is_none else Viewed(factor, view, sign)


def _pulled(site: Site, factor: Factor, met: list[tf.Tensor]) -> Factor:
    """Through any computation that no sample touches: its own derivative, for all at once."""

    def back(row: tf.Tensor) -> tf.Tensor:
        parts = tf.gradients(
            site.met,
            list(site.weight),
            grad_ys=tf.cast(row, site.met.dtype),
            stop_gradients=met,
        )
        dense = [tf.convert_to_tensor(part) for part in parts if part is not None]
        total = tf.add_n(dense) if dense else tf.zeros_like(site.weight[0])
        return tf.ensure_shape(total, site.shape)

    try:
        rows = stacked_map(back, factor.materialize())
    except (ValueError, TypeError, LookupError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise NoSiteError(f"no way back from {site.met.op.name!r}: {reason}") from error
    return Materialized(tf.ensure_shape(rows, [None, *site.shape]))
