"""Settings of the service, from environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from evcache.testing.local_zones import BackendName

TracesTo = Literal["console", "otlp", "none"]


@dataclass(frozen=True, slots=True)
class Settings:
    zones: str | None = None
    """Node list `eu-1a=host:port,...;eu-1b=...`, or the path of a TOML file. If None, the service starts local zones."""
    backend: BackendName = "auto"
    """Backend of local zones."""
    redis: str | None = None
    """Address of the invalidation channel. If None, near caches show writes of other processes up to 2 s later."""
    traces_to: TracesTo = "console"
    """Exporter of traces, from OTEL_TRACES_EXPORTER. The SDK reads other variables, such as OTEL_TRACES_SAMPLER."""
    read_timeout: float = 0.1
    write_timeout: float = 0.5
    cache_patience: float = 30.0
    """Seconds after the start for which the service waits for a zone that can be read before it is ready without one."""
    host: str = "127.0.0.1"
    port: int = 8000

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        return cls(
            zones=environment.get("EVCACHE_ZONES") or None,
            redis=environment.get("EVCACHE_REDIS") or None,
            traces_to=_traces_to(environment.get("OTEL_TRACES_EXPORTER") or "console"),
            host=environment.get("HOST") or "127.0.0.1",
            port=int(environment.get("PORT") or 8000),
        )


def _traces_to(name: str) -> TracesTo:
    if name not in get_args(TracesTo):
        raise SystemExit(f"invalid OTEL_TRACES_EXPORTER: {name!r} is none of {', '.join(get_args(TracesTo))}")
    return cast("TracesTo", name)
