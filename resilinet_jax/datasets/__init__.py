"""Data sets: embedded ones, published ones as TFDS keeps them, and a user's own."""
