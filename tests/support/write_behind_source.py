"""What write-behind writes to in tests."""

import asyncio

from tests.support.virtual_time import now


class Source:
    """A writer, and what it was given. `fails`: how many tries fail, or a function of the batch that says whether one does."""

    def __init__(self, *, fails=0, takes=0.0):
        self.fails = fails
        self.takes = takes
        self.tries = []
        self.values = {}
        self.at_once = 0

    @property
    def batches(self):
        return [batch for _, batch, _ in self.tries]

    @property
    def times(self):
        return [round(time, 3) for time, _, _ in self.tries]

    @property
    def ids(self):
        return [batch_id for _, _, batch_id in self.tries]

    async def __call__(self, batch):
        self.tries.append((now(), dict(batch), batch.id))
        self.at_once += 1
        assert self.at_once == 1, "one flush at a time"
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.at_once -= 1
        if callable(self.fails):
            fails = self.fails(batch)
        else:
            fails, self.fails = self.fails > 0, self.fails - 1
        if fails:
            raise OSError("the source is down")
        for key, value in batch.items():
            self.values[key] = self.values.get(key, 0) + value if key in batch.deltas else value
