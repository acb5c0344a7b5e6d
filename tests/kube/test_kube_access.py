"""How the API is found: kubeconfig files, the pod's own access, and the exact words for what is wrong."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from trio.testing import MockClock

from ottoscaler.errors import SettingsError, Unavailable
from ottoscaler.kube.access import load_access
from ottoscaler.kube.credentials import StaticToken, TokenFile
from ottoscaler.secret import Secret


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """A certificate authority to write into files."""
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


def pem(ca: trustme.CA) -> str:
    """Its certificate as text."""
    return ca.cert_pem.bytes().decode()


def document(**changes: Any) -> dict[str, Any]:
    """A good kubeconfig with one context `main`; changes replace whole cluster, user or context mappings."""
    return {
        "kind": "Config",
        "current-context": changes.get("current", "main"),
        "clusters": [{"name": "c", "cluster": changes.get("cluster", {"server": "https://10.0.0.1:6443"})}],
        "users": [{"name": "u", "user": changes.get("user", {"token": "hush"})}],
        "contexts": [{"name": "main", "context": changes.get("context", {"cluster": "c", "user": "u"})}],
    }


def write(path: Path, content: Any) -> str:
    """Write a kubeconfig, return its path as text."""
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def refusal(path: str, context: str | None = None) -> str:
    """What is said about a bad kubeconfig."""
    with pytest.raises(SettingsError) as caught:
        load_access(path, context, {})
    (problem,) = caught.value.problems
    return problem


def test_a_context_gives_server_namespace_trust_and_token(tmp_path: Path, ca: trustme.CA) -> None:
    """What the current context names is what is used."""
    data = base64.b64encode(ca.cert_pem.bytes()).decode()
    cluster = {"server": "https://10.0.0.1:6443/", "certificate-authority-data": data, "tls-server-name": "kube"}
    path = write(tmp_path / "k", document(cluster=cluster, context={"cluster": "c", "user": "u", "namespace": "otto"}))
    access = load_access(path, None, {"KUBERNETES_SERVICE_HOST": "10.1.1.1"})
    assert (access.server, access.namespace) == ("https://10.0.0.1:6443", "otto")
    assert (access.trust.ca, access.trust.server_name) == (pem(ca), "kube")
    assert access.credentials == StaticToken(Secret("hush"))
    assert access.origin == f"context main of {path}"


def test_nothing_secret_is_shown(tmp_path: Path, ca: trustme.CA) -> None:
    """The repr of an access has neither token nor proxy password."""
    cluster = {"server": "https://h", "proxy-url": "http://me:pass@p:1"}
    access = load_access(write(tmp_path / "k", document(cluster=cluster)), None, {})
    assert access.proxy_url == "http://me:pass@p:1"
    assert "hush" not in repr(access)
    assert "pass" not in repr(access)


def test_several_files_merge_and_the_first_wins(tmp_path: Path) -> None:
    """Of each name the first file that has it counts; a missing file is skipped; the first current-context counts."""
    first = write(tmp_path / "1", {"contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]})
    second = write(tmp_path / "2", document(cluster={"server": "https://second"}))
    third = write(tmp_path / "3", document(cluster={"server": "https://third"}, current="x"))
    paths = ":".join([first, str(tmp_path / "missing"), second, third])
    assert load_access(paths, None, {}).server == "https://second"
    assert load_access(paths, "x", {}).origin == f"context x of {first}"


def test_relative_paths_are_relative_to_their_file(tmp_path: Path, ca: trustme.CA) -> None:
    """CA, certificate and key may be files beside the kubeconfig."""
    (tmp_path / "ca.pem").write_text(pem(ca))
    leaf = ca.issue_cert("client@example.org", key_type=trustme.KeyType.ECDSA)
    (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    (tmp_path / "key.pem").write_bytes(leaf.private_key_pem.bytes())
    cluster = {"server": "https://h", "certificate-authority": "ca.pem"}
    user = {"client-certificate": "cert.pem", "client-key": "key.pem"}
    access = load_access(write(tmp_path / "k", document(cluster=cluster, user=user)), None, {})
    assert access.trust.ca == pem(ca)
    assert access.certificate is not None
    assert access.certificate.key.reveal() == leaf.private_key_pem.bytes().decode()
    assert "PRIVATE" not in repr(access.certificate)


CLUSTER = "clusters[c].cluster"
USER = "users[u].user"
BAD_DOCUMENTS: list[tuple[Any, str]] = [
    ("a: [", "is not YAML (line 2, column 1: did not find expected node content), expected a kubeconfig"),
    ("[1]", "is no mapping, expected a kubeconfig (kind: Config)"),
    (document(current=""), "current-context is missing, expected one of: main"),
    (document(current="gone"), "current-context is 'gone', expected one of: main"),
    (
        document(context={"cluster": "x"}),
        "contexts[main].context.cluster is 'x', expected one of the clusters: c",
    ),
    (
        document(context={"user": "u"}),
        "contexts[main].context.cluster is missing, expected one of the clusters: c",
    ),
    (
        document(context={"cluster": "c", "user": "x"}),
        "contexts[main].context.user is 'x', expected one of the users: u",
    ),
    (document(cluster={}), f"{CLUSTER}.server is missing, expected a URL such as https://10.0.0.1:6443"),
    (
        document(cluster={"server": "10.0.0.1:6443"}),
        f"{CLUSTER}.server is '10.0.0.1:6443', expected a URL such as https://10.0.0.1:6443",
    ),
    (
        document(cluster={"server": "https://h", "certificate-authority-data": "%"}),
        f"{CLUSTER}.certificate-authority-data is no base64 of a text, expected base64 of PEM",
    ),
    (
        document(cluster={"server": "https://h", "certificate-authority-data": "aGFsbG8="}),
        f"{CLUSTER}.certificate-authority holds no certificate that can be read, expected PEM",
    ),
    (
        document(cluster={"server": "https://h", "certificate-authority": "/nosuch/ca"}),
        f"{CLUSTER}.certificate-authority is '/nosuch/ca', expected a file of PEM text: No such file or directory",
    ),
    (
        document(cluster={"server": "https://h", "insecure-skip-tls-verify": "yes"}),
        f"{CLUSTER}.insecure-skip-tls-verify is 'yes', expected true or false",
    ),
    (
        document(cluster={"server": "https://h", "proxy-url": "socks5://p"}),
        f"{CLUSTER}.proxy-url is no such URL, expected that of an http or https proxy",
    ),
    (document(user={"token": 5}), f"{USER}.token is 5, expected a text"),
    (
        document(user={"as": "root"}),
        f"{USER}.as is set and not supported, expected none: Ottoscaler impersonates nobody",
    ),
    (
        document(user={"auth-provider": {"name": "gcp"}}),
        f"{USER}.auth-provider is set and not supported, expected none: Kubernetes took it out in 1.26; use exec",
    ),
    (document(user={"tokenFile": "/nosuch"}), f"{USER}.tokenFile is '/nosuch', expected a file that exists"),
    (
        document(user={"client-certificate-data": base64.b64encode(b"x").decode()}),
        f"{USER}.client-key is missing, expected client-certificate and client-key together",
    ),
    (document(user={"exec": {}}), f"{USER}.exec has no command, expected the plugin's name or path"),
    (
        document(user={"exec": {"command": "x", "apiVersion": "v9"}}),
        f"{USER}.exec has the apiVersion 'v9', expected one of: "
        "client.authentication.k8s.io/v1, client.authentication.k8s.io/v1beta1",
    ),
    ({"users": [{}]}, "users[0].name is missing, expected a name"),
    ({"users": 5}, "users is no list, expected a list of users"),
]


@pytest.mark.parametrize(
    ("content", "problem"), BAD_DOCUMENTS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_bad_kubeconfig_is_refused_naming_file_and_field(tmp_path: Path, content: Any, problem: str) -> None:
    """Each mistake gives one sentence with the file, the field, what it holds and what was expected."""
    path = write(tmp_path / "k", content)
    field, _, words = problem.partition(" ")
    where = path if field == "is" else f"field {field} of {path}"
    assert refusal(path) == f"KUBECONFIG: {where} {problem if field == 'is' else words}"
    assert "expected" in problem


def test_a_certificate_that_does_not_fit_its_key_is_refused(tmp_path: Path, ca: trustme.CA) -> None:
    """A wrong pair is found at the start, not at the first connection."""
    one, other = (ca.issue_cert(f"{name}@example.org", key_type=trustme.KeyType.ECDSA) for name in "ab")
    user = {
        "client-certificate-data": base64.b64encode(one.cert_chain_pems[0].bytes()).decode(),
        "client-key-data": base64.b64encode(other.private_key_pem.bytes()).decode(),
    }
    path = write(tmp_path / "k", document(user=user))
    words = f"field {USER}.client-certificate of {path} is of no use, expected one for client-key: "
    assert refusal(path).startswith(f"KUBECONFIG: {words}")


def test_missing_files_are_named(tmp_path: Path) -> None:
    """One missing file, or a list of nothing but missing ones, is refused."""
    path = str(tmp_path / "a")
    assert refusal(path) == f"KUBECONFIG: {path} cannot be read (No such file or directory), expected a kubeconfig"
    assert refusal(f"{path}:{path}b") == f"KUBECONFIG is '{path}:{path}b', expected files of which at least one exists"


def test_an_unknown_context_is_refused(tmp_path: Path) -> None:
    """A context asked for by name must exist."""
    path = write(tmp_path / "k", document())
    assert refusal(path, "x") == f"KUBECONFIG: the context asked of {path} is 'x', expected one of: main"


def test_without_kubeconfig_and_cluster_it_says_what_to_set() -> None:
    """Nothing is guessed: no kubeconfig of the home folder is used unasked."""
    assert refusal("") == "KUBECONFIG is unset and this is no pod of a cluster, expected the path of a kubeconfig file"


@pytest.fixture
def account(tmp_path: Path, ca: trustme.CA) -> Path:
    """The files that a pod finds in its cluster."""
    for name, text in (("token", "t1\n"), ("ca.crt", pem(ca)), ("namespace", "otto\n")):
        (tmp_path / name).write_text(text)
    return tmp_path


async def test_a_pod_finds_its_cluster(account: Path, autojump_clock: MockClock) -> None:
    """In a cluster the service account's files and two variables say everything."""
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    access = load_access(None, None, environ, account=account)
    assert (access.server, access.namespace) == ("https://[fd00::1]:6443", "otto")
    assert await access.credentials.token() == Secret("t1")


