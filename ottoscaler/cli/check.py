"""`ottoscaler check`: the settings and what they lead to, one line each, with the mend where something is wrong."""

import argparse
import os
import re
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ottoscaler.causes import check_retry_policy
from ottoscaler.cli.flags import add_setting_flags, settings_from
from ottoscaler.errors import OttoscalerError, SettingsError
from ottoscaler.settings import FIELDS, Settings

if TYPE_CHECKING:
    from ottoscaler.stream.safekeeping import ServerReport

LIMIT_SECONDS = 10.0
NEEDED = (("pods", ("create", "get", "list", "watch", "delete", "deletecollection")),)
WANTED = (("pods/log", ("get",)), ("events", ("list", "watch")))
"""Rights without which the scaler works, and does less."""
LOST = {
    "pods/log": "logs of workers cannot be forwarded",
    "events": "LivenessFailed and MountFailed cannot be told",
}
OLDEST_REDIS = (6, 2)


class Finding(NamedTuple):
    """What one look found: `ok`, `note` (it may be meant so), `warn` (it works, with a risk) or `FAIL`; `mend` says
    what to do about it.
    """

    verdict: str
    subject: str
    words: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.verdict:4}  {self.subject:11}  {self.words}" + (f"; {self.mend}" if self.mend else "")


class Api(Protocol):
    """What is needed of the API here; `ottoscaler.kube.client.Kube` has it."""

    async def version(self) -> str:
        """The server's version."""

    async def review_access(self, namespace: str, verb: str, resource: str, subresource: str = "") -> tuple[bool, str]:
        """Whether we may do this, and why."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting, so that a change can be tried out."""
    parser.usage = "ottoscaler check [--help] [--SETTING VALUE]..."
    add_setting_flags(parser, FIELDS)


def run(args: argparse.Namespace) -> int:
    """Print one line per finding as it is found; 1 when any failed, else 0."""
    import trio

    try:
        settings = settings_from(args)
        if problems := check_retry_policy(settings.retry_policy or {}):
            raise SettingsError(problems)
    except SettingsError as error:
        return show_all([Finding("FAIL", "settings", problem) for problem in error.problems])
    given = sum(bool(os.environ.get(name) or getattr(args, name)) for name in FIELDS)

    async def main() -> int:
        failed = show_all([Finding("ok", "settings", f"all {len(FIELDS)} are valid, {given} of them given")])
        files = (look_at_templates, look_at_policy, look_at_grpc)
        for look in (*files, look_at_ports, look_at_redis, look_at_kubernetes, look_at_handler):
            async for finding in look(settings):
                failed |= show_all([finding])
        return failed

    return trio.run(main)


def show_all(findings: list[Finding], show: Callable[[str], None] = lambda line: print(line, flush=True)) -> int:
    """Print findings; 1 when one of them failed, else 0."""
    for finding in findings:
        show(str(finding))
    return int(any(finding.verdict == "FAIL" for finding in findings))


async def look_at_templates(settings: Settings) -> AsyncIterator[Finding]:
    """The worker templates, where there are any."""
    if settings.worker_template is None:
        return
    from ottoscaler.kube.templates import load_templates

    try:
        load_templates(settings.worker_template, settings.own_apps)
    except SettingsError as error:
        for problem in error.problems:
            yield Finding("FAIL", "templates", problem)
    else:
        yield Finding("ok", "templates", f"{settings.worker_template} can be used")


async def look_at_policy(settings: Settings) -> AsyncIterator[Finding]:
    """The policy, where there is one."""
    if settings.policy_file is None:
        return
    from ottoscaler.policy_file import PolicyFile

    try:
        PolicyFile(settings.policy_file)
    except SettingsError as error:
        for problem in error.problems:
            yield Finding("FAIL", "policy", problem)
    else:
        yield Finding("ok", "policy", f"{settings.policy_file} can be used")


