"""Into how many parts a large dict or set is divided, and which of them has a key: `hash(key) & LAST_SHARD`.

Python rebuilds a dict as a whole: while it grows, and when so many have come and gone that its places are used up. With
100,000 entries that takes 4 to 13 ms, in which the event loop does nothing else; with 12,500 it takes 0.36 ms, and with
6,250 0.15 ms (thread time). No call can spread that out: the new dict would have to grow by such steps too.
"""

from __future__ import annotations

# 6,250 entries in each of 100,000; 400,000 stay under a millisecond. A look-up costs the same with 4, 8 or 16.
#
# By the hash, which spreads whatever the keys look like. It costs a hit by `cache.get`, of 1.6 us, some 0.1 us, and the last
# byte of the key, looked up in a table of 256, 0.05 us. But keys that end alike are common (`user:1:profile`), and would all
# be in one part. A small dict for the keys in demand, in front of the parts, costs nothing when it has a key, and a fifth of
# the hit when 20,000 keys are read alike.
SHARDS = 16
LAST_SHARD = SHARDS - 1  # a mask
