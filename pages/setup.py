"""Set up: the view is components/setup.js."""

import gradio as gr

from pages.support import show_view

TITLE, PATH = "Set up", "setup"


def build(page: gr.Blocks) -> None:
    show_view("setup")
