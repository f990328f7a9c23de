"""Zone names in the metadata services of ECS, EC2, GCE and Azure.

EC2, GCE and Azure have the same address. A machine of one cloud answers the requests for the others with an error, a login
page, or silence. Each service therefore needs a proof: a token, a header of the reply, or a number.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from evcache.zones.discovery.own_zone.http_client import Connect, Reply, exchange
from evcache.zones.discovery.own_zone.names import NoZone, shown, zone_name

ECS_VARIABLE = "ECS_CONTAINER_METADATA_URI_V4"

# Address of the services of EC2, GCE and Azure. GCE's name for it, metadata.google.internal, would need a lookup.
ADDRESS = "http://169.254.169.254"

_EC2_LIFETIME = "X-aws-ec2-metadata-token-ttl-seconds"  # header of the request for a token, and of its reply
_EC2_TOKEN_SECONDS = 60  # for two requests
_EC2_TOKEN = re.compile(r"[!-~]{1,1024}")  # it becomes a header

_GCE_ZONE = re.compile(r"projects/[^/\s]+/zones/([^/\s]+)")

# The first version with zones is 2017-12-01. The examples in the documentation of Azure use this one.
_AZURE_VERSION = "2021-02-01"
_AZURE_ZONE = re.compile(r"[0-9]{1,3}")

NamesOf = Callable[[Connect, Mapping[str, str]], AsyncIterator[str]]
"""Function that asks one service. It yields the names of the zone, the preferred one first, and raises `NoZone`."""


async def ecs_names(connect: Connect, environment: Mapping[str, str]) -> AsyncIterator[str]:
    """Yield the availability zone of the ECS task. Tasks on Fargate have it since platform version 1.4."""
    endpoint = environment.get(ECS_VARIABLE, "").strip()
    if not endpoint:
        raise NoZone(f"{ECS_VARIABLE} is not set")
    reply = await _ask(connect, "GET", f"{endpoint.rstrip('/')}/task")
    try:
        task: Any = json.loads(reply.body)
    except ValueError as error:
        raise NoZone("the description of the task is not JSON") from error
    zone = task.get("AvailabilityZone") if isinstance(task, dict) else None
    if not isinstance(zone, str):
        raise NoZone("the description of the task has no AvailabilityZone")
    yield zone_name(zone)


async def ec2_names(connect: Connect, _environment: Mapping[str, str]) -> AsyncIterator[str]:
    """Yield the name and the id of the availability zone of the EC2 instance. Names differ between accounts, ids do not."""
    # Without version 1 of the service, clouds that imitate it are not taken for EC2. OpenStack's zone is always "nova".
    reply = await _ask(connect, "PUT", f"{ADDRESS}/latest/api/token", {_EC2_LIFETIME: str(_EC2_TOKEN_SECONDS)})
    token = _text(reply)
    # AWS's own SDK for Go requires the header too. A server that replies with one word to all requests does not send it.
    if _EC2_LIFETIME not in reply.headers or not _EC2_TOKEN.fullmatch(token):
        raise NoZone("the reply to PUT /latest/api/token is not a token")
    proof = {"X-aws-ec2-metadata-token": token}
    placement = f"{ADDRESS}/latest/meta-data/placement"
    yield zone_name(_text(await _ask(connect, "GET", f"{placement}/availability-zone", proof)))
    yield zone_name(_text(await _ask(connect, "GET", f"{placement}/availability-zone-id", proof)))


async def gce_names(connect: Connect, _environment: Mapping[str, str]) -> AsyncIterator[str]:
    """Yield the zone of the GCE instance or GKE node."""
    reply = await _ask(connect, "GET", f"{ADDRESS}/computeMetadata/v1/instance/zone", {"Metadata-Flavor": "Google"})
    if reply.headers.get("Metadata-Flavor") != "Google":
        raise NoZone("the reply has no header Metadata-Flavor: Google")
    text = _text(reply)
    found = _GCE_ZONE.fullmatch(text)
    if found is None:
        raise NoZone(f"{shown(text)} is not projects/NUMBER/zones/ZONE")
    yield zone_name(found[1])


async def azure_names(connect: Connect, _environment: Mapping[str, str]) -> AsyncIterator[str]:
    """Yield the zone of the Azure machine in the form of AKS, such as `westeurope-1`, and its number."""
    headers = {"Metadata": "true"}
    compute, query = f"{ADDRESS}/metadata/instance/compute", f"api-version={_AZURE_VERSION}&format=text"
    zone = _text(await _ask(connect, "GET", f"{compute}/zone?{query}", headers))
    if not zone:
        raise NoZone("the machine is in no availability zone")
    if not _AZURE_ZONE.fullmatch(zone):
        raise NoZone(f"{shown(zone)} is not the number of a zone")
    location = zone_name(_text(await _ask(connect, "GET", f"{compute}/location?{query}", headers)))
    yield zone_name(f"{location.lower()}-{zone}")
    yield zone


SERVICES: Mapping[str, NamesOf] = {"ECS": ecs_names, "EC2": ec2_names, "GCE": gce_names, "Azure": azure_names}
"""Services by name, in the order of precedence. ECS is first, because a container may not reach the service of its host."""


async def _ask(connect: Connect, method: str, url: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Return the reply of status 200. Any other status raises `NoZone`."""
    reply = await exchange(connect, method, url, headers or {})
    if reply.status != http.client.OK:
        raise NoZone(f"HTTP status {reply.status} for {method} {urlsplit(url).path}")
    return reply


def _text(reply: Reply) -> str:
    return reply.body.decode("ascii", "replace").strip()
