"""Imports every module that defines tables, so that the metadata is complete."""

import importlib
import importlib.util
import pkgutil

import visionsuit

for _module in pkgutil.iter_modules(visionsuit.__path__):
    if _module.ispkg and importlib.util.find_spec(f"visionsuit.{_module.name}.tables"):
        importlib.import_module(f"visionsuit.{_module.name}.tables")