async def look_at_grpc(settings: Settings) -> AsyncIterator[Finding]:
    """The files of the gRPC door, where it is opened and they are given."""
    files = (settings.grpc_tls_cert, settings.grpc_tls_key, settings.grpc_tls_client_ca, settings.grpc_tokens_file)
    if not settings.grpc_enabled or not any(files):
        return
    from ottoscaler.rpc.server import wrong_files

    problems = wrong_files(settings)
    for problem in problems:
        yield Finding("FAIL", "grpc", problem)
    if not problems:
        yield Finding("ok", "grpc", f"{', '.join(filter(None, files))} can be used")


async def look_at_ports(settings: Settings) -> AsyncIterator[Finding]:
    """Whether the doors' ports are free: in the scaler's own pod they are in use, by the scaler."""
    if settings.http_port:
        yield await try_port("HTTP", settings.http_host, settings.http_port)
    if settings.grpc_enabled:
        host = settings.grpc_host.strip("[]")
        yield await try_port("GRPC", host, settings.grpc_port)
        if settings.http_port == settings.grpc_port and _overlap(settings.http_host.strip("[]"), host):
            words = f"HTTP_PORT and GRPC_PORT are both {settings.grpc_port}, expected two ports"
            yield Finding("FAIL", "port", words)
        if not (settings.grpc_tls_cert or settings.grpc_insecure or host == "localhost" or host.startswith("127.")):
            words = "gRPC is served on 127.0.0.1 only, as its calls are plain text"
            yield Finding("note", "port", words, "give GRPC_TLS_CERT, or allow it with GRPC_INSECURE=true")


def _overlap(one: str, other: str) -> bool:
    """Whether two doors at one port of these addresses would be in each other's way."""
    return one == other or not {one, other}.isdisjoint({"0.0.0.0", "::"})


async def try_port(door: str, host: str, port: int) -> Finding:
    """Listen for a moment at the port of the door whose settings begin with `door`."""
    import errno

    import trio

    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            return Finding(
                "note", "port", f"{door}_PORT {port} on {host} is in use: by a scaler that runs here, or not"
            )
        if error.errno == errno.EACCES:
            words = f"{door}_PORT is '{port}', expected a port that this user may open ({reason})"
        else:
            words = f"{door}_HOST is {host!r}, expected an address of this machine ({reason})"
        return Finding("FAIL", "port", words)
    for listener in listeners:
        await listener.aclose()
    return Finding("ok", "port", f"{door}_PORT {port} on {host} is free")


async def look_at_redis(settings: Settings) -> AsyncIterator[Finding]:
    """Whether Redis answers, is new enough, has room for our keys, and what it promises of what it accepted."""
    import trio

    from ottoscaler.cli.reach import open_stream_of

    address = str(settings.redis_address)
    if settings.redis_address.scheme == "memory":
        yield Finding("warn", "redis", "memory:// keeps the stream in the scaler: a crash loses accepted events")
        return
    mend = "check REDIS_HOST, REDIS_PORT or REDIS_URL, and that Redis runs and lets this user in"
    try:
        with trio.fail_after(LIMIT_SECONDS):
            async with open_stream_of(settings) as stream:
                report = await stream.report()
    except OttoscalerError as error:
        yield Finding("FAIL", "redis", _naming(address, str(error)), mend)
    except trio.TooSlowError:
        yield Finding("FAIL", "redis", f"{address} did not answer within {LIMIT_SECONDS:g} s", mend)
    else:
        for finding in judge_report(address, report):
            yield finding


def judge_report(address: str, report: "ServerReport") -> list[Finding]:
    """What the server says of itself, judged."""
    from ottoscaler.stream.key_types import mend_of

    numbers = tuple(map(int, re.findall(r"\d+", report.version)[:2]))
    is_old = bool(numbers) and numbers < OLDEST_REDIS
    version = Finding(
        "FAIL" if is_old else "ok",
        "redis",
        f"{address} answers: {report.version}",
        "Redis 6.2 or later, or Valkey, is needed" if is_old else "",
    )
    keeps = bool(report.append_only) and report.fsync == "always"
    persistence = Finding(
        "ok" if keeps else "warn",
        "persistence",
        report.promise,
        "" if keeps else "appendonly yes with appendfsync always loses nothing",
    )
    findings = [version, persistence]
    findings += [Finding("FAIL", "keys", words, mend_of(words)) for words in report.strangers]
    if report.eviction not in (None, "noeviction"):
        words = f"maxmemory-policy is {report.eviction}: a full Redis may drop our keys"
        findings.append(Finding("warn", "eviction", words, "set it to noeviction"))
    return findings


