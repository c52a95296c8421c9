"""Full-text and filter index over images, models and galleries: FTS5 in SQLite, tsvector in PostgreSQL, one interface."""
