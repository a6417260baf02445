"""What is read and asked."""
