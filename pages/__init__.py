"""The user interface: thin Gradio pages that each hold one custom element. Start reading at `shell.py`."""

from pages.stubless import import_gradio

# Before any page's module asks for it.
import_gradio()
