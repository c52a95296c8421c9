"""Ordered collections of images and model cards."""
