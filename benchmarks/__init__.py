"""One script or folder per claim. `--backend jax` on the command line chooses the Keras backend, before Keras loads."""

import os
import sys

if "--backend" in sys.argv[:-1]:
    os.environ["KERAS_BACKEND"] = sys.argv[sys.argv.index("--backend") + 1]
