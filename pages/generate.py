"""Generate: the view is components/generator.js."""

import gradio as gr

from pages.support import show_view

TITLE, PATH = "Generate", "generate"


def build(page: gr.Blocks) -> None:
    show_view("generate")
