"""A trained network as files, and on nodes of its own."""
