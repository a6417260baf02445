"""What to do, as data."""
