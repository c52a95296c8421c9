"""Home: the view is components/home.js."""

import gradio as gr

from pages.support import show_view

TITLE, PATH = "Home", ""


def build(page: gr.Blocks) -> None:
    show_view("home")
