"""How texts become values: any text is either a value or a ValueError."""

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.parsing import parse_quantity, parse_redis_url
from ottoscaler.settings import FIELDS


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("500m", "0.5"),
        ("128Mi", str(128 * 1024**2)),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("1E", "1e18"),
        ("1.5Gi", str(1536 * 1024**2)),
        (".5", "0.5"),
        ("2.", "2"),
        ("+1k", "1000"),
        ("-1", "-1"),
        ("100n", "1e-7"),
        ("0", "0"),
    ],
)
def test_quantities_mean_what_kubernetes_says(raw: str, value: str) -> None:
    """A quantity stands for the number that the API server reads."""
    assert parse_quantity(raw) == Decimal(value)


@pytest.mark.parametrize("raw", ["", "m", "1 Gi", "1K", "1mi", "1e", "0x10", "1,5", "١", "--1", "1.2.3"])
def test_what_is_no_quantity_is_refused(raw: str) -> None:
    """What the API server would refuse is refused at the start."""
    with pytest.raises(ValueError, match=r"^$"):
        parse_quantity(raw)


@given(st.sampled_from(sorted(FIELDS)), st.text(min_size=1))
def test_any_text_is_a_value_or_a_value_error(variable: str, raw: str) -> None:
    """No text in any setting ends in another exception."""
    with contextlib.suppress(ValueError):
        FIELDS[variable].kind.parse(raw)


@given(st.from_regex(r"(rediss?|unix|memory)://[ -~]{0,30}", fullmatch=True))
def test_any_redis_url_is_an_address_or_a_value_error(raw: str) -> None:
    """Whatever stands behind the scheme, the address can be shown or the URL is refused."""
    try:
        address = parse_redis_url(raw)
    except ValueError:
        return
    assert str(address).startswith(f"{address.scheme}://")
    assert 0 <= address.port <= 65535


def test_a_url_is_taken_apart_with_its_escapes() -> None:
    """User and password may hold any character, percent-encoded; TLS options come along."""
    address = parse_redis_url("rediss://us%40er:p%2Fw%3A@redis.example:7/2?ssl_ca_certs=/ca.pem")
    assert (address.username, address.host, address.port, address.db) == ("us@er", "redis.example", 7, 2)
    assert address.password is not None
    assert address.password.reveal() == "p/w:"
    assert address.options == {"ssl_ca_certs": "/ca.pem"}
    assert parse_redis_url("unix:///run/redis.sock?db=3").db == 3
    assert str(parse_redis_url("memory://")) == "memory://"
