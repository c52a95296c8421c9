"""The app as it starts on a fresh machine."""

import re
import stat
from pathlib import Path

import httpx
import pytest

from tests.server import Server
from visionsuit.boot import read_or_create_secret

PERSON = {"email": "first@example.org", "password": "correct horse battery", "name": "First"}


def test_a_fresh_start_and_what_a_restart_keeps_of_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Server(data, with_admin=False) as server:
        take_the_printed_link(server)
        front_page_is_guarded(server)
        documentation_needs_no_other_host(server)
        assert stat.S_IMODE((data / "secret.key").stat().st_mode) == 0o600
        header = server.client(PERSON["email"], PERSON["password"]).headers["Authorization"]
        already_said = len(server.log())
    with Server(data, with_admin=False) as server:
        me = httpx.get(f"{server.url}/api/auth/me", headers={"Authorization": header})
        assert me.status_code == 200
        assert me.json()["email"] == PERSON["email"]
        assert "setup?token" not in server.log()[already_said:]


def take_the_printed_link(server: Server) -> None:
    """It makes the administrator, once."""
    link = re.search(r"(http://127\.0\.0\.1:\d+)(/setup\?token=[\w-]+)", server.log())
    assert link, server.log()
    assert link[1] == server.url
    token = link[2].partition("token=")[2]
    wrong = httpx.post(f"{server.url}/api/auth/setup", json={**PERSON, "token": "x" * len(token)})
    assert wrong.status_code in (403, 404)
    made = httpx.post(f"{server.url}/api/auth/setup", json={**PERSON, "token": token})
    assert made.status_code == 201, made.text
    assert made.json()["user"]["role"] == "SUPERADMIN"
    again = httpx.post(f"{server.url}/api/auth/setup", json={**PERSON, "email": "b@example.org", "token": token})
    assert again.status_code in (403, 404, 409)


def front_page_is_guarded(server: Server) -> None:
    page = httpx.get(server.url)
    assert page.status_code == 200
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self' 'sha256-" in policy
    assert "unsafe-eval" not in policy
    assert len(page.content) < 10_000
    bases = httpx.get(f"{server.url}/api/base-models").json()["items"]
    assert [base["label"] for base in bases if base["is_default"]] == ["VisionSuit Demo"]


def documentation_needs_no_other_host(server: Server) -> None:
    page = httpx.get(f"{server.url}/docs")
    assert page.status_code == 200
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) >= 2
    for address in addresses:
        assert address.startswith("/"), address
        assert httpx.get(server.url + address).status_code == 200
    assert httpx.get(f"{server.url}/api/openapi.json").json()["info"]["title"] == "VisionSuit"


def test_a_damaged_secret_is_named(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(b"short")
    with pytest.raises(RuntimeError, match=r"secret\.key is damaged"):
        read_or_create_secret(path)
