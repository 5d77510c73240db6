"""Failure-resilient distributed neural networks: every ablation of ResiliNet as one compiled program."""
