"""What a user may say of where an etcd is, and what is refused at once."""

from __future__ import annotations

import pytest

from zray.store.etcd_address import EtcdAddress, parse


@pytest.mark.parametrize(
    ("text", "endpoints"),
    [
        ("etcd://h1", ["http://h1:2379"]),
        ("etcd://h1:1,h2:2,h1:1", ["http://h1:1", "http://h2:2"]),
        ("etcds://10.0.0.1:2379, [fe80::1]:7/", ["https://10.0.0.1:2379", "https://[fe80::1]:7"]),
    ],
)
def test_endpoints(text: str, endpoints: list[str]) -> None:
    assert parse(text, {}) == EtcdAddress(tuple(endpoints))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "etcd://HOST:PORT"),
        ("http://h1:2379", "etcd://HOST:PORT"),
        ("h1:2379", "etcd://HOST:PORT"),
        ("etcd://", "no member"),
        ("etcd://h1,,h2", "no member"),
        ("etcd://h1:0", "no member"),
        ("etcd://h1:70000", "no member"),
        ("etcd://h1:2379/path", "no member"),
        ("etcd://::1:2379", "no member"),
        ("etcd://root:secret@h1", "ZRAY_ETCD_USER"),
        ("etcd://" + ",".join(f"h{n}" for n in range(65)), "64 members"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse(text, {})
    assert "secret" not in str(caught.value)


def test_credentials_are_in_variables_and_in_no_text() -> None:
    found = parse(
        "etcds://h1",
        {
            "ZRAY_ETCD_CA": "/ca",
            "ZRAY_ETCD_CERT": "/c",
            "ZRAY_ETCD_KEY": "/k",
            "ZRAY_ETCD_USER": "u",
            "ZRAY_ETCD_PASSWORD": "secret",
        },
    )
    assert found[1:] == ("/ca", "/c", "/k", "u", "secret")
    assert "secret" not in repr(found) + str(found)


@pytest.mark.parametrize(
    ("scheme", "environment"),
    [
        ("etcd", {"ZRAY_ETCD_CA": "/ca"}),
        ("etcds", {"ZRAY_ETCD_CERT": "/c"}),
        ("etcds", {"ZRAY_ETCD_KEY": "/k"}),
        ("etcd", {"ZRAY_ETCD_USER": "u"}),
        ("etcd", {"ZRAY_ETCD_PASSWORD": "p"}),
    ],
)
def test_what_does_not_go_together(scheme: str, environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(environment))):
        parse(f"{scheme}://h1", environment)
