"""Upload: the view is components/upload.js."""

import gradio as gr

from pages.support import show_view

TITLE, PATH = "Upload", "upload"


def build(page: gr.Blocks) -> None:
    show_view("upload")
