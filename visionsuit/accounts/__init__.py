"""Accounts, sessions, API tokens, roles. Start reading at service.py."""
