"""Which row of the data it was: ids that travel with it, or fingerprints of its bits."""

from keras_pergrad.rows._fingerprint import fingerprints, locate
from keras_pergrad.rows._order import expect_in_order
from keras_pergrad.rows._pack import is_packed, plain_batch, unpacked, with_ids, without_ids

__all__ = [
    "expect_in_order",
    "fingerprints",
    "is_packed",
    "locate",
    "plain_batch",
    "unpacked",
    "with_ids",
    "without_ids",
]
