"""VisionSuit: the application without its user interface. Never imports gradio or `pages`."""

__version__ = "0.1.0"
