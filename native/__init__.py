"""Build scripts of the native library; `python -m native.cross` and others run in the source tree."""
