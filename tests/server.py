"""The real app as a process of its own, on a free port, with its own data folder: for browsers, kills and restarts."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import httpx

ROOT = Path(__file__).parents[1]
ADMIN = {"email": "admin@example.org", "password": "a long admin password", "name": "Administrator"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`python app.py` as a context manager. `environment` adds settings; an administrator (ADMIN) exists.
    `program`: what Python runs instead."""

    def __init__(
        self, data_dir: Path, *, with_admin: bool = True, program: Sequence[str] = ("app.py",), **environment: str
    ) -> None:
        self.data_dir = data_dir
        self._program = program
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = data_dir.with_name(data_dir.name + ".log")
        admin = {"VISIONSUIT_ADMIN_EMAIL": ADMIN["email"], "VISIONSUIT_ADMIN_PASSWORD": ADMIN["password"]}
        self._environment = {
            **os.environ,
            "VISIONSUIT_DATA_DIR": str(data_dir),
            "VISIONSUIT_PORT": str(self.port),
            "VISIONSUIT_ENGINE": "mock",
            "VISIONSUIT_AUTO_TEST_SHEETS": "false",
            "OMP_NUM_THREADS": "1",
            **(admin if with_admin else {}),
            **environment,
        }
        # What one start has compiled is there for the next.
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 120) -> "Server":
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._program], cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + timeout_s
        with self.client() as client:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    raise RuntimeError(f"app.py ended with {self.process.returncode}:\n{self.log()[-3000:]}")
                try:
                    if client.get("/health", timeout=2).status_code == 200:
                        return self
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        raise RuntimeError(f"app.py did not serve within {timeout_s} s:\n{self.log()[-3000:]}")

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """As a service manager stops it."""
        if self.process and self.is_running:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """As the kernel kills it: no chance to tidy up."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def client(self, email: str | None = None, password: str = "") -> httpx.Client:
        """A client of this server, signed in by bearer token if an e-mail is given."""
        # There are no certificates to look at; reading those of the machine takes longer than a request.
        client = httpx.Client(base_url=self.url, timeout=60, verify=False)
        if email is not None:
            answer = client.post("/api/auth/login", json={"email": email, "password": password})
            answer.raise_for_status()
            client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        return client

    def admin(self) -> httpx.Client:
        return self.client(ADMIN["email"], ADMIN["password"])

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
