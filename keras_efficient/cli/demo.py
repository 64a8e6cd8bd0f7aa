"""`keras-efficient demo`: the main job."""

import argparse
import pathlib

from keras_efficient.cli.files import made_console


def run(options: argparse.Namespace) -> None:
    """Runs the demo with the options of the command line."""
    from keras_efficient.demo import folder

    folder.check(pathlib.Path(options.out))
    from keras_efficient.demo.run import run as run_demo
    from keras_efficient.demo.settings import Settings

    settings = Settings(
        out=pathlib.Path(options.out),
        data=options.data,
        data_dir=options.data_dir,
        seed=options.seed,
        epochs=options.epochs,
        threads=options.threads,
    )
    run_demo(settings, made_console())
