"""CAST over categories of requests: its parts, one file each; the recipe itself is `__main__.py`."""
