"""The durable queue: tables.py, queue.py (defer, claim, heartbeat, retry, cancel, fairness), worker.py (threads that run jobs)."""
