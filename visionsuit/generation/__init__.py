"""Render requests: submit, queue, results, history, base models. Start reading at service.py; run.py is the worker's
part."""