async def look_at_kubernetes(settings: Settings) -> AsyncIterator[Finding]:
    """Whether the API answers, and each permission that the scaler needs."""
    import trio

    from ottoscaler.cli.reach import open_kube_of

    mend = "check KUBECONFIG, and that the API can be reached from here"
    try:
        with trio.fail_after(LIMIT_SECONDS):
            async with open_kube_of(settings) as kube:
                follows = bool(settings.otto_handler_host) or settings.log_sink != "none"
                findings = await ask_api(kube, kube.address, settings.namespace, follows_logs=follows)
    except SettingsError as error:
        findings = [Finding("FAIL", "kubernetes", problem) for problem in error.problems]
    except OttoscalerError as error:
        findings = [Finding("FAIL", "kubernetes", str(error), mend)]
    except trio.TooSlowError:
        findings = [Finding("FAIL", "kubernetes", f"the API did not answer within {LIMIT_SECONDS:g} s", mend)]
    for finding in findings:
        yield finding


async def look_at_handler(settings: Settings) -> AsyncIterator[Finding]:
    """Whether otto-handler is there and speaks HTTP/2, where logs go to one; nothing is sent to it."""
    if not settings.otto_handler_host:
        return
    import trio

    from ottoscaler.rpc.http2.client import client_tls, open_connection

    address, ca = settings.otto_handler_host, settings.otto_handler_ca
    try:
        tls = client_tls(await trio.Path(ca).read_bytes() if ca else None)
    except OSError as error:
        words = f"OTTO_HANDLER_CA is {ca!r}, expected certificates in PEM ({error.strerror or error})"
        yield Finding("FAIL", "handler", words)
        return
    host, _, port = address.rpartition(":")
    door = f"otto-handler at {address}"
    how = "TLS and HTTP/2" if settings.otto_handler_tls else "HTTP/2"
    mend = "check OTTO_HANDLER_HOST, OTTO_HANDLER_TLS and OTTO_HANDLER_CA, and that otto-handler runs"
    try:
        with trio.fail_after(LIMIT_SECONDS):
            async with open_connection(door, host.strip("[]"), int(port), tls if settings.otto_handler_tls else None):
                yield Finding("ok", "handler", f"{door} answers by {how}")
    except OttoscalerError as error:
        yield Finding("FAIL", "handler", str(error), mend)
    except trio.TooSlowError:
        yield Finding("FAIL", "handler", f"{door} did not answer within {LIMIT_SECONDS:g} s", mend)


async def ask_api(kube: Api, address: str, namespace: str, *, follows_logs: bool = False) -> list[Finding]:
    """The API's version, and one finding per permission; the right to read logs is needed where they are followed."""
    needed = {name for name, _ in NEEDED} | ({"pods/log"} if follows_logs else set())
    findings = [Finding("ok", "kubernetes", f"{address} answers: {await kube.version()}")]
    for resource, verbs in (*NEEDED, *WANTED):
        for verb in verbs:
            is_allowed, reason = await kube.review_access(namespace, verb, *resource.split("/"))
            words = f"{verb} {resource} in namespace {namespace}"
            if is_allowed:
                findings.append(Finding("ok", "permission", words))
            else:
                findings.append(_miss(verb, resource, words, reason, is_needed=resource in needed))
    return findings


def _miss(verb: str, resource: str, words: str, reason: str, *, is_needed: bool) -> Finding:
    mend = f"add the verb {verb} on {resource} to the Role of the scaler's account"
    why = f"{words} is not allowed" + (f" ({reason})" if reason else "")
    loss = f": {LOST[resource]}" if resource in LOST else ""
    return Finding("FAIL" if is_needed else "warn", "permission", why + loss, mend)


def _naming(address: str, sentence: str) -> str:
    """A sentence that names the address, which it may do already."""
    return sentence if address in sentence else f"{address}: {sentence}"
