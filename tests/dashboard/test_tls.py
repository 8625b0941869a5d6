"""The page with a certificate: encrypted for whoever looks, nothing for who does not encrypt."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.dashboard.conftest import Site
from tests.real_cluster import Cluster


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody has signed, and its key."""
    cert, key = folder / "page.pem", folder / "page.key"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    of = ["-nodes", "-days", "2", "-subj", "/CN=page", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*made, *of, *files], check=True, capture_output=True, timeout=20)
    return cert, key


@pytest.fixture
def cluster(zray_home: Path) -> Iterator[Cluster]:
    found = Cluster(zray_home)
    try:
        yield found
    finally:
        found.close()


def test_the_page_is_encrypted_and_so_is_the_login(cluster: Cluster, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    files = ("--dashboard-cert", str(cert), "--dashboard-key", str(key))
    cluster.start_head("--dashboard-port", "0", *files)
    site = Site(cluster)
    assert site.url.startswith("https://127.0.0.1:")
    line = [sys.executable, "-m", "zray", "dashboard", "--no-browser", "--address", cluster.address]
    shown = subprocess.run(line, capture_output=True, text=True, timeout=20)
    link = shown.stdout.splitlines()[0]
    trusts = ssl.create_default_context(cafile=str(cert))
    with httpx.Client(verify=trusts, timeout=20) as client:
        answer = client.get(link)
        assert answer.status_code == 303, answer.text
        said = answer.headers["set-cookie"].lower()
        assert "secure" in said and "httponly" in said
        session = client.get(f"{site.url}/api/v1/session").json()
        assert session["csrf"]
        posted = client.post(
            f"{site.url}/api/v1/kill",
            json={"subject": "nobody"},
            headers={"origin": site.url, "x-zray-csrf": session["csrf"]},
        )
        assert posted.status_code == 404, posted.text  # it was let through
    with pytest.raises(httpx.ConnectError), httpx.Client() as stranger:
        stranger.get(site.url)
    with socket.create_connection(("127.0.0.1", site.port), 5) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"HTTP" not in plain.recv(100)


def refused(cluster: Cluster, *options: Any) -> str:
    line = [sys.executable, "-m", "zray.cli.head", "--port", "0", "--num-cpus", "0", *options]
    done = subprocess.run(line, capture_output=True, text=True, timeout=30)
    assert done.returncode, done.stdout
    return done.stderr


def test_a_certificate_that_will_not_do_is_said_at_the_start(
    cluster: Cluster, tmp_path: Path
) -> None:
    cert, key = certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = certificate(tmp_path / "other")
    locked = tmp_path / "locked.key"
    lock = ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:x", "-out", locked]
    subprocess.run(lock, check=True, capture_output=True, timeout=20)
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    for files in ((tmp_path / "nowhere.pem", key), (nonsense, key), (cert, other), (cert, locked)):
        said = refused(cluster, "--dashboard-cert", files[0], "--dashboard-key", files[1])
        assert "the dashboard cannot be encrypted with" in said and str(files[0]) in said, said
        assert "without a passphrase" in said
    assert "goes with --dashboard-cert" in refused(cluster, "--dashboard-key", key)
