"""What a server's answers mean for its client, and the sizes that fit."""

import pytest

from evcache.zones.nodes.capabilities import DEFAULT_ITEM_BYTES, Capabilities


def capabilities(*, explicit_cas=True, cas=True, item_bytes=DEFAULT_ITEM_BYTES):
    return Capabilities(server="1.6.38", explicit_cas=explicit_cas, cas=cas, item_bytes=item_bytes)


@pytest.mark.parametrize(
    ("explicit_cas", "cas", "expected"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_versions_need_a_cas_and_the_right_to_choose_it(explicit_cas, cas, expected):
    assert capabilities(explicit_cas=explicit_cas, cas=cas).versions is expected


def test_a_value_as_large_as_promised_fits_a_real_server():
    """Under a key of one byte a memcached with defaults takes 1,048,516 bytes, and 4 less where flags have 8 bytes."""
    largest = capabilities().largest_value(b"k")
    assert 1_048_500 < largest <= 1_048_512


def test_each_byte_of_the_key_is_one_less_for_the_value():
    server = capabilities(item_bytes=2_048)
    assert server.largest_value(b"k" * 250) == server.largest_value(b"k") - 249


def test_a_smaller_item_limit_leaves_that_much_less():
    assert (
        capabilities().largest_value(b"k") - capabilities(item_bytes=1_024).largest_value(b"k") == DEFAULT_ITEM_BYTES - 1_024
    )


def test_the_default_item_size_is_memcacheds():
    assert DEFAULT_ITEM_BYTES == 1_048_576
