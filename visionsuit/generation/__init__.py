"""Render requests: submit, queue, results, history, base models. Start reading at service.py; run.py is the worker's
part. What is beyond text to image: modes.py has the rules, canvas.py the pixels, cells.py and sheets.py the sheets."""
