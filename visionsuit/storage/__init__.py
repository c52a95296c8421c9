"""Bytes under random ids, in buckets. Start reading at base.py; folder.py and s3.py are the two drivers."""
