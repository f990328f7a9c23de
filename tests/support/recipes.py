"""Recipes of the folder `deploy`: their files, and the flags of memcached in them."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE_FILE = DEPLOY / "compose" / "compose.yml"
KUBERNETES = DEPLOY / "kubernetes"

WITHOUT_VALUE = frozenset({"-F", "-X", "-Z", "-v"})


def flags_of(command):
    """Return the flags of a command as a dict. Each option of `-o` is a flag of its own, and a flag without a value is True."""
    found = {}
    words = iter(str(word) for word in command)
    for word in words:
        assert re.fullmatch(r"-[a-zA-Z]", word), f"no flag of memcached: {word!r}"
        value = True if word in WITHOUT_VALUE else next(words)
        pairs = value.split(",") if word == "-o" else [None]
        for pair in pairs:
            name, _, option = (pair or "").partition("=")
            key, setting = (f"-o {name}", option or True) if pair else (word, value)
            assert key not in found, f"{key} is given twice"
            found[key] = setting
    return found


def memcached_services(environment=()):
    """Return the services of the Compose file that are memcached nodes, by name."""
    services = compose(dict(environment))["services"]
    return {name: service for name, service in services.items() if "memcached" in service["image"]}


def compose(environment):
    """Return the content of the Compose file. Variables have the values of `environment`, or their defaults."""

    def value_of(match):
        return "$" if match[0] == "$$" else environment.get(match["name"], match["default"])

    text = COMPOSE_FILE.read_text("utf-8")
    return yaml.safe_load(re.sub(r"\$\$|\$\{(?P<name>\w+):-(?P<default>[^}]*)\}", value_of, text))


def resources():
    """Return all Kubernetes resources of the recipe, with the file of each."""
    return [
        (path, resource)
        for path in sorted(KUBERNETES.rglob("*.yaml"))
        for resource in yaml.safe_load_all(path.read_text("utf-8"))
    ]


def with_patches(overlay):
    """Return the resources of the zones with the patches of an overlay, as `kubectl kustomize` merges them."""
    folder = KUBERNETES / overlay
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    found = [(path, resource) for path, resource in resources() if path.parent == KUBERNETES / "zones"]
    found = [(path, resource) for path, resource in found if resource["kind"] != "Kustomization"]
    for patch in kustomization.get("patches", []):
        change = yaml.safe_load((folder / patch["path"]).read_text("utf-8"))
        names = None if "target" in patch else change["metadata"].pop("name")
        change["metadata"].pop("name", None)
        found = [
            (path, merged(resource, change))
            if resource["kind"] == change["kind"] and names in (None, resource["metadata"]["name"])
            else (path, resource)
            for path, resource in found
        ]
    return found


def merged(base, change):
    """Return the strategic merge of a resource and a patch, for the lists that the recipes have: those of named objects merge."""
    if isinstance(base, dict) and isinstance(change, dict):
        return base | {key: merged(base[key], value) if key in base else value for key, value in change.items()}
    named = [
        all(isinstance(one, dict) and "name" in one for one in part) for part in (base, change) if isinstance(part, list)
    ]
    if named == [True, True]:
        return list(merged({one["name"]: one for one in base}, {one["name"]: one for one in change}).values())
    return change


def unit_settings(path):
    """Return the settings of a systemd unit: the values of each name, in their order."""
    found = {}
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            name, equals, value = line.partition("=")
            assert equals, line
            found.setdefault(name, []).append(value)
    return found


def unit_command(path):
    """Return the arguments of memcached in a systemd unit."""
    (command,) = unit_settings(path)["ExecStart"]
    return command.split()[1:]
