"""The npm packages that the pictures and their names come from, with their licences, and how to read them."""

import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Package:
    """One npm package at a fixed version, so that the artwork is the same at every rebuild."""

    name: str
    version: str
    licence: str

    @property
    def file_name(self) -> str:
        """What `npm pack` calls the archive."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


NOTO = Package("@iconify-json/noto", "1.2.9", "Apache-2.0, Google")
FLUENT_FLAT = Package("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT, Microsoft")
FLUENT_3D = Package("@lobehub/fluent-emoji-3d", "1.1.0", "MIT, Microsoft")
FLUENT_COLOR = Package("@lobehub/fluent-emoji-modern", "1.0.0", "MIT, Microsoft")
FLUENT_OUTLINE = Package("@iconify-json/fluent-emoji-high-contrast", "1.2.6", "MIT, Microsoft")
NOTO_MONO = Package("@fontsource/noto-emoji", "5.3.2", "OFL-1.1, Google")
NAMES = Package("unicode-emoji-json", "0.9.0", "MIT")
KEYWORDS = Package("emojilib", "4.0.3", "MIT")
TAGS = Package("emojibase-data", "17.0.0", "MIT")
ALL = (NOTO, FLUENT_FLAT, FLUENT_3D, FLUENT_COLOR, FLUENT_OUTLINE, NOTO_MONO, NAMES, KEYWORDS, TAGS)


def fetch(package: Package, folder: Path) -> Path:
    """The package's archive in `folder`, fetched from the npm registry if it is not there yet.

    Raises:
        FileNotFoundError: it is not there and npm cannot get it.
    """
    archive = folder / package.file_name
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        wanted = f"{package.name}@{package.version}"
        done = subprocess.run(["npm", "pack", wanted], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode or not archive.exists():
            raise FileNotFoundError(
                f"{wanted}: npm pack failed; put {package.file_name} into {folder}. {done.stderr[-300:]}"
            )
    return archive


class Archive:
    """Files of a package by their path, without the leading `package/`."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path)  # noqa: SIM115 - read until the run ends
        self._members = {member.name.split("/", 1)[-1]: member for member in self._tar.getmembers() if member.isfile()}

    def names(self, prefix: str, suffix: str) -> list[str]:
        return sorted(name for name in self._members if name.startswith(prefix) and name.endswith(suffix))

    def read(self, name: str) -> bytes:
        file = self._tar.extractfile(self._members[name])
        assert file is not None
        return file.read()

    def json(self, name: str) -> Any:
        return json.loads(self.read(name))
