"""Models: the view is components/explorer.js."""

import gradio as gr

from pages.support import show_view

TITLE, PATH = "Models", "models"


def build(page: gr.Blocks) -> None:
    show_view("models")