def test_a_pod_without_token_or_ca_says_which(account: Path) -> None:
    """A service account that is not mounted is named, not met at the first request."""
    (account / "token").unlink()
    with pytest.raises(SettingsError) as caught:
        load_access("", None, {"KUBERNETES_SERVICE_HOST": "h"}, account=account)
    assert str(caught.value) == (
        f"{account / 'token'}: No such file or directory, expected the token of the pod's service account"
    )


async def test_a_rotated_token_is_read_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A token file is read again after a minute, and at once when the API refused what it held."""
    import trio

    path = tmp_path / "token"
    path.write_text("t1")
    source = TokenFile(path)
    assert await source.token() == Secret("t1")
    path.write_text("t2")
    assert await source.token() == Secret("t1")
    assert await source.token(fresh=True) == Secret("t2")
    path.write_text("t3")
    await trio.sleep(60)
    assert await source.token() == Secret("t3")


async def test_a_token_file_that_is_away_for_a_moment_changes_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """While the file cannot be read or is empty the last token stays; without one the error names the file."""
    path = tmp_path / "token"
    with pytest.raises(Unavailable, match=f"{path}: No such file or directory, expected a token"):
        await TokenFile(path).token()
    path.write_text("t1")
    source = TokenFile(path)
    await source.token()
    path.write_text("")
    assert await source.token(fresh=True) == Secret("t1")
    path.unlink()
    assert await source.token(fresh=True) == Secret("t1")
