"""Credential plugins as real processes: what they print, how they fail, how often they run."""

from __future__ import annotations

import json
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from ottoscaler.errors import SettingsError, Unavailable
from ottoscaler.kube.exec_plugin import ExecPlugin, read_exec_spec
from ottoscaler.secret import Secret

V1 = "client.authentication.k8s.io/v1"


def plugin(tmp_path: Path, script: str, *, now: float = 0, limit: float = 20, **spec: Any) -> ExecPlugin:
    """A plugin made of a few lines of Python that may use `count`, the number of its run, and `give(**status)`."""
    (tmp_path / "plugin.py").write_text(
        "import json, os, sys, time, pathlib\n"
        f"runs = pathlib.Path({str(tmp_path / 'runs')!r})\n"
        "count = len(runs.read_text()) + 1 if runs.exists() else 1\n"
        "runs.write_text('x' * count)\n"
        f"def give(**status): print(json.dumps(dict(apiVersion={V1!r}, kind='ExecCredential', status=status)))\n"
        + script
    )
    value = {"command": sys.executable, "args": ["-S", str(tmp_path / "plugin.py")], "apiVersion": V1, **spec}
    return ExecPlugin(read_exec_spec(value, tmp_path), {"PATH": "/bin"}, limit=limit, now=lambda: now)


async def test_a_token_is_kept_until_it_ends(tmp_path: Path) -> None:
    """The plugin runs once for many requests, and again shortly before the token's end."""
    script = "give(token=f't{count}', expirationTimestamp='1970-01-01T00:01:40Z')"
    source = plugin(tmp_path, script, now=89)
    assert [await source.token() for _ in range(3)] == [Secret("t1")] * 3
    source._now = lambda: 90.0
    assert await source.token() == Secret("t2")


async def test_one_run_serves_all_who_were_refused_together(tmp_path: Path) -> None:
    """Several requests that got 401 at once cause one run, and all get its token."""
    source = plugin(tmp_path, "time.sleep(0.05); give(token=f't{count}')")
    await source.token()
    tokens: list[Secret | None] = []

    async def ask() -> None:
        tokens.append(await source.token(fresh=True))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask)
    assert tokens == [Secret("t2")] * 4


async def test_the_plugin_gets_its_environment(tmp_path: Path) -> None:
    """The kubeconfig's env is added, and KUBERNETES_EXEC_INFO says that nobody can be asked."""
    script = "give(token=os.environ['A'] + os.environ['KUBERNETES_EXEC_INFO'])"
    token = await plugin(tmp_path, script, env=[{"name": "A", "value": "a"}]).token()
    assert token is not None
    assert token.reveal()[0] == "a"
    assert json.loads(token.reveal()[1:]) == {
        "apiVersion": V1,
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }


async def test_a_plugins_certificate_is_shown_from_then_on(tmp_path: Path) -> None:
    """A certificate beside or instead of a token goes into the TLS context, once for each that the plugin gives."""
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    leaf = ca.issue_cert("me@example.org", key_type=trustme.KeyType.ECDSA)
    (tmp_path / "cert").write_bytes(leaf.cert_chain_pems[0].bytes())
    (tmp_path / "key").write_bytes(leaf.private_key_pem.bytes())
    script = (
        f"read = lambda name: open({str(tmp_path)!r} + '/' + name).read()\n"
        "give(clientCertificateData=read('cert'), clientKeyData=read('key'))"
    )
    source = plugin(tmp_path, script)
    assert await source.token() is None
    loads: list[str] = []

    class Context(ssl.SSLContext):
        def load_cert_chain(self, certfile: Any, keyfile: Any = None, password: Any = None) -> None:
            loads.append(str(certfile))
            super().load_cert_chain(certfile, keyfile, password)

    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    for _ in range(3):
        source.certify(context)
    assert len(loads) == 1
    assert not Path(loads[0]).exists()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("print('no', file=sys.stderr); sys.exit(3)", "failed with exit code 3: no"),
        ("print('{')", "printed no JSON, expected an ExecCredential"),
        ("print('{}')", "printed no ExecCredential"),
        ("give()", "printed an ExecCredential without a token or certificate"),
        (
            "give(token='t', expirationTimestamp='soon')",
            "printed the expirationTimestamp 'soon', expected an RFC 3339 time",
        ),
    ],
)
async def test_a_plugin_that_fails_says_how(tmp_path: Path, script: str, problem: str) -> None:
    """A failing plugin may work later (Unavailable); the error has its own words but nothing it printed."""
    with pytest.raises(Unavailable) as caught:
        await plugin(tmp_path, script).token()
    assert str(caught.value) == f"{sys.executable} {problem}"


async def test_a_plugin_that_hangs_is_ended(tmp_path: Path) -> None:
    """The time limit ends it at once."""
    source = plugin(tmp_path, "time.sleep(60)", limit=0.3)
    with trio.fail_after(30), pytest.raises(Unavailable, match=r"gave no credentials within 0\.3 s"):
        await source.token()


async def test_a_plugin_that_is_not_installed_is_named_with_its_hint(tmp_path: Path) -> None:
    """The kubeconfig's own hint tells how to get the plugin."""
    source = plugin(tmp_path, "", command="no-such-plugin", installHint="see example.org")
    with pytest.raises(SettingsError) as caught:
        await source.token()
    assert str(caught.value) == (
        "KUBECONFIG: the plugin's command is 'no-such-plugin', expected a credential plugin that can be run: "
        "No such file or directory (see example.org)"
    )


async def test_a_plugin_that_is_being_replaced_is_an_outage(tmp_path: Path) -> None:
    """Once it has run, a plugin that is away for a moment is no wrong setting."""
    path = tmp_path / "plugin"
    path.write_text(f"#!/bin/sh\nexec {sys.executable} -S {tmp_path}/plugin.py\n")
    path.chmod(0o700)
    source = plugin(tmp_path, "give(token='t')", command=str(path), args=[])
    await source.token()
    path.unlink()
    with pytest.raises(Unavailable, match="No such file or directory"):
        await source.token(fresh=True)
