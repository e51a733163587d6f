"""``ramflow tag``: pictures in, names out."""
