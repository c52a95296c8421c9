"""Gradio's import without its stubs: it writes one for every component class into its own folder.

They are for editors. Making them takes half of the import, 2-3 s of processor time at every start, and a server
has no business in the folders of its libraries.
"""

import contextlib
import importlib
import inspect
from typing import Any


def import_gradio() -> None:
    """Gradio makes no stub for a class without a file; while it is imported, its classes have none."""
    find = inspect.getfile

    def find_others(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError("no stub is wanted")
        return find(thing)

    module: Any = inspect
    module.getfile = find_others
    try:
        importlib.import_module("gradio")
        # Otherwise imported when the endpoints are built.
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module("gradio.components.api_component")
    finally:
        module.getfile = find
