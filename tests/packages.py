"""Programs from the system that the tests drive for real: `python -m tests.packages` installs what is missing.

As root on Debian or Ubuntu it installs them; otherwise it says which command to run, and fails.
"""

import glob
import os
import shutil
import subprocess
import sys

#: package -> is it there?
PACKAGES = {
    "chromium": lambda: bool(shutil.which("chromium") or shutil.which("chromium-browser")),
    "postgresql": lambda: bool(glob.glob("/usr/lib/postgresql/*/bin/initdb")),
}


def main() -> None:
    missing = [name for name, is_there in PACKAGES.items() if not is_there()]
    if not missing:
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"The tests need {', '.join(missing)}. Install with: sudo apt-get update && sudo {' '.join(install)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-q"], check=True, env=environment)
    subprocess.run(install, check=True, env=environment)


if __name__ == "__main__":
    main()
