"""The command line: `keras-efficient demo | export | inspect | benchmark`."""

from keras_efficient.cli.main import main

__all__ = ["main"]
