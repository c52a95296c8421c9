"""The app as it starts on a fresh machine."""

import re
import stat
from pathlib import Path

import httpx
import pytest

from tests.server import ADMIN, Server
from visionsuit.boot import read_or_create_secret


def test_a_fresh_start_prints_a_link_that_makes_the_administrator_once(tmp_path: Path) -> None:
    with Server(tmp_path / "data", with_admin=False) as server:
        link = re.search(r"(http://127\.0\.0\.1:\d+)(/setup\?token=[\w-]+)", server.log())
        assert link, server.log()
        assert link[1] == server.url
        token = link[2].partition("token=")[2]
        person = {"email": "first@example.org", "password": "correct horse battery", "name": "First"}
        wrong = httpx.post(f"{server.url}/api/auth/setup", json={**person, "token": "x" * len(token)})
        assert wrong.status_code in (403, 404)
        made = httpx.post(f"{server.url}/api/auth/setup", json={**person, "token": token})
        assert made.status_code == 201, made.text
        assert made.json()["user"]["role"] == "SUPERADMIN"
        again = httpx.post(f"{server.url}/api/auth/setup", json={**person, "email": "b@example.org", "token": token})
        assert again.status_code in (403, 404, 409)

        page = httpx.get(server.url)
        assert page.status_code == 200
        policy = page.headers["Content-Security-Policy"]
        assert "script-src 'self' 'sha256-" in policy
        assert "unsafe-eval" not in policy
        assert len(page.content) < 10_000
        bases = httpx.get(f"{server.url}/api/base-models").json()["items"]
        assert [base["label"] for base in bases if base["is_default"]] == ["VisionSuit Demo"]


def test_a_session_survives_a_restart_and_the_documentation_needs_no_other_host(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        client = server.admin()
        assert stat.S_IMODE((tmp_path / "data" / "secret.key").stat().st_mode) == 0o600
        header = client.headers["Authorization"]
    with Server(tmp_path / "data") as server:
        me = httpx.get(f"{server.url}/api/auth/me", headers={"Authorization": header})
        assert me.status_code == 200
        assert me.json()["email"] == ADMIN["email"]
        assert "setup?token" not in server.log()

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
