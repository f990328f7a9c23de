"""Write-behind: values go to the cache at once and to the source later, in batches."""

from evcache.write_behind.api import BufferFull, Cache, WriteBehind
from evcache.write_behind.batch import PendingWrite, PutReceipt
from evcache.write_behind.buffer import WriteBehindStats

__all__ = ["BufferFull", "Cache", "PendingWrite", "PutReceipt", "WriteBehind", "WriteBehindStats"]
