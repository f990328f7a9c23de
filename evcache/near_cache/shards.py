"""Into how many parts a large dict or set is divided, and which of them has a key: `hash(key) & LAST_SHARD`.

Python rebuilds a dict as a whole: while it grows, and when so many have come and gone that its places are used up. With
100,000 entries that takes 4 to 13 ms, in which nothing else runs; with 25,000 0.8 ms, with 12,500 0.36 and with 6,250 0.15.
Moving entries to a new dict a few at a time does not help: it would be rebuilt as it grows, up to the same size.
"""

from __future__ import annotations

# 6,250 of 100,000 entries in each, and 400,000 under a millisecond. A look-up costs the same with 4, 8 or 16.
#
# By the hash, which spreads whatever the keys look like. Measured in one run, a hit by `cache.get`, of 1.7 us with one dict,
# takes so much longer: by the hash 0.08 to 0.14 us; by the last two bytes 0.14; by the last byte, which a table of 256 finds
# the part of, 0.06. But keys that end alike are common (`user:1:profile`), and would all be in one part. A small dict of the
# keys in demand before the parts costs a hit nothing that it has, and one that it has not a fifth, as with 20,000 keys that
# are read alike.
SHARDS = 16
LAST_SHARD = SHARDS - 1  # a mask
