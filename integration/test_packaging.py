"""The packages: what the sdist and the wheel hold, and that each form of installation owns the import name `evcache` alone."""

import email
import os
import re
import shutil
import subprocess
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest

from evcache.zones.transport.core.selected import COMPILED

CHECKOUT = Path(__file__).parents[1]
NOT_PACKED = [".git", *(line.rstrip("/") for line in (CHECKOUT / ".gitignore").read_text("utf-8").split())]
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


def pip(builder, environment, *arguments, cwd):
    """Install into an environment, which need not have a pip."""
    command = [builder, "-m", "pip", "--disable-pip-version-check", "--python", environment]
    return run(*command, "install", "--quiet", *arguments, cwd=cwd)


def run_builder(builder, *arguments, **options):
    """Run a module or code that builds. The C code is shared, and is not optimized, which takes most of the time of a build."""
    options = {"CFLAGS": "-O0", "CYTHON_CACHE_DIR": str(builder.parents[1] / "cython")} | options
    return run(builder, *arguments, **options)


def build(builder, source, folder, *form, **options):
    """Build packages in the environment of the builder, which has exactly what an isolated build would have."""
    arguments = ["-m", "build", "--no-isolation", "--outdir", folder, *form, source]
    return run_builder(builder, *arguments, cwd=folder, **options)


EDITABLE = "import build, sys; build.ProjectBuilder(sys.argv[1]).build('editable', sys.argv[2])"


def build_editable(builder, source, folder, **variables):
    """Build the wheel that `pip install --editable` installs."""
    run_builder(builder, "-c", EDITABLE, source, folder, cwd=folder, **variables)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """The interpreter of an environment that builds packages: it has the build requirements of the project."""
    folder = tmp_path_factory.mktemp("builder")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    requirements = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    pip(python, python, "build", *requirements, cwd=folder)
    return python


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout: an editable install writes the core into it, and other workers import the real one."""
    unwanted = shutil.ignore_patterns(*NOT_PACKED)
    return shutil.copytree(CHECKOUT, tmp_path_factory.mktemp("copy") / "checkout", symlinks=True, ignore=unwanted)


# A compile error fails a build, with its reason.
REQUIRED = {} if COMPILED is None else {"EVCACHE_REQUIRE_CORE": "1"}


@pytest.fixture(scope="module")
def packages(builder, checkout, tmp_path_factory):
    """A folder with an sdist, and a wheel that is built from it, as package indexes have them."""
    folder = tmp_path_factory.mktemp("dist")
    build(builder, checkout, folder, **REQUIRED)
    return folder


@pytest.fixture(scope="module")
def sdist(packages):
    (built,) = packages.glob("*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(packages):
    (built,) = packages.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def dependencies(builder, wheel, tmp_path_factory):
    """A folder of modules: what pip installs for the wheel, and pytest. Environments share it."""
    folder = tmp_path_factory.mktemp("dependencies")
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    pip(builder, python, wheel, "pytest", cwd=folder)
    run(builder, "-m", "pip", "--python", python, "uninstall", "--quiet", "--yes", "evcache", cwd=folder)
    return site_packages(python)


def site_packages(python):
    (folder,) = python.parents[1].glob("lib/python*/site-packages")
    return folder


def new_environment(builder, folder, package, dependencies):
    """Return the interpreter of a fresh environment that has the package, its dependencies and pytest."""
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    (site_packages(python) / "dependencies.pth").write_text(f"{dependencies}\n", "utf-8")
    pip(builder, python, "--no-deps", package, cwd=folder)
    return python


@pytest.fixture(scope="module", params=FORMS)
def python(request, builder, dependencies, tmp_path_factory):
    """The interpreter of an environment that has evcache in one of its forms."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "wheel":
        package = request.getfixturevalue("wheel")
    else:
        package = build_editable(builder, request.getfixturevalue("checkout"), folder, **REQUIRED)
    return new_environment(builder, folder, package, dependencies)


# --- contents -----------------------------------------------------------------------------------------------------------


def members(sdist):
    """The paths of all files and links below the folder of the sdist, in its order."""
    with tarfile.open(sdist) as archive:
        return [PurePosixPath(*PurePosixPath(member.name).parts[1:]) for member in archive]


