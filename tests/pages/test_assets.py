"""Files of the interface and the documents that name them."""

import re
from collections.abc import Iterator

import httpx
import pytest

from pages.assets import COMPONENTS, Assets
from tests.pages.conftest import Site


@pytest.fixture(scope="module")
def web(site: Site) -> Iterator[httpx.Client]:
    with site.client() as client:
        yield client


def test_files_are_kept_for_ever_under_their_hash_and_sent_small(web: httpx.Client) -> None:
    page = web.get("/models").text
    addresses = re.findall(r'(?:href|src)="(/ui/[^"]+)"', page)
    assert len(addresses) > 10
    for address in addresses:
        answer = web.get(address, headers={"Accept-Encoding": "br"})
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        if address.endswith("core.js"):
            assert answer.headers["content-encoding"] == "br"
            assert answer.headers["content-type"].startswith("text/javascript")
            plain = web.get(address, headers={"Accept-Encoding": "identity"})
            assert "content-encoding" not in plain.headers
            assert plain.content == (COMPONENTS / "core.js").read_bytes()
    first, _, name = addresses[0].removeprefix("/ui/").partition("/")
    old = web.get(f"/ui/{'0' * len(first)}/{name}")
    assert old.status_code == 200
    assert old.headers["cache-control"] == "no-cache"


def test_only_the_files_themselves_are_served(web: httpx.Client) -> None:
    version = Assets().hash
    for name in ("../shell.py", "%2e%2e/shell.py", "core.js/", "", "nothing.js", "/core.js"):
        assert web.get(f"/ui/{version}/{name}").status_code == 404, name


def test_the_hash_covers_every_file(tmp_path: object) -> None:
    folder = tmp_path / "ui"  # type: ignore[operator]
    folder.mkdir()
    (folder / "a.js").write_text("1")
    first = Assets(folder).hash
    (folder / "b.css").write_text("")
    second = Assets(folder).hash
    (folder / "b.css").write_text(" ")
    assert len({first, second, Assets(folder).hash}) == 3


def test_all_styles_come_in_one_file_with_the_theme_first() -> None:
    assets = Assets()
    text = assets.files["all.css"].body.decode()
    assert text.startswith((COMPONENTS / "theme.css").read_text())
    for sheet in COMPONENTS.glob("*.css"):
        assert sheet.read_text() in text


def test_every_module_is_reached_from_the_first() -> None:
    """At once, or when a dialog is first opened."""
    assets = Assets()
    reached: set[str] = set()
    waiting = [*assets.modules]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        text = assets.files[name].body.decode()
        waiting += set(re.findall(r"""(?:\bfrom |\bimport |\bimport\()["']\./([\w.-]+\.js)""", text)) - reached
    assert reached == {name for name in assets.files if name.endswith(".js")}
    # What only dialogs need is not fetched by every visit.
    assert not {"mask_editor.js", "sheet_dialog.js", "picture_picker.js"} & set(assets.modules)


def test_a_page_is_small_before_its_scripts_come(web: httpx.Client) -> None:
    assert len(web.get("/generate", headers={"Accept-Encoding": "identity"}).content) < 4700


def test_the_document_is_ours_before_any_script_runs(web: httpx.Client) -> None:
    answer = web.get("/models")
    assert "<title>Models · VisionSuit</title>" in answer.text
    assert answer.text.index("dataset.theme") < answer.text.index("stylesheet")
    assert "<vs-shell>" in answer.text
    for foreign in ("gradio.app", "raw.githubusercontent", "twitter:", "manifest.json"):
        assert foreign not in answer.text
    assert not re.search(r'(?:src|href)="https?://', answer.text)
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert web.head("/models").status_code == 200
