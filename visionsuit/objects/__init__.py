"""Rows for stored files: every file in the storage has exactly one. Start reading at service.py."""
