"""Renders pictures. The only place that imports torch, diffusers and peft, and only in its worker thread: start
reading at base.py, which needs none of them."""
