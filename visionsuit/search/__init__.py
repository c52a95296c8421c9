"""Full-text and filter index over images, models and galleries, and the lists made from it.

FTS5 in SQLite, tsvector in PostgreSQL, one interface. Start reading at listing.py for lists, service.py for the index.
"""
