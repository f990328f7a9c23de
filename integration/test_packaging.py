"""The installed package: it owns the import name `evcache` alone, in each form in which it can be installed."""

import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from evcache.zones.transport.core.selected import COMPILED

CHECKOUT = Path(__file__).parents[1]
FORMS = ["wheel", "editable"]  # the wheel is built from the sdist

# A service whose own module has the name of one of the folders of the repository.
OWN_MODULE = {
    "zones.py": "ZONES = ['north', 'south']\n",
    "main.py": "import zones\nimport evcache\nimport evcache.zones\nprint(zones.ZONES, evcache.EVCache.__name__)\n",
}
OWN_PACKAGE = {
    "zones/__init__.py": "ZONES = ['north', 'south']\n",
    "tests/test_zones.py": (
        "import zones\nfrom evcache import EVCache\n\n\n"
        "def test_zones_of_the_service():\n    assert zones.ZONES == ['north', 'south']\n\n\n"
        "def test_cache(evcache_zones):\n    assert evcache_zones.zones\n"
    ),
}


def run(*command, cwd, check=True, **variables):
    """Run a program outside the checkout, without the checkout on its path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "EVCACHE"))}
    environment |= variables
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


def pip(python, *arguments, cwd, **variables):
    return run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments, cwd=cwd, **variables)


def new_environment(folder):
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """The interpreter of an environment that builds packages."""
    folder = tmp_path_factory.mktemp("builder")
    python = new_environment(folder / "venv")
    pip(python, "build", cwd=folder)
    return python


@pytest.fixture(scope="module")
def wheel(builder, tmp_path_factory):
    """A wheel that is built from the sdist, as package indexes have it."""
    folder = tmp_path_factory.mktemp("dist")
    run(builder, "-m", "build", "--outdir", folder, CHECKOUT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout: an editable install writes the core into it, and other workers import the real one."""
    unwanted = shutil.ignore_patterns(".git", ".venv", "*.so", "__pycache__", ".*_cache", ".hypothesis")
    return shutil.copytree(CHECKOUT, tmp_path_factory.mktemp("copy") / "checkout", symlinks=True, ignore=unwanted)


@pytest.fixture(scope="module", params=FORMS)
def python(request, wheel, checkout, tmp_path_factory):
    """The interpreter of a fresh environment that has evcache and pytest, and nothing else that was asked for."""
    folder = tmp_path_factory.mktemp(request.param)
    python = new_environment(folder / "venv")
    required = {} if COMPILED is None else {"EVCACHE_REQUIRE_CORE": "1"}  # a compile error fails here, with its reason
    package = ["--editable", checkout] if request.param == "editable" else [wheel]
    pip(python, *package, "pytest", cwd=folder, **required)
    return python


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def test_a_service_can_have_a_module_named_zones(python, tmp_path):
    write(tmp_path, OWN_MODULE)
    assert run(python, "main.py", cwd=tmp_path).stdout == "['north', 'south'] EVCache\n"


def test_the_tests_of_a_project_with_a_folder_zones_run(python, tmp_path):
    """The pytest plugin of the package imports evcache before the project's own modules."""
    write(tmp_path, OWN_PACKAGE)
    done = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path / "tests", cwd=tmp_path)
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("python", ["wheel"], indirect=True)
def test_no_other_name_can_be_imported(python, tmp_path):
    """A wrong build would install other folders of the repository. An editable install has the whole checkout on its path."""
    for name in ("zones", "tests", "integration", "benchmarks"):
        done = run(python, "-c", f"import {name}", cwd=tmp_path, check=False)
        assert "ModuleNotFoundError" in done.stderr, name


def test_the_typed_marker_and_every_module_are_installed(python, tmp_path):
    code = (
        "import evcache, pathlib\n"
        "folder = pathlib.Path(evcache.__file__).parent\n"
        "print(*sorted(str(path.relative_to(folder)) for path in folder.rglob('*.py') if 'zones' not in path.parts[-4:]))\n"
        "print((folder / 'py.typed').is_file(), (folder / 'zones' / 'protocol' / 'decoder.py').is_file())\n"
    )
    modules, marks = run(python, "-c", code, cwd=tmp_path).stdout.splitlines()
    ours = sorted(
        str(path.relative_to(CHECKOUT / "evcache"))
        for path in (CHECKOUT / "evcache").rglob("*.py")
        if "zones" not in path.parts[-4:]
    )
    assert modules.split() == ours
    assert marks == "True True"


def test_the_program_runs(python, tmp_path):
    """Without its extra it names the extra."""
    done = run(python.parent / "evcache", "--version", cwd=tmp_path, check=False)
    assert "pip install evcache[cli]" in done.stderr


CORE = "from evcache.zones.transport.core import selected; print(selected.SELECTED.name)"
NO_COMPILER = {"CC": "/no/compiler"}
needs_compiler = pytest.mark.skipif(COMPILED is None, reason="no compiler here")


@needs_compiler
@pytest.mark.parametrize(("variables", "core"), [({}, "compiled"), ({"EVCACHE_PURE": "1"}, "pure")])
def test_the_compiled_core_is_installed_and_the_environment_selects_it(python, tmp_path, variables, core):
    assert run(python, "-c", CORE, cwd=tmp_path, **variables).stdout == f"{core}\n"


def test_without_a_compiler_the_package_is_pure_and_says_so(builder, tmp_path):
    done = run(builder, "-m", "build", "--wheel", "--outdir", tmp_path, CHECKOUT, cwd=tmp_path, **NO_COMPILER)
    (built,) = tmp_path.glob("*.whl")
    assert built.name.endswith("-py3-none-any.whl")
    assert "without its compiled core" in done.stdout + done.stderr
    python = new_environment(tmp_path / "venv")
    pip(python, built, cwd=tmp_path)
    assert run(python, "-c", CORE, cwd=tmp_path).stdout == "pure\n"


def test_an_editable_installation_without_a_compiler_keeps_no_earlier_core(checkout, tmp_path):
    """An earlier core would run with newer Python code."""
    earlier = checkout / "zones/transport/core" / f"_compiled{sysconfig.get_config_var('EXT_SUFFIX')}"
    earlier.write_bytes(b"an earlier core")
    python = new_environment(tmp_path / "venv")
    pip(python, "--editable", checkout, cwd=tmp_path, **NO_COMPILER)
    assert not earlier.exists()
    assert run(python, "-c", CORE, cwd=tmp_path).stdout == "pure\n"


@pytest.mark.parametrize("why_not", [NO_COMPILER, {"EVCACHE_PURE": "1"}], ids=["no compiler", "left out"])
def test_a_required_core_that_is_not_built_is_an_error(builder, tmp_path, why_not):
    variables = why_not | {"EVCACHE_REQUIRE_CORE": "1"}
    done = run(builder, "-m", "build", "--wheel", "--outdir", tmp_path, CHECKOUT, cwd=tmp_path, check=False, **variables)
    assert done.returncode != 0
    assert list(tmp_path.glob("*.whl")) == []
