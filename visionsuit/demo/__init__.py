"""A demonstration library, rendered on the spot: see seed.py."""
