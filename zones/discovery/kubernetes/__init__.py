"""Topology from the EndpointSlices of a Service in Kubernetes. Needs `pip install evcache[kubernetes]`."""

from evcache.zones.discovery.kubernetes.discovery import KubernetesDiscovery
from evcache.zones.discovery.kubernetes.text import kubernetes_discovery
from evcache.zones.discovery.kubernetes.watching import Timing

__all__ = ["KubernetesDiscovery", "Timing", "kubernetes_discovery"]
