"""TLS and login of the commands."""

import pytest
from click.testing import CliRunner

from evcache.cli.commands import evcache as command_line
from evcache.cli.runner import BadUse
from evcache.cli.target import Security, password_of
from tests.support.cli_servers import servers


def check(zones, *args, **environment):
    return CliRunner().invoke(command_line, ["check", *args], env={"EVCACHE_NODES": zones, **environment})


@pytest.fixture(scope="module")
def login_zone():
    with servers(a={"auth": ("ada", "secret")}) as at:
        yield f"eu-1a={at['a']}"


def test_login_with_a_password_of_the_environment(login_zone):
    assert check(login_zone, "--user", "ada", EVCACHE_PASSWORD="secret").exit_code == 0
    assert check(login_zone, EVCACHE_USER="ada", EVCACHE_PASSWORD="secret").exit_code == 0


def test_login_with_a_password_file(login_zone, tmp_path):
    path = tmp_path / "password"
    path.write_text("secret\nsecond line\n", "utf-8")
    assert check(login_zone, "--user", "ada", "--password-file", str(path)).exit_code == 0


def test_no_login_shows_the_reason(login_zone):
    done = check(login_zone)
    assert done.exit_code == 3
    assert "unauthenticated" in done.output


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--user", "ada"], "--user needs --password-file"),
        (["--tls-key", __file__], "--tls-key needs --tls-cert"),
        (["--tls-ca", __file__], f"--tls-ca {__file__}"),
        (["--tls-cert", __file__], f"--tls-cert {__file__}"),
        (["--tls-ca", "/no/such/file"], "--tls-ca"),
    ],
)
def test_an_unusable_option_is_named_and_nothing_is_sent(options, problem):
    done = check("eu-1a=127.0.0.1:1", *options)
    assert done.exit_code == 2
    assert problem in done.stderr


def test_each_option_of_tls_asks_for_tls():
    assert not Security().has_tls
    assert all(Security(**{name: "x"}).has_tls for name in ("ca", "certificate", "private_key", "server_name"))
    assert Security(tls=True).context().check_hostname


def test_an_empty_password_file_is_an_error(tmp_path):
    path = tmp_path / "password"
    path.write_text("\n", "utf-8")
    with pytest.raises(BadUse, match="first line is empty"):
        password_of(str(path))
