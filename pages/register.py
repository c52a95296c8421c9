"""Register: the view is components/register.js."""

import gradio as gr

from pages.support import show_view

TITLE, PATH = "Register", "register"


def build(page: gr.Blocks) -> None:
    show_view("register")
