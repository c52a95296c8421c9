"""What only the folder driver has to get right: leftovers of processes that died."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from visionsuit.core.ids import new_id
from visionsuit.storage.base import Bucket, ObjectMissing, StorageUnavailable
from visionsuit.storage.folder import FolderStorage

WRITE_AND_HANG = """
import sys
from pathlib import Path
from visionsuit.storage.base import Bucket
from visionsuit.storage.folder import FolderStorage
writer = FolderStorage(Path(sys.argv[1])).open_writer(Bucket.MODELS, sys.argv[2])
writer.write(b"half of it")
print("written", flush=True)
sys.stdin.read()
"""


def incoming(storage: FolderStorage) -> list[Path]:
    return list((storage.root / ".incoming").iterdir())


def test_leftovers_of_a_killed_process_go_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    storage.prepare()
    name = new_id()
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_HANG, str(tmp_path), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    storage.prepare()
    storage.abandon(Bucket.MODELS, name)
    assert len(incoming(storage)) == 1, "somebody is still writing it"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    storage.abandon(Bucket.MODELS, new_id())
    assert len(incoming(storage)) == 1
    storage.prepare()
    assert incoming(storage) == []


def test_files_are_fanned_out_under_their_bucket(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    storage.prepare()
    storage.put(Bucket.IMAGES, "abcdefghij", [b"x"])
    assert (tmp_path / "images" / "ab" / "abcdefghij").read_bytes() == b"x"


def test_files_of_earlier_versions_are_found_where_they_are(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    storage.prepare()
    earlier = tmp_path / "images" / "ab" / "cd" / "abcdefghij"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"earlier")
    storage.put(Bucket.IMAGES, "abcdxxxxxx", [b"now"])
    assert b"".join(storage.read(Bucket.IMAGES, "abcdefghij", 1)) == b"arlier"
    assert storage.read_bytes(Bucket.IMAGES, "abcdefghij") == b"earlier"
    assert storage.size(Bucket.IMAGES, "abcdefghij") == 7
    assert storage.local_path(Bucket.IMAGES, "abcdefghij") == earlier
    assert {found.object_id: found.size_bytes for found in storage.list_objects(Bucket.IMAGES)} == {
        "abcdefghij": 7,
        "abcdxxxxxx": 3,
    }
    storage.copy(Bucket.IMAGES, "abcdefghij", Bucket.OUTPUTS, "abcdefghij")
    storage.delete(Bucket.IMAGES, "abcdefghij")
    assert not earlier.exists()
    with pytest.raises(ObjectMissing):
        storage.read_bytes(Bucket.IMAGES, "abcdefghij")
    assert storage.read_bytes(Bucket.OUTPUTS, "abcdefghij") == b"earlier"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    storage.prepare()
    writer = storage.open_writer(Bucket.IMAGES, new_id())
    writer.file.close()
    writer.file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(StorageUnavailable, match="disk of this server is full"):
        writer.write(b"x")
    writer.abort()
    assert incoming(storage) == []
