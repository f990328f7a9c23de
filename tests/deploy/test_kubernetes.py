"""The Kubernetes recipe: valid against the schemas of Kubernetes, and in agreement with what the client reads."""

import json
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

from evcache.zones.discovery.kubernetes.text import kubernetes_discovery
from tests.support.recipes import KUBERNETES, merged, resources, with_patches

OVERLAYS = ["zones", "tls", "exporter"]
ZONES = ["eu-1a", "eu-1b", "eu-1c"]

# The oldest and the latest release that the schemas of the package and the recipe support.
RELEASES = ["1.27", "1.37"]


def named(resource):
    return f"{resource['kind']}/{resource['metadata']['name']}"


def all_resources():
    """Return each resource that a cluster gets, by a name for the test."""
    application = [(path, resource) for path, resource in resources() if path.name == "application.yaml"]
    found = {f"application:{named(resource)}": resource for _, resource in application}
    for overlay in OVERLAYS:
        found |= {f"{overlay}:{named(resource)}": resource for _, resource in with_patches(overlay)}
    return found


ALL = all_resources()


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", ALL)
def test_resource_is_valid_and_has_no_unknown_field(name, release):
    kubernetes_validate.validate(ALL[name], release, strict=True)


@pytest.mark.parametrize("release", RELEASES)
def test_unknown_field_is_recognized(release):
    wrong = merged(ALL["zones:StatefulSet/memcached-eu-1a"], {"spec": {"minReadySecond": 60}})
    with pytest.raises(kubernetes_validate.ValidationError, match="minReadySecond"):
        kubernetes_validate.validate(wrong, release, strict=True)


def test_each_zone_has_a_statefulset_and_a_budget():
    kinds = [named(resource) for _, resource in with_patches("zones")]
    for zone in ZONES:
        assert f"StatefulSet/memcached-{zone}" in kinds
        assert f"PodDisruptionBudget/memcached-{zone}" in kinds


def test_files_of_zones_differ_in_the_name_of_the_zone_alone():
    texts = {(KUBERNETES / "zones" / f"{zone}.yaml").read_text("utf-8").replace(zone, "ZONE") for zone in ZONES}
    assert len(texts) == 1


@pytest.mark.parametrize("zone", ZONES)
def test_pods_of_a_zone_run_there_on_different_machines(zone):
    spec = ALL[f"zones:StatefulSet/memcached-{zone}"]["spec"]
    labels = spec["selector"]["matchLabels"]
    pod = spec["template"]
    assert pod["metadata"]["labels"] == labels
    terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}]}]
    (spread,) = pod["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == labels
    assert (spread["topologyKey"], spread["maxSkew"]) == ("kubernetes.io/hostname", 1)
    budget = ALL[f"zones:PodDisruptionBudget/memcached-{zone}"]["spec"]
    assert budget["selector"]["matchLabels"] == labels
    assert budget["maxUnavailable"] < spec["replicas"]


def test_service_selects_the_pods_of_all_zones():
    service = ALL["zones:Service/memcached"]
    for zone in ZONES:
        stateful = ALL[f"zones:StatefulSet/memcached-{zone}"]
        assert stateful["spec"]["serviceName"] == service["metadata"]["name"]
        assert service["spec"]["selector"].items() <= stateful["spec"]["template"]["metadata"]["labels"].items()
        ports = {port["name"] for port in stateful["spec"]["template"]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert service["spec"]["publishNotReadyAddresses"]


def test_application_finds_the_service_and_may_watch_it():
    environment = ALL["application:Deployment/shop"]["spec"]["template"]["spec"]["containers"][0]["env"]
    text = next(one["value"] for one in environment if one["name"] == "EVCACHE_ZONES")
    lookup = kubernetes_discovery(text)
    service = ALL["zones:Service/memcached"]["metadata"]
    assert (lookup._service, lookup._namespace) == (service["name"], service["namespace"])
    role = ALL["application:Role/evcache-discovery"]
    assert role["metadata"]["namespace"] == service["namespace"]
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    ]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_application_may_connect(overlay):
    """The labels of its pod and namespace are those that the network policy lets in."""
    policy = ALL[f"{overlay}:NetworkPolicy/memcached"]["spec"]
    (allowed,) = policy["ingress"][0]["from"]
    pod = ALL["application:Deployment/shop"]["spec"]["template"]["metadata"]["labels"]
    namespace = ALL["application:Namespace/shop"]["metadata"]["labels"]
    assert allowed["podSelector"]["matchLabels"].items() <= pod.items()
    assert allowed["namespaceSelector"]["matchLabels"].items() <= namespace.items()
    assert policy["egress"] == []


@pytest.mark.parametrize("name", [name for name in ALL if "StatefulSet" in name])
def test_pods_have_no_rights(name):
    pod = ALL[name]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_every_file_is_in_a_kustomization_or_the_application():
    for folder in OVERLAYS:
        listed = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text("utf-8"))
        names = {*listed["resources"], *(patch["path"] for patch in listed.get("patches", []))} - {"../zones"}
        assert names == {path.name for path in (KUBERNETES / folder).iterdir()} - {"kustomization.yaml"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_patches_are_merged_as_kubectl_does(overlay):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "kustomize", KUBERNETES / overlay], capture_output=True, text=True, check=True)
    theirs = {named(resource): in_order(resource) for resource in yaml.safe_load_all(done.stdout)}
    assert theirs == {named(resource): in_order(resource) for _, resource in with_patches(overlay)}


def in_order(part):
    """Return a resource whose lists of named objects are sorted, because kubectl puts new ones first."""
    if isinstance(part, dict):
        return {key: in_order(value) for key, value in part.items()}
    if isinstance(part, list):
        parts = [in_order(one) for one in part]
        return sorted(parts, key=json.dumps) if all(isinstance(one, dict) and "name" in one for one in parts) else parts
    return part
