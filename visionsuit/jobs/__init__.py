"""The durable queue: tables.py, queue.py (who puts work in), claims.py (who takes it), worker.py (threads for it)."""
