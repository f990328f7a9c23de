"""Public names of the package: those that the reference documents."""

import importlib

PACKAGES = ["evcache", "evcache.channels", "evcache.testing", "evcache.zones"]
FURTHER = ["evcache.channels.redis.RedisChannel", "evcache.write_behind.Cache"]
PUBLIC = [*(f"{package}.{name}" for package in PACKAGES for name in importlib.import_module(package).__all__), *FURTHER]


def value_of(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)
