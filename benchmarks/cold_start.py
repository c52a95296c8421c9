"""B14: from `python app.py` to a served page, against `import gradio` alone."""

import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.harness import Figure, compare
from tests.server import free_port

ROOT = Path(__file__).parents[1]


def serve_until_first_page(data_dir: str) -> None:
    """Start the app on a data folder that exists already, wait for a 200, stop it."""
    port = free_port()
    environment = {
        **os.environ,
        "VISIONSUIT_DATA_DIR": data_dir,
        "VISIONSUIT_PORT": str(port),
        "VISIONSUIT_ADMIN_EMAIL": "bench@example.org",
        "VISIONSUIT_ADMIN_PASSWORD": "not a secret",
        "VISIONSUIT_LOG_LEVEL": "ERROR",
    }
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
                    assert page.status == 200
                    return
            except (urllib.error.URLError, ConnectionError):
                if process.poll() is not None:
                    raise RuntimeError(f"app.py ended with {process.returncode}") from None
                time.sleep(0.02)
        raise RuntimeError("app.py served nothing within two minutes")
    finally:
        process.kill()
        process.wait()


def import_gradio() -> None:
    subprocess.run([sys.executable, "-c", "import gradio"], check=True, cwd=ROOT)


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        return [
            compare(
                "B14",
                "`python app.py` to the first page / `import gradio`",
                lambda: serve_until_first_page(folder),
                import_gradio,
                target=1.3,
                rounds=6,
            )
        ]
