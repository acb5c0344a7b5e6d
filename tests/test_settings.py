"""Settings: read once, all wrong ones named at once, secrets never shown, docs and help made from the same words."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from ottoscaler.cli import build_parser
from ottoscaler.cli.settings_table import readme_with_table, settings_table
from ottoscaler.errors import SettingsError
from ottoscaler.parsing import TLS_OPTIONS
from ottoscaler.secret import Secret
from ottoscaler.settings import FIELDS, flag_of, load_settings, workers

DOCS = Path(__file__).parents[1] / "docs" / "settings.md"


def problems(environ: dict[str, str], flags: dict[str, str] | None = None) -> list[str]:
    """What load_settings has to say against these values."""
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, flags)
    return caught.value.problems


def test_defaults_are_the_documented_ones() -> None:
    """Without any variable the settings are the defaults that users rely on."""
    settings = load_settings({})
    assert (settings.redis_host, settings.redis_port, settings.redis_db) == ("localhost", 6379, 0)
    assert settings.redis_stream == "otto:scale:events"
    assert settings.redis_consumer_group == "ottoscaler"
    assert (settings.otto_agent_image, settings.worker_cpu_limit, settings.worker_memory_limit) == (
        "busybox:latest",
        "500m",
        "128Mi",
    )
    assert (settings.lease_seconds, settings.drain_seconds, settings.max_workers) == (3.0, 20.0, 1000)
    assert settings.worker_command is None
    assert str(settings.redis_address) == "redis://localhost:6379/0"


def test_every_default_passes_its_own_check() -> None:
    """A default is written as a user would write it, and giving it explicitly changes nothing."""
    written = {name: field.default for name, field in FIELDS.items() if isinstance(field.default, str)}
    assert load_settings(written) == load_settings({})


def test_an_empty_variable_counts_as_unset() -> None:
    """An empty or blank variable gives the default, also where emptiness would be a value."""
    assert load_settings(dict.fromkeys(FIELDS, " ")) == load_settings({})


def test_a_flag_wins_over_its_variable() -> None:
    """The flag decides; an empty flag leaves the variable in force."""
    environ = {"REDIS_HOST": "one", "REDIS_PORT": "1"}
    settings = load_settings(environ, {"REDIS_HOST": "two", "REDIS_PORT": ""})
    assert (settings.redis_host, settings.redis_port) == ("two", 1)


def test_all_problems_are_named_at_once() -> None:
    """Each wrong setting gives one line with what was given, its value and what was expected."""
    assert problems(
        {
            "REDIS_PORT": "70000",
            "REDIS_TRIM": "maybe",
            "REDIS_GROUP_START": "now",
            "RESULTS_MAX_BYTES": "1.5",
            "NAMESPACE": "Team_A",
            "WORKER_COMMAND": "sh -c",
            "WORKER_ARGS": '["a", 1]',
            "WORKER_CPU_LIMIT": "half",
            "WORKER_MEMORY_LIMIT": "128m",
            "LEASE_SECONDS": "nan",
            "LOG_LEVEL": "loud",
        },
        {"DRAIN_SECONDS": "-1"},
    ) == [
        "REDIS_PORT is '70000', expected a whole number from 1 to 65535",
        "REDIS_GROUP_START is 'now', expected 0, $ or an entry id such as 1756659802903-0",
        "REDIS_TRIM is 'maybe', expected auto, on or off",
        "RESULTS_MAX_BYTES is '1.5', expected a whole number of bytes from 1048576 to 1099511627776",
        "NAMESPACE is 'Team_A', expected a namespace: up to 63 of a-z, 0-9 and -",
        'WORKER_COMMAND is \'sh -c\', expected a JSON list of texts such as ["sh", "-c"] '
        "(JSON is malformed: invalid character (byte 0))",
        'WORKER_ARGS is \'["a", 1]\', expected a JSON list of texts such as ["sh", "-c"] '
        "(Expected `str`, got `int` - at `$[1]`)",
        "WORKER_CPU_LIMIT is 'half', expected a Kubernetes quantity of at least 1m, such as 500m",
        "WORKER_MEMORY_LIMIT is '128m', expected a Kubernetes quantity of at least 1, such as 128Mi",
        "LEASE_SECONDS is 'nan', expected a number of seconds from 0.1 to 3600",
        "--drain-seconds is '-1', expected a number of seconds from 0 to 31536000",
        "LOG_LEVEL is 'loud', expected debug, info, warning or error",
    ]


@pytest.mark.parametrize("url", ["redis://:hunter2@host:x/0", "redis://:hun/ter2@host", "hunter2", "http://:hunter2@h"])
def test_a_wrong_redis_url_is_refused_without_showing_it(url: str) -> None:
    """The URL may hold a password, also in a place where none belongs."""
    assert problems({"REDIS_URL": url}) == [
        "REDIS_URL is ***, expected redis://, rediss:// (TLS) or unix:// as in rediss://user:password@host:6379/0, "
        "or memory://"
    ]


def test_an_unknown_option_of_the_url_is_named() -> None:
    """A misspelt TLS option is not silently dropped."""
    (problem,) = problems({"REDIS_URL": "rediss://host?ssl_cert=x"})
    assert problem.endswith("(the option ssl_cert is not one of " + ", ".join(TLS_OPTIONS) + ")")


def test_secrets_are_hidden_in_every_text() -> None:
    """Neither the settings' repr nor that of the Redis address shows a password."""
    settings = load_settings({"REDIS_PASSWORD": "hunter2\n", "REDIS_URL": "redis://me:hunter3@host"})
    for text in (repr(settings), str(settings.redis_address), repr(settings.redis_address), f"{settings}"):
        assert "hunter" not in text
    assert settings.redis_password == Secret("hunter2")
    assert settings.redis_address.password == Secret("hunter3")
    assert settings.redis_address.username == "me"


