"""The zone of this process: which source is believed, how long the search takes, and what it leaves behind."""

import asyncio
import errno
import logging
from functools import partial

import pytest

from evcache.zones.discovery.own_zone.finder import OwnZone, find_own_zone
from evcache.zones.errors import InvalidArgument
from tests.support import virtual_time
from tests.support.metadata_services import (
    ECS,
    ECS_URI,
    METADATA,
    Ec2,
    Machine,
    Server,
    after,
    azure,
    chunked,
    cloud,
    dripping,
    ec2_disabled,
    ecs,
    gce,
    login_page,
    nothing,
    on_path,
    openstack,
    parrot,
    silence,
    these,
    until_close,
    whole_and_open,
)
from tests.support.virtual_time import in_virtual_time, now, settle

TIMEOUT = 1.0
ON_ECS = {"ECS_CONTAINER_METADATA_URI_V4": ECS_URI}

AT_EC2 = OwnZone(("eu-west-1a", "euw1-az2"), "EC2")
AT_EC2_WITHOUT_ID = OwnZone(("eu-west-1a",), "EC2")
AT_ECS = OwnZone(("eu-west-1c",), "ECS")
AT_GCE = OwnZone(("europe-west1-b",), "GCE")
AT_AZURE = OwnZone(("westeurope-1", "1"), "Azure")


async def find(machine, environment=None, **options):
    """Return the result and the seconds that it took. Fails if the search leaves a socket open."""
    began = now()
    options = {"podinfo": "/nonexistent", "timeout": TIMEOUT, "connect": machine.connect} | options
    zone = await find_own_zone(environment=environment or {}, **options)
    took = now() - began
    assert machine.is_quiet
    return zone, round(took, 6)


def task_with(**fields):
    return {ECS: Server(partial(ecs, **fields))}


def ecs_on(machine, **fields):
    machine.servers |= task_with(**fields)
    return machine


DROPPED = {METADATA: None}

