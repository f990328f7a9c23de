"""A cache for functions that are cached: it keeps what they return, and remembers what it was asked."""

from evcache import WriteResult

DONE = WriteResult(met=True, version=1, zones={})


class Memory:
    """A cache that remembers what it was asked."""

    def __init__(self):
        self.held = {}
        self.asked = []

    async def get_or_load(self, key, loader, *, ttl=None, policy=None, timeout=None, near_cache=True):
        self.asked.append(("get_or_load", key, {"ttl": ttl, "policy": policy, "timeout": timeout, "near_cache": near_cache}))
        if key not in self.held:
            value = await loader()
            if value is None:
                return None
            self.held[key] = value
        return self.held[key]

    async def delete(self, key):
        self.asked.append(("delete", key))
        self.held.pop(key, None)
        return DONE

    async def invalidate(self, key, *, stale_while_revalidate):
        self.asked.append(("invalidate", key, stale_while_revalidate))
        return DONE
