"""What surrounds training and cannot change a number: stores, checkpoints, compiled programs, progress."""
