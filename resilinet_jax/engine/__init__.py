"""Training and evaluation of many cells and runs in one compiled program."""
