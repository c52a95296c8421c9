"""History: the view is components/history.js."""

import gradio as gr

from pages.support import show_view

TITLE, PATH = "History", "history"


def build(page: gr.Blocks) -> None:
    show_view("history")
