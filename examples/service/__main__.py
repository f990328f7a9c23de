"""Run the service."""

import logging

import uvicorn

from examples.service.app import make_app
from examples.service.products import Database
from examples.service.settings import Settings
from examples.service.telemetry import Observing

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
settings = Settings.from_environment()
observing = Observing(settings.traces_to)
observing.install()
# Logs to stderr, spans to stdout; each request is a span, so there is no access log.
uvicorn.run(
    make_app(settings, observing, Database(observing.traces)),
    host=settings.host,
    port=settings.port,
    access_log=False,
    log_config=None,
)
