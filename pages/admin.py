"""Administration: the view is components/admin.js."""

import gradio as gr

from pages.support import show_view

TITLE, PATH = "Administration", "admin"


def build(page: gr.Blocks) -> None:
    show_view("admin")
