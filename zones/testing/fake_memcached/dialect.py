"""What differs between memcached releases, as far as a client can notice."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """The abilities of one release, decided once so that commands never compare version numbers."""

    version: str
    classic_only: bool  # the meta commands do not exist, each one answers ERROR
    serverless: bool  # the restrictions of Amazon ElastiCache Serverless, see `FakeMemcached`
    twemproxy: bool  # few commands, and every other one closes the connection

    explicit_cas: bool  # 1.6.27: `E` sets the CAS, `x` drops a value
    append_creates: bool  # 1.6.20: `ms MA N60` makes a missing item
    reports_stored_size: bool  # 1.6.20: `ms s`
    conditional_get: bool  # 1.6.40: `mg C` leaves the value out when the CAS is equal
    signed_me_expiry: bool  # 1.6.24: before it, `me` printed exp with the wrong sign
    newer_stats: bool  # the lines of `stats` are those of 1.6.38, else those of 1.6.18; it is not known which release began
    cas_taken_with_line: bool  # 1.6.27: an `ms` line takes its CAS number, stored or not; before it, only a store does

    @classmethod
    def of(cls, version: str, *, classic_only: bool = False, serverless: bool = False, twemproxy: bool = False) -> Dialect:
        """Read `1.6.38`, or any text that contains three numbers with dots; ValueError otherwise."""
        match = re.search(r"(\d+)\.(\d+)\.(\d+)", version)
        if match is None:
            raise ValueError(f"not a memcached version: {version!r}")
        number = tuple(int(part) for part in match.groups())
        return cls(
            version=version,
            classic_only=classic_only,
            serverless=serverless,
            twemproxy=twemproxy,
            explicit_cas=number >= (1, 6, 27),
            append_creates=number >= (1, 6, 20),
            reports_stored_size=number >= (1, 6, 20),
            conditional_get=number >= (1, 6, 40),
            signed_me_expiry=number >= (1, 6, 24),
            newer_stats=number >= (1, 6, 27),
            cas_taken_with_line=number >= (1, 6, 27),
        )
