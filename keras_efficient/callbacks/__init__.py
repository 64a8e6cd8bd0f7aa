"""Callbacks that train dynamic layers to a budget and show what they save."""
