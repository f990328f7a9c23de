"""Arguments, the text form, and the files of the service account."""

import pytest

from evcache.zones.discovery.kubernetes import KubernetesDiscovery, Timing, kubernetes_discovery
from evcache.zones.discovery.kubernetes import discovery as module
from evcache.zones.discovery.kubernetes.server import ApiServer, checked_address
from evcache.zones.discovery.kubernetes.slices import ApiProblem
from evcache.zones.errors import InvalidArgument, InvalidTopology
from evcache.zones.topology.model import Mode


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("service", ""),
        ("service", "Memcached"),
        ("service", "a.b"),
        ("service", None),
        ("service", "x" * 64),
        ("namespace", ""),
        ("namespace", "a/b"),
        ("port", 0),
        ("port", 65536),
        ("port", True),
        ("port", ""),
        ("labels", "zone"),
        ("family", 4),
        ("default_zone", ""),
        ("linger", -1),
        ("linger", float("nan")),
        ("modes", ["eu-1a"]),
        ("modes", {"eu-1a": "write-only"}),
        ("modes", {1: Mode.WRITE_ONLY}),
        ("timing", 10),
        ("token_path", ""),
        ("ca_path", 1),
        ("api_server", ""),
        ("api_server", 443),
        ("api_server", "10.0.0.1:443"),
        ("api_server", "ftp://10.0.0.1"),
        ("api_server", "https://user:password@10.0.0.1"),
        ("api_server", "https://10.0.0.1:port"),
        ("api_server", "https://10.0.0.1/?a=b"),
        ("api_server", "http://10.0.0.1"),
        ("api_server", "https://[::1"),
    ],
)
def test_a_wrong_argument_is_named(argument, value):
    with pytest.raises(InvalidArgument) as caught:
        KubernetesDiscovery(**({"service": "memcached"} | {argument: value}))
    assert caught.value.argument == argument


@pytest.mark.parametrize("argument", ["timeout", "watch", "margin", "proof", "debounce", "longest_burst", "first_retry"])
def test_a_time_that_is_not_positive_is_named(argument):
    with pytest.raises(InvalidArgument) as caught:
        Timing(**{argument: 0})
    assert caught.value.argument == argument


def test_a_missing_package_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "evcache.zones.discovery.kubernetes.api", raising=False)
    with pytest.raises(InvalidArgument, match=r"pip install evcache\[kubernetes\]"):
        KubernetesDiscovery("memcached")


@pytest.mark.parametrize(
    ("text", "service", "namespace", "port"),
    [
        ("kubernetes+memcached", "memcached", None, None),
        (" kubernetes+memcached.cache\n", "memcached", "cache", None),
        ("kubernetes+memcached:11311", "memcached", None, 11311),
        ("kubernetes+memcached.cache:tls", "memcached", "cache", "tls"),
    ],
)
def test_a_text_names_a_service(monkeypatch, text, service, namespace, port):
    calls = []
    monkeypatch.setattr(
        "evcache.zones.discovery.kubernetes.text.KubernetesDiscovery", lambda *args, **options: calls.append((args, options))
    )
    kubernetes_discovery(text)
    assert calls == [((service,), {"namespace": namespace, "port": port})]


def test_a_text_makes_a_source():
    source = kubernetes_discovery("kubernetes+memcached.cache")
    assert isinstance(source, KubernetesDiscovery)
    assert source.status.source == "Service memcached.cache"


@pytest.mark.parametrize("text", ["", "eu-1a=h:1", "dns+memcached", "/etc/zones.toml", "kubernetes=h:1"])
def test_another_text_is_not_recognised(text):
    assert kubernetes_discovery(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "kubernetes+",
        "kubernetes+Memcached",
        "kubernetes+memcached.",
        "kubernetes+.cache",
        "kubernetes+memcached.cache.svc.cluster.local",
        "kubernetes+memcached:",
        "kubernetes+memcached:0",
        "kubernetes+memcached:65536",
        "kubernetes+memcached:999999999999",
        "kubernetes+memcached:a b",
        "kubernetes+memcached;eu-1a=h:1",
        "kubernetes+memcached:\u0661",
    ],
)
def test_a_malformed_text_names_the_form(text):
    with pytest.raises(InvalidTopology, match=r"^zones: .*kubernetes\+SERVICE\.NAMESPACE"):
        kubernetes_discovery(text)


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443"}, "https://10.96.0.1:6443"),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, "https://10.96.0.1:443"),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, "https://[fd00::1]:443"),
    ],
)
def test_the_environment_of_a_pod_has_the_address_of_the_server(environment, address):
    assert ApiServer(None, None, None).address(environment) == address


def test_a_given_address_replaces_the_one_of_the_environment():
    assert ApiServer("https://k8s", None, None).address({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}) == "https://k8s"


def test_a_final_slash_of_a_given_address_is_dropped():
    assert checked_address("https://k8s/clusters/one/") == "https://k8s/clusters/one"


def test_the_error_outside_a_cluster_names_the_argument():
    with pytest.raises(ApiProblem, match="api_server is required"):
        ApiServer(None, None, None).address({})


def test_the_token_is_read_each_time(tmp_path):
    path = tmp_path / "token"
    server = ApiServer("https://k8s", path, None)
    for token in ("first", "second"):
        path.write_text(f"{token}\n", "utf-8")
        assert server.token() == token
    assert ApiServer("https://k8s", None, None).token() is None


@pytest.mark.parametrize("content", ["", "secret one", "secret\r\nHost: x", "s\u00e9cret"])
def test_a_file_without_a_token_is_named_and_its_content_is_not(tmp_path, content):
    path = tmp_path / "token"
    path.write_text(content, "utf-8")
    with pytest.raises(ApiProblem) as caught:
        ApiServer("https://k8s", path, None).token()
    assert str(path) in str(caught.value)
    assert "cret" not in str(caught.value)


def test_a_missing_token_is_named(tmp_path):
    with pytest.raises(ApiProblem, match=r"^token: .*nothing: No such file"):
        ApiServer("https://k8s", tmp_path / "nothing", None).token()


def test_the_default_namespace_is_the_one_of_the_pod(monkeypatch, tmp_path):
    path = tmp_path / "namespace"
    path.write_text("cache", "utf-8")
    monkeypatch.setattr(module, "NAMESPACE_PATH", str(path))
    opened = []
    discovery = KubernetesDiscovery("memcached")
    discovery._make_requests = lambda server, namespace, service: opened.append((namespace, service))
    discovery._open()
    assert opened == [("cache", "memcached")]
