"""Galleries: the view is components/explorer.js."""

import gradio as gr

from pages.support import show_view

TITLE, PATH = "Galleries", "galleries"


def build(page: gr.Blocks) -> None:
    show_view("galleries")