def files_and_links(folder):
    """The paths of all files and links that git does not ignore, relative to the folder."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return {
        PurePosixPath(path) for path in found if not any(fnmatch(part, name) for part in path.parts for name in NOT_PACKED)
    }


def test_the_sdist_has_every_file_of_the_checkout(sdist, checkout):
    """Once each, so that a patch of a distributor has one place. hatchling adds PKG-INFO."""
    expected = files_and_links(checkout) | {PurePosixPath("PKG-INFO")}
    assert PurePosixPath("evcache/zones") in expected
    assert sorted(members(sdist)) == sorted(expected)


def test_an_sdist_of_an_unpacked_sdist_is_the_same_file(builder, sdist, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert (unpacked / "evcache" / "zones" / "errors.py").samefile(unpacked / "zones" / "errors.py")
    assert os.access(unpacked / ".ci" / "run", os.X_OK)
    again = tmp_path / "again"
    again.mkdir()
    build(builder, unpacked, again, "--sdist")
    assert (again / sdist.name).read_bytes() == sdist.read_bytes()


def test_the_wheel_has_modules_types_and_the_license(wheel):
    names = [PurePosixPath(name) for name in zipfile.ZipFile(wheel).namelist()]
    assert len(names) == len(set(names))
    information, package = sorted({name.parts[0] for name in names}, key=len, reverse=True)
    assert (package, information) == ("evcache", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info")
    assert {name.suffix for name in names if name.parts[0] == package} <= {".py", ".pyi", ".so", ".typed"}
    assert PurePosixPath(information, "licenses", "LICENSE") in names


@pytest.fixture(scope="module")
def metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    (path,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    return email.message_from_string(archive.read(path).decode())


LINK = re.compile(r"\]\(([^)]+)\)|^\[[^\]]+\]:\s*(\S+)|(?:href|src)=\"([^\"]+)", re.MULTILINE)


def links(text):
    return ["".join(found) for found in LINK.findall(text)]


def test_every_form_of_link_is_found():
    text = '[a](docs/a.md#b) ![c](c.png)\n<a href="d.md">\n[e]: e.md\n'
    assert links(text) == ["docs/a.md#b", "c.png", "d.md", "e.md"]


def test_links_of_the_description_lead_to_files_of_the_tag(metadata):
    """A package index shows the README, and has none of the other files."""
    repository = dict(line.split(", ") for line in metadata.get_all("Project-URL"))["Repository"]
    tag = f"{repository}/blob/v{metadata['Version']}/"
    found = links(metadata.get_payload())
    assert [link for link in found if not link.startswith("https://")] == []
    ours = [link.removeprefix(tag) for link in found if link.startswith(repository)]
    assert ours == [link for link in links((CHECKOUT / "README.md").read_text("utf-8")) if ":" not in link]
    assert len(ours) > 20
    assert [path for path in ours if not (CHECKOUT / path.partition("#")[0]).is_file()] == []


def test_pages_of_the_project_belong_to_its_repository(metadata):
    pages = dict(line.split(", ") for line in metadata.get_all("Project-URL"))
    assert pages.keys() == {"Homepage", "Documentation", "Repository", "Changelog", "Issues"}
    assert [page for page in pages.values() if not page.startswith(pages["Repository"])] == []


# --- installations ------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("command", [["bin/evcache"], ["bin/python", "-m", "evcache"]], ids=" ".join)
def test_the_program_names_its_missing_extra(python, tmp_path, command):
    program, *arguments = command
    done = run(python.parents[1] / program, *arguments, "--version", cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install evcache[cli]" in done.stderr


CORE = "from evcache.zones.transport.core import selected; print(selected.SELECTED.name)"
NO_COMPILER = {"CC": "/no/compiler"}
needs_compiler = pytest.mark.skipif(COMPILED is None, reason="no compiler here")


@needs_compiler
@pytest.mark.parametrize(("variables", "core"), [({}, "compiled"), ({"EVCACHE_PURE": "1"}, "pure")])
def test_the_compiled_core_is_installed_and_the_environment_selects_it(python, tmp_path, variables, core):
    assert run(python, "-c", CORE, cwd=tmp_path, **variables).stdout == f"{core}\n"


def test_without_a_compiler_the_package_is_pure_and_says_so(builder, checkout, dependencies, tmp_path):
    done = build(builder, checkout, tmp_path, "--wheel", **NO_COMPILER)
    (built,) = tmp_path.glob("*.whl")
    assert built.name.endswith("-py3-none-any.whl")
    assert "without its compiled core" in done.stdout + done.stderr
    python = new_environment(builder, tmp_path, built, dependencies)
    assert run(python, "-c", CORE, cwd=tmp_path).stdout == "pure\n"


def test_an_editable_installation_without_a_compiler_keeps_no_earlier_core(builder, checkout, dependencies, tmp_path):
    """An earlier core would run with newer Python code."""
    earlier = checkout / "zones/transport/core" / f"_compiled{sysconfig.get_config_var('EXT_SUFFIX')}"
    earlier.write_bytes(b"an earlier core")
    package = build_editable(builder, checkout, tmp_path, **NO_COMPILER)
    assert not earlier.exists()
    python = new_environment(builder, tmp_path, package, dependencies)
    assert run(python, "-c", CORE, cwd=tmp_path).stdout == "pure\n"


@pytest.mark.parametrize("why_not", [NO_COMPILER, {"EVCACHE_PURE": "1"}], ids=["no compiler", "left out"])
def test_a_required_core_that_is_not_built_is_an_error(builder, checkout, tmp_path, why_not):
    variables = why_not | {"EVCACHE_REQUIRE_CORE": "1"}
    done = build(builder, checkout, tmp_path, "--wheel", check=False, **variables)
    assert done.returncode != 0
    assert list(tmp_path.glob("*.whl")) == []
