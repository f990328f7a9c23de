"""What the service is told by its environment."""

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
    """As `EVCache` takes them: `eu-1a=host:port,...;eu-1b=...`, or the path of a TOML file. None: zones of its own."""
    backend: BackendName = "auto"
    """What zones of its own are made of."""
    redis: str | None = None
    """Where processes tell each other what they have written. None: nowhere, and others' writes are seen up to 2 s later."""
    traces_to: TracesTo = "console"
    """From OpenTelemetry's own variable. The SDK reads others by itself, such as OTEL_TRACES_SAMPLER."""
    read_timeout: float = 0.1
    write_timeout: float = 0.5
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
        raise SystemExit(f"OTEL_TRACES_EXPORTER is {name!r}, and can be {', '.join(get_args(TracesTo))}")
    return cast("TracesTo", name)
