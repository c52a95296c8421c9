"""The storage route: a file by its anonymous id, to whoever may see it."""
