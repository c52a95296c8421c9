"""The user interface: thin Gradio pages that each hold one custom element. Start reading at `shell.py`."""
