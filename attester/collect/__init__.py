"""Collecting Evidence on the node: one module for each interface that gives some."""
