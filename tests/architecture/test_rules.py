"""Rules a reader would otherwise have to remember, read off the code itself."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from visionsuit.core.config import Settings
from visionsuit.core.errors import AppError

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("visionsuit/**/*.py"), *ROOT.glob("pages/**/*.py"), ROOT / "app.py"])
FEATURES = sorted(path.parent for path in ROOT.glob("visionsuit/*/service.py"))


def nodes(path: Path) -> Iterator[ast.AST]:
    yield from ast.walk(ast.parse(path.read_text()))


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def test_there_is_something_to_read() -> None:
    assert len(SOURCES) > 80
    assert len(FEATURES) >= 8


def test_only_the_runtime_commits() -> None:
    offenders = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        for node in nodes(path)
        if isinstance(node, ast.Attribute) and node.attr == "commit"
    }
    assert offenders == {"visionsuit/runtime.py"}


def test_async_functions_await_something() -> None:
    """A coroutine that awaits nothing holds up the event loop for everybody."""
    offenders = [
        where(path, node)
        for path in SOURCES
        for node in nodes(path)
        if isinstance(node, ast.AsyncFunctionDef)
        and not any(isinstance(inner, ast.Await | ast.AsyncFor | ast.AsyncWith) for inner in ast.walk(node))
        # An ASGI `send` must be a coroutine; a generator that yields gives way too.
        and node.name != "__call__"
        and not any(isinstance(inner, ast.Yield) for inner in ast.walk(node))
    ]
    assert offenders == []


def test_a_broad_except_says_why() -> None:
    """`except Exception` hides bugs: it stands only where a comment beside it gives the reason."""
    offenders = []
    for path in SOURCES:
        lines = path.read_text().splitlines()
        for node in nodes(path):
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None
                or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
            ):
                reraises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
                nearby = "\n".join(lines[max(0, node.lineno - 4) : node.lineno + 2])
                if not reraises and "#" not in nearby:
                    offenders.append(where(path, node))
    assert offenders == []


def test_every_error_has_its_own_code() -> None:
    import app  # noqa: F401  (imports every feature)

    def subclasses(kind: type) -> Iterator[type]:
        for sub in kind.__subclasses__():
            yield sub
            yield from subclasses(sub)

    ours = [kind for kind in subclasses(AppError) if kind.__module__.startswith(("visionsuit", "pages"))]
    assert len(ours) > 30
    for kind in ours:
        assert kind.http_status in (400, 401, 402, 403, 404, 409, 413, 415, 416, 422, 429, 503), kind  # type: ignore[attr-defined]
        assert re.fullmatch(r"[a-z][a-z0-9_]+", kind.code), kind  # type: ignore[attr-defined]


@pytest.mark.parametrize("folder", FEATURES, ids=lambda path: path.name)
def test_a_feature_says_what_it_is(folder: Path) -> None:
    doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert doc
    assert len(doc) > 20


def test_modules_stay_readable() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in SOURCES
        if (count := len(path.read_text().splitlines())) > 460 and "migrations" not in path.parts
    }
    assert long == {}


@pytest.mark.parametrize("module", ["app", "visionsuit.main", "visionsuit.cli"])
def test_the_way_to_the_first_page_loads_no_torch_and_makes_no_stubs(module: str) -> None:
    code = (
        "import sys; stubs = set()\n"
        "sys.addaudithook(lambda what, of: stubs.add(of[0]) if what == 'open' and '.pyi' in str(of[0]) else 0)\n"
        f"import {module}\n"
        "print([m for m in ('torch', 'diffusers', 'transformers', 'peft') if m in sys.modules], *stubs)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_repository_needs_no_other_host() -> None:
    """No page, style or script names another host to fetch from."""
    fetched = re.compile(r"""(?:src|href)=["']https?://|url\(\s*["']?https?://|@import|fetch\(\s*["'`]https?://""")
    files = [path for path in (ROOT / "pages").rglob("*") if path.suffix in (".js", ".css", ".py", ".html")]
    assert len(files) > 20
    assert [str(path) for path in files if fetched.search(path.read_text())] == []


def settings_in(model: type, prefix: str = "VISIONSUIT_") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():  # type: ignore[attr-defined]
        if hasattr(field.annotation, "model_fields"):
            yield from settings_in(field.annotation, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}", field.description or ""


def test_every_setting_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    wanted = dict(settings_in(Settings))
    assert len(wanted) > 20
    listed = set(re.findall(r"^\| `(VISIONSUIT_\w+)`", readme, re.M))
    assert listed == set(wanted)
    for name, description in wanted.items():
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}`"))
        assert description, f"{name} lacks a description"
        assert description in row, f"the README's row for {name} differs from its description"
