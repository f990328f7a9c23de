"""The table of flags on the page about sizing holds for each recipe, and the page's formulas yield its values."""

import re

import pytest

from tests.deploy.pages import OPERATIONS, run_page
from tests.support.recipes import DEPLOY, flags_of, memcached_services, resources, unit_command, with_patches

TEXT = (OPERATIONS / "sizing.md").read_text("utf-8")


def table():
    """Return the flags of the page."""
    rows = re.findall(r"^\| `(-\w(?: \w+)?)` \| (?:`(\w+)`|on) \|", TEXT, re.MULTILINE)
    return {flag: value or True for flag, value in rows}


def containers(found=None):
    """Return the container of memcached of each StatefulSet, by name and file."""
    return {
        f"{path.parent.name}/{resource['metadata']['name']}": container
        for path, resource in (found or resources())
        if resource["kind"] == "StatefulSet"
        for container in resource["spec"]["template"]["spec"]["containers"]
        if container["name"] == "memcached"
    }


COMMANDS = {f"compose/{name}": service["command"] for name, service in memcached_services().items()} | {
    f"kubernetes/{name}": container["args"] for name, container in containers().items()
}
COMMANDS["systemd"] = unit_command(DEPLOY / "systemd" / "memcached@.service")


def test_table_has_the_flags_that_the_page_explains():
    assert table().keys() == {"-m", "-c", "-I", "-o hashpower", "-F"}


@pytest.mark.parametrize("recipe", COMMANDS)
def test_recipe_has_the_flags_of_the_table(recipe):
    flags = flags_of(COMMANDS[recipe])
    of_tls = {flag for flag in flags if flag == "-Z" or flag.startswith("-o ssl_")}
    of_address = {flag for flag in flags if flag in ("-l", "-p") and recipe == "systemd"}
    assert {flag: value for flag, value in flags.items() if flag not in of_tls | of_address} == table()
    assert bool(of_tls) == ("tls" in recipe)


def test_formulas_yield_the_values_of_the_table():
    names, _ = run_page(OPERATIONS / "sizing.md")
    flags = table()
    assert names["m"] == int(flags["-m"])
    assert names["hash_power"](names["m"], names["size"]) == int(flags["-o hashpower"])
    assert names["connections"](1_500) == int(flags["-c"])


@pytest.mark.parametrize("overlay", ["zones", "tls", "exporter"])
def test_containers_have_the_memory_of_the_formula(overlay):
    names, _ = run_page(OPERATIONS / "sizing.md")
    flags = table()
    per_connection = 32 if overlay == "tls" else 16
    needed = names["memory_limit"](int(flags["-m"]), int(flags["-o hashpower"]), int(flags["-c"]), per_connection)
    found = containers(with_patches(overlay))
    assert len(found) == 3
    for container in found.values():
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert limits["memory"] == requests["memory"] == f"{needed}Mi"


def test_compose_has_the_memory_and_files_of_the_formula():
    names, _ = run_page(OPERATIONS / "sizing.md")
    flags = table()
    needed = names["memory_limit"](int(flags["-m"]), int(flags["-o hashpower"]), int(flags["-c"]))
    for service in memcached_services().values():
        assert service["mem_limit"] == f"{needed}m"
        assert service["ulimits"]["nofile"] > int(flags["-c"])


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (["-m", 64, "-F"], {"-m": "64", "-F": True}),
        (["-o", "hashpower=20,no_modern"], {"-o hashpower": "20", "-o no_modern": True}),
        (["-o", "a=1", "-o", "b=2"], {"-o a": "1", "-o b": "2"}),
    ],
)
def test_flags_of_a_command(command, flags):
    assert flags_of(command) == flags


@pytest.mark.parametrize("command", [["memcached"], ["-m64"], ["-m", "1", "-m", "2"], ["-o", "a,a=1"]])
def test_flags_of_another_form_are_refused(command):
    with pytest.raises(AssertionError):
        flags_of(command)