def test_single_settings_complete_the_url() -> None:
    """Password and database may stand beside a URL that has none: so a URL needs no secret in it."""
    settings = load_settings({"REDIS_URL": "rediss://[::1]:7000", "REDIS_PASSWORD": " p w ", "REDIS_DB": "4"})
    address = settings.redis_address
    assert (address.scheme, address.host, address.port, address.db) == ("rediss", "::1", 7000, 4)
    assert address.password == Secret(" p w ")
    assert str(address) == "rediss://[::1]:7000/4"


def test_the_port_that_kubernetes_injects_is_understood() -> None:
    """A service named redis makes Kubernetes set REDIS_PORT=tcp://…, which must not stop the start."""
    assert load_settings({"REDIS_PORT": "tcp://10.96.0.7:6380"}).redis_port == 6380


def test_an_empty_list_differs_from_no_list() -> None:
    """`[]` asks for the image's own command, an unset variable for the default one."""
    assert load_settings({"WORKER_COMMAND": "[]"}).worker_command == ()


def test_the_namespace_is_the_pods_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cluster the pod's namespace is the default, unless a kubeconfig says that another cluster is meant."""
    own = tmp_path / "namespace"
    own.write_text("team-a")
    monkeypatch.setattr(workers, "IN_CLUSTER_NAMESPACE", own)
    assert load_settings({}).namespace == "team-a"
    assert load_settings({"KUBECONFIG": "/k"}).namespace == "default"
    assert load_settings({"NAMESPACE": "b"}).namespace == "b"


def test_settings_cannot_be_changed() -> None:
    """What was checked at the start stays so."""
    with pytest.raises(AttributeError):
        load_settings({}).redis_port = 1  # type: ignore[misc]  # that is the point
    assert msgspec.structs.replace(load_settings({}), redis_port=1).redis_port == 1


def test_the_documented_table_is_the_code_s() -> None:
    """docs/settings.md is what `python -m ottoscaler.cli.settings_table` writes."""
    assert DOCS.read_text() == settings_table()


def test_the_readme_shows_every_setting() -> None:
    """The README's table is what `python -m ottoscaler.cli.settings_table` writes."""
    readme = (DOCS.parents[1] / "README.md").read_text()
    assert readme == readme_with_table(readme)
    assert readme.count("| `REDIS_HOST` |") == 1


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve --help` shows flag, variable, effect, expectation and default of every setting."""
    monkeypatch.setenv("COLUMNS", "10000")
    with pytest.raises(SystemExit):
        build_parser({"serve"}).parse_args(["serve", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for variable, field in FIELDS.items():
        default = f"default: {field.default_shown}" if field.default_shown else "unset by default"
        unit = field.kind.unit.upper() or "TEXT"
        words = f"{flag_of(variable)} {unit} {field.effect} Expected: {field.kind.expected} ({default}). [{variable}]"
        assert words in shown


def test_settings_are_cheap_to_import() -> None:
    """Settings bring none of the heavy libraries along."""
    program = "import sys, ottoscaler.settings, ottoscaler.log; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "typer", "rich", "httpx", "redis", "trio", "yaml"} & set(loaded)
