"""Measurements beside the project's claims of speed, each a ratio against a peer in the same run."""
