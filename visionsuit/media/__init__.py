"""Files looked at without trusting them: safetensors headers, zips, pictures, thumbnails, recipes. Pure functions
over streams and bytes; knows no database."""
