"""One script or folder per claim. Where it is an option, `--backend jax` is read here, before Keras loads."""

import os
import sys

if "--backend" in sys.argv[:-1]:
    os.environ["KERAS_BACKEND"] = sys.argv[sys.argv.index("--backend") + 1]
