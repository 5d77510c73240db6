"""From flags to a finished command."""
