"""Files on their way in: drafts, streaming, verification, publishing as cards and images."""