# What the machine is, its environment, its network, the result, and the seconds that the search takes.
MACHINES = [
    ("EC2", {}, lambda: cloud(Ec2()), AT_EC2, 0),
    ("EC2 in a zone with other names", {}, lambda: cloud(Ec2("us-west-2-lax-1a", "usw2-lax1-az1")),
     OwnZone(("us-west-2-lax-1a", "usw2-lax1-az1"), "EC2"), 0),
    ("EC2 with zone ids as names", {}, lambda: cloud(Ec2("use1-az1", "use1-az1")), OwnZone(("use1-az1",), "EC2"), 0),
    ("EC2 without zone ids", {}, lambda: cloud(Ec2(zone_id=None)), AT_EC2_WITHOUT_ID, 0),
    ("EC2 with a malformed zone id", {}, lambda: cloud(Ec2(zone_id="<html>")), AT_EC2_WITHOUT_ID, 0),
    ("EC2 that hangs at the zone id", {}, lambda: cloud(Ec2(), on_path("-zone-id", silence)), AT_EC2_WITHOUT_ID, TIMEOUT),
    ("EC2 without a zone", {}, lambda: cloud(Ec2(zone=None)), None, 0),
    ("EC2 with the service disabled", {}, lambda: cloud(ec2_disabled), None, 0),
    ("EC2 from a container beyond the hop limit", {}, lambda: cloud(Ec2(), on_path("/token", silence)), None, TIMEOUT),
    ("GCE", {}, lambda: cloud(gce), AT_GCE, 0),
    ("GCE with another flavor", {}, lambda: cloud(partial(gce, flavor="Vanilla")), None, 0),
    ("GCE with a zone of another form", {}, lambda: cloud(partial(gce, text="europe-west1-b")), None, 0),
    ("GCE with a longer path", {}, lambda: cloud(partial(gce, text="projects/1/zones/europe-west1-b/x")), None, 0),
    ("Azure", {}, lambda: cloud(azure), AT_AZURE, 0),
    ("Azure with capitals in the region", {}, lambda: cloud(partial(azure, location="WestEurope", zone="3")),
     OwnZone(("westeurope-3", "3"), "Azure"), 0),
    ("Azure in a region without zones", {}, lambda: cloud(partial(azure, zone="")), None, 0),
    ("Azure with a zone that is no number", {}, lambda: cloud(partial(azure, zone="one")), None, 0),
    ("Azure without a region", {}, lambda: cloud(partial(azure, location=None)), None, 0),
    ("ECS on Fargate", ON_ECS, lambda: Machine(task_with()), AT_ECS, 0),
    ("ECS on Fargate, metadata packets dropped", ON_ECS, lambda: Machine(task_with() | DROPPED), AT_ECS, 0),
    ("ECS with a slash behind the URI", {"ECS_CONTAINER_METADATA_URI_V4": f"{ECS_URI}/"}, lambda: Machine(task_with()), AT_ECS, 0),
    ("ECS on EC2", ON_ECS, lambda: ecs_on(cloud(Ec2())), AT_ECS, 0),
    ("ECS on EC2, agent without the zone", ON_ECS, lambda: ecs_on(cloud(Ec2()), AvailabilityZone=None), AT_EC2, 0),
    ("ECS with a malformed zone", ON_ECS, lambda: ecs_on(cloud(Ec2()), AvailabilityZone="eu west"), AT_EC2, 0),
    ("ECS with a page", ON_ECS, lambda: Machine({ECS: Server(login_page)}), None, 0),
    ("ECS with a list", ON_ECS, lambda: Machine({ECS: Server(ecs, these(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"))}), None, 0),
    ("ECS with nested brackets", ON_ECS, lambda: Machine({ECS: Server(ecs, these(
        b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"[" * 60000))}), None, 0),
    ("ECS that hangs, on EC2", ON_ECS, lambda: Machine({ECS: Server(ecs, silence), METADATA: Server(Ec2())}), AT_EC2, TIMEOUT),
    ("ECS with a malformed URI", {"ECS_CONTAINER_METADATA_URI_V4": "169.254.170.2/v4"}, lambda: cloud(Ec2()), AT_EC2, 0),
    ("ECS with a URI that has white space", {"ECS_CONTAINER_METADATA_URI_V4": f"{ECS_URI} x"}, lambda: ecs_on(cloud(Ec2())), AT_EC2, 0),
    ("ECS with a URI of another scheme", {"ECS_CONTAINER_METADATA_URI_V4": "file:///etc/passwd"}, Machine, None, 0),
    ("ECS with a URI that has no valid port", {"ECS_CONTAINER_METADATA_URI_V4": "http://h:x/v4"}, Machine, None, 0),
    ("OpenStack", {}, lambda: cloud(openstack), None, 0),
    ("captive portal", ON_ECS, lambda: Machine({METADATA: Server(login_page), ECS: Server(login_page)}), None, 0),
    ("one word for every request", ON_ECS, lambda: Machine({METADATA: Server(parrot), ECS: Server(parrot)}), None, 0),
    ("network without the address", {}, Machine, None, 0),
    ("nothing listens", {}, lambda: Machine(error=errno.ECONNREFUSED), None, 0),
    ("packets are dropped", ON_ECS, lambda: Machine(DROPPED | {ECS: None}), None, TIMEOUT),
    ("server that hangs", {}, lambda: cloud(gce, silence), None, TIMEOUT),
    ("server that closes at once", {}, lambda: cloud(gce, nothing), None, 0),
    ("server that does not speak HTTP", {}, lambda: cloud(gce, these(b"SSH-2.0-OpenSSH_9.6\r\n")), None, 0),
    ("server that drips", {}, lambda: cloud(gce, dripping(0.003)), AT_GCE, None),
    ("server that drips too slowly", {}, lambda: cloud(gce, dripping(0.3)), None, TIMEOUT),
    ("server that sends chunks", {}, lambda: cloud(gce, chunked), AT_GCE, None),
    ("server that leaves connections open", {}, lambda: cloud(Ec2(), whole_and_open), AT_EC2, 0),
    ("server that ends replies by closing", {}, lambda: cloud(azure, until_close), AT_AZURE, 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "machine", "expected", "seconds"), [row[1:] for row in MACHINES], ids=[row[0] for row in MACHINES]
)
def test_a_machine_is_in_the_zone_that_its_services_name(environment, machine, expected, seconds):
    @in_virtual_time
    async def scenario():
        zone, took = await find(machine(), environment)
        assert zone == expected
        assert took < TIMEOUT if seconds is None else took == seconds

    scenario()


@in_virtual_time
async def test_an_instance_of_ec2_gets_one_token():
    machine = cloud(Ec2())
    await find(machine)
    tokens = [request for request in machine.requests if request.method == "PUT"]
    assert [request.target for request in tokens] == ["/latest/api/token"]
    assert all(request.headers["connection"] == "close" for request in machine.requests)


@pytest.mark.parametrize("token", ["", "two words", "a\r\nX-Name: b", "<html>\n</html>", "ä", "a" * 2000])
def test_a_text_that_is_no_token_is_not_sent_back(token):
    @in_virtual_time
    async def scenario():
        body = token.encode()
        reply = (
            b"HTTP/1.1 200 OK\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        machine = cloud(Ec2(), on_path("/token", these(reply)))
        assert (await find(machine))[0] is None
        assert [request.target for request in machine.requests if "/latest/" in request.target] == ["/latest/api/token"]

    scenario()


# --- precedence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"EVCACHE_ZONE": "eu-1a", "EVCACHE_ZONE_FILE": "FILE"}, OwnZone(("eu-1a",), "EVCACHE_ZONE")),
        ({"EVCACHE_ZONE": " eu-1a\n"}, OwnZone(("eu-1a",), "EVCACHE_ZONE")),
        ({"EVCACHE_ZONE_FILE": "FILE"}, OwnZone(("eu-1c",), "FILE")),
        ({"EVCACHE_ZONE": "", "EVCACHE_ZONE_FILE": ""}, OwnZone(("eu-1b",), "PODINFO")),
        ({}, OwnZone(("eu-1b",), "PODINFO")),
    ],
)
@pytest.mark.parametrize("network", [lambda: cloud(Ec2()), lambda: Machine(DROPPED)], ids=["EC2", "packets are dropped"])
def test_a_variable_or_file_wins_without_a_request(tmp_path, environment, expected, network):
    file, podinfo = tmp_path / "file", tmp_path / "zone"
    file.write_text("eu-1c", "utf-8")
    podinfo.write_text("eu-1b", "utf-8")
    paths = {"FILE": str(file), "PODINFO": str(podinfo)}

    @in_virtual_time
    async def scenario():
        machine = network()
        settings = {name: paths.get(value, value) for name, value in environment.items()}
        zone, took = await find(machine, settings | ON_ECS, podinfo=tmp_path)
        assert zone == OwnZone(expected.names, paths.get(expected.source, expected.source))
        assert took == 0
        assert machine.hosts == []

    scenario()


def combined(request):
    """Answer as all clouds at once."""
    service = gce if "computeMetadata" in request.target else azure if "/metadata/" in request.target else combined.ec2
    return service(request)


combined.ec2 = Ec2()


@pytest.mark.parametrize(
    ("environment", "ecs_delay", "slow", "delay", "expected", "seconds"),
    [
        ({}, 0, "/latest/", 0.2, AT_EC2, 0.6),  # three requests
        ({}, 0, "/computeMetadata/", 3600, AT_EC2, 0),
        ({}, 0, "/metadata/", 3600, AT_EC2, 0),
        ({}, 0, "/latest/", 3600, AT_GCE, TIMEOUT),
        (ON_ECS, 0, "/latest/", 3600, AT_ECS, 0),
        (ON_ECS, 0.5, "/latest/", 0, AT_ECS, 0.5),
        (ON_ECS, 3600, "/computeMetadata/", 3600, AT_EC2, TIMEOUT),
    ],
)
def test_precedence_decides_and_a_lower_service_is_not_awaited(environment, ecs_delay, slow, delay, expected, seconds):
    @in_virtual_time
    async def scenario():
        machine = Machine({METADATA: Server(combined, on_path(slow, after(delay))), ECS: Server(ecs, after(ecs_delay))})
        assert await find(machine, environment) == (expected, seconds)

    scenario()


@in_virtual_time
async def test_all_services_are_asked_at_once():
    machine = Machine({METADATA: Server(combined, silence), ECS: Server(ecs, silence)})
    search = asyncio.create_task(find(machine, ON_ECS))
    await settle()
    assert sorted(request.path for request in machine.requests) == [
        "/computeMetadata/v1/instance/zone",
        "/latest/api/token",
        "/metadata/instance/compute/zone",
        "/v4/3f3a7b5c/task",
    ]
    assert await search == (None, TIMEOUT)


# --- time ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.2, 1, 5.0])
@pytest.mark.parametrize("delivery", [silence, dripping(0.19), on_path("/token", after(0.19), silence)])
def test_the_timeout_is_one_deadline_for_all_requests(timeout, delivery):
    @in_virtual_time
    async def scenario():
        machine = Machine({METADATA: Server(combined, delivery), ECS: Server(ecs, delivery)})
        assert await find(machine, ON_ECS, timeout=timeout) == (None, timeout)

    scenario()


@in_virtual_time
async def test_the_default_timeout_is_one_second():
    machine = Machine(DROPPED)
    await find_own_zone(environment={}, podinfo="/nonexistent", connect=machine.connect)
    assert now() == pytest.approx(1.0)


# --- cancellation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "machine",
    [
        lambda: Machine({METADATA: None, ECS: None}),
        lambda: Machine({METADATA: Server(combined, silence), ECS: Server(ecs, silence)}),
        lambda: Machine({METADATA: Server(combined, dripping(0.1)), ECS: Server(ecs, dripping(0.1))}),
        lambda: Machine({METADATA: Server(combined, on_path("/token", after(0.1), silence)), ECS: Server(ecs, silence)}),
    ],
    ids=["while it connects", "while it waits", "while it reads", "between requests"],
)
@pytest.mark.parametrize("at", [0, 0.05, 0.1, 0.15, 0.55])
@pytest.mark.parametrize("times", [1, 2])
def test_a_cancelled_search_leaves_no_task_and_no_socket(machine, at, times):
    @in_virtual_time  # which fails if a task is left
    async def scenario():
        network = machine()
        search = asyncio.create_task(find(network, ON_ECS))
        await (asyncio.sleep(at) if at else settle())
        before = now()
        for _ in range(times):
            search.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await search
        assert network.hosts
        assert network.is_quiet
        assert now() == before

    scenario()


@pytest.mark.parametrize("turns", range(30))
def test_a_cancellation_in_any_turn_of_the_loop_leaves_nothing(turns):
    @in_virtual_time
    async def scenario():
        network = Machine({METADATA: Server(combined), ECS: Server(partial(ecs, AvailabilityZone=None))})
        search = asyncio.create_task(find(network, ON_ECS))
        await settle(turns)
        search.cancel()
        await asyncio.wait([search])
        assert search.cancelled() or search.result() == (AT_EC2, 0)
        assert network.is_quiet

    scenario()


# --- logs ----------------------------------------------------------------------------------------------------------------


def logged(caplog):
    return [(record.name, record.levelname, record.getMessage()) for record in caplog.records]


def search(machine, environment=None, **options):
    virtual_time.run(find(machine, environment, **options))


def test_the_result_is_logged_with_its_source(caplog):
    caplog.set_level(logging.DEBUG, "evcache")
    search(cloud(Ec2()))
    assert logged(caplog) == [("evcache.zones.discovery", "INFO", "own zone found: eu-west-1a, euw1-az2 (source: EC2)")]


def test_a_search_without_a_result_logs_what_each_source_answered(caplog, tmp_path):
    caplog.set_level(logging.DEBUG, "evcache")
    (tmp_path / "labels").write_text('app="web"', "utf-8")
    search(cloud(openstack, on_path("/metadata/", silence)), podinfo=tmp_path)
    ((name, level, message),) = logged(caplog)
    assert (name, level) == ("evcache.zones.discovery", "WARNING")
    assert message == (
        "own zone not found: EVCACHE_ZONE: not set; "
        f"{tmp_path}/zone: no such file; {tmp_path}/labels: no label topology.kubernetes.io/zone; "
        "ECS: ECS_CONTAINER_METADATA_URI_V4 is not set; EC2: HTTP status 404 for PUT /latest/api/token; "
        "GCE: HTTP status 404 for GET /computeMetadata/v1/instance/zone; Azure: no answer in 1 s"
    )


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (Machine, "EC2: network is unreachable"),
        (lambda: Machine(error=errno.ECONNREFUSED), "EC2: connection refused"),
        (lambda: Machine(error=errno.ETIMEDOUT), "EC2: connection timed out"),
        (lambda: cloud(gce, nothing), "EC2: the server closed the connection without a reply"),
        (lambda: cloud(gce, these(b"SSH-2.0\r\n\r\n")), "EC2: the reply is not HTTP (BadStatusLine)"),
        (lambda: cloud(gce, these(b"SSH-2.0\r\n")), "EC2: the reply ends too early"),
        (lambda: cloud(azure, on_path("/zone", these(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1"))), "Azure: the reply ends too early"),
        (lambda: cloud(azure, on_path("/zone", these(b"HTTP/1.1 200 OK\r\n\r\n" + b"1" * 70_000))), "Azure: the reply has more than 65536 bytes"),
        (lambda: cloud(partial(gce, text="<html>" + "x" * 99)), f"GCE: '<html>{'x' * 34}...' is not projects/NUMBER/zones/ZONE"),
        (lambda: cloud(partial(gce, text="projects/1/zones/a_ü")), "GCE: 'a_??' is not a zone name".replace("??", "��")),
        (lambda: cloud(partial(azure, zone="")), "Azure: the machine is in no availability zone"),
        (lambda: cloud(login_page), "EC2: the reply to PUT /latest/api/token is not a token"),
        (lambda: cloud(login_page), "GCE: the reply has no header Metadata-Flavor: Google"),
        (lambda: cloud(login_page), "Azure: '<html><body>Please log in</body></html>' is not the number of a zone"),
    ],
)  # fmt: skip
def test_the_log_names_the_reason_of_each_service(caplog, machine, reason):
    search(machine())
    (record,) = caplog.records
    assert reason in record.getMessage().split("; ")
    assert "\n" not in record.getMessage()


def json_reply(octets):
    return lambda: Machine({ECS: Server(ecs, these(b"HTTP/1.1 200 OK\r\n\r\n" + octets))})


@pytest.mark.parametrize(
    ("uri", "machine", "reason"),
    [
        ("169.254.170.2/v4", Machine, "an http URL is required, not '169.254.170.2/v4/task'"),
        (ECS_URI, lambda: ecs_on(Machine(), AvailabilityZone=None), "the description of the task has no AvailabilityZone"),
        (ECS_URI, json_reply(b"[]"), "the description of the task has no AvailabilityZone"),
        (ECS_URI, json_reply(b"<html>"), "the description of the task is not JSON"),
        (ECS_URI, json_reply(b"\xff"), "the description of the task is not JSON"),
        (f"{ECS_URI}/x", lambda: ecs_on(Machine()), "HTTP status 404 for GET /v4/3f3a7b5c/x/task"),
    ],
)
def test_the_log_names_the_reason_of_ecs(caplog, uri, machine, reason):
    search(machine(), {"ECS_CONTAINER_METADATA_URI_V4": uri})
    (record,) = caplog.records
    assert f"ECS: {reason}" in record.getMessage().split("; ")


def test_an_unusable_setting_is_logged_beside_the_result(caplog, tmp_path):
    caplog.set_level(logging.INFO, "evcache")
    search(cloud(Ec2()), {"EVCACHE_ZONE": "eu west", "EVCACHE_ZONE_FILE": str(tmp_path / "none")})
    assert [line[1:] for line in logged(caplog)] == [
        ("WARNING", "own zone setting ignored: EVCACHE_ZONE: 'eu west' is not a zone name"),
        ("WARNING", f"own zone setting ignored: EVCACHE_ZONE_FILE: {tmp_path}/none: no such file"),
        ("INFO", "own zone found: eu-west-1a, euw1-az2 (source: EC2)"),
    ]


def test_no_token_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    service = Ec2(zone="<html>")
    search(cloud(service))
    assert len(service.tokens) == 1
    assert not any(token in caplog.text for token in service.tokens)


# --- arguments -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("environment", None),
        ("environment", [("EVCACHE_ZONE", "a")]),
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", float("nan")),
        ("timeout", "1"),
        ("timeout", True),
        ("podinfo", ""),
        ("podinfo", None),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_sent(argument, value):
    machine = Machine()
    arguments = {"environment": {}, "connect": machine.connect} | {argument: value}
    with pytest.raises(InvalidArgument) as caught:
        virtual_time.run(find_own_zone(**arguments))
    assert caught.value.argument == argument
    assert machine.hosts == []


def test_the_environment_of_the_process_is_the_default(monkeypatch):
    monkeypatch.setenv("EVCACHE_ZONE", "eu-1a")
    assert virtual_time.run(find_own_zone()) == OwnZone(("eu-1a",), "EVCACHE_ZONE")
