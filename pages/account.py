"""Account: the view is components/account.js."""

import gradio as gr

from pages.support import show_view

TITLE, PATH = "Account", "account"


def build(page: gr.Blocks) -> None:
    show_view("account")
