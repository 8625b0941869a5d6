"""Submitted jobs: shell commands that run on a cluster and outlive whoever has submitted them."""
