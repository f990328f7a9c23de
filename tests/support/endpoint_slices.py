"""EndpointSlices as the API server writes them."""

import json

from evcache.zones.discovery.kubernetes.slices import read_page

SERVICE = "memcached"


def endpoint(pod, address, zone="eu-1a", *, ready=True, serving=None, terminating=False, hostname=None, kind="Pod"):
    """One endpoint, as the controller writes it. `ready=None` leaves out the conditions."""
    made = {"addresses": [address], "nodeName": "machine-1", "conditions": {}}
    if ready is not None:
        made["conditions"] = {"ready": ready, "serving": ready if serving is None else serving, "terminating": terminating}
    if pod is not None:
        made["targetRef"] = {"kind": kind, "namespace": "cache", "name": pod, "uid": f"uid-{address}"}
    if hostname is not None:
        made["hostname"] = hostname
    if zone is not None:
        made["zone"] = zone
    return made


def endpoint_slice(name, *endpoints, ports=(("memcached", 11211),), family="IPv4", service=SERVICE):
    """One slice. `ports` holds names and numbers, each with an optional protocol."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "cache",
            "labels": {"kubernetes.io/service-name": service},
            "resourceVersion": "1",
            "managedFields": [{"manager": "kube-controller-manager", "operation": "Update"}],
        },
        "addressType": family,
        "endpoints": list(endpoints) or None,
        "ports": [
            dict(zip(("name", "port", "protocol"), (*port, "TCP")[:3], strict=True)) for port in ports or ()
        ] or None,
    }  # fmt: skip


def page_of(*slices, version="1", next_page=""):
    """Body of a list."""
    metadata = {"resourceVersion": version} | ({"continue": next_page} if next_page else {})
    return json.dumps(
        {"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": metadata, "items": list(slices)}
    ).encode()


def event(kind, made, version):
    """Line of a watch."""
    changed = made | {"metadata": made["metadata"] | {"resourceVersion": str(version)}}
    return json.dumps({"type": kind, "object": changed}).encode()


def bookmark(version):
    """Line that moves the version."""
    metadata = {"resourceVersion": str(version), "creationTimestamp": None}
    return json.dumps({"type": "BOOKMARK", "object": {"kind": "EndpointSlice", "metadata": metadata}}).encode()


def error_event(code, reason, message):
    """Line that ends a watch."""
    return json.dumps({"type": "ERROR", "object": status(code, reason, message)}).encode()


def status(code, reason, message):
    """Error of the API server."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def decoded(*slices):
    """The slices as the product reads them."""
    return read_page(page_of(*slices)).slices
