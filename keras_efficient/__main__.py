"""`python -m keras_efficient`: the command line where its script is not on the path."""

import sys

from keras_efficient.cli import main

sys.exit(main())
