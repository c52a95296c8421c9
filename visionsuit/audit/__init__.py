"""Who did what, when: one append-only table."""
