"""`keras-efficient`: reads the arguments, runs one command, and turns what went wrong into one sentence."""

import argparse
import os
import sys
from collections.abc import Sequence

import keras_efficient

DESCRIPTION = "Networks that spend compute only where it is needed: train, export, look inside, measure."
EPILOG = "Each command has its own help: keras-efficient demo --help"


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose complaint is one line, without the usage in front of it."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"keras-efficient: error: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Words behind the program's name; those of the process where None.

    Returns:
        The exit code: 0, 2 after one sentence on stderr, or 130 after Ctrl-C.
    """
    options = parser().parse_args(arguments)
    _prepare_process()
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("keras-efficient: interrupted, nothing was written", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, RuntimeError, TypeError) as error:
        if os.environ.get("KERAS_EFFICIENT_TRACEBACK"):
            raise
        print(f"keras-efficient: error: {_sentence(error)}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    made = Parser(prog="keras-efficient", description=DESCRIPTION, epilog=EPILOG)
    made.add_argument("--version", action="version", version=f"keras-efficient {keras_efficient.__version__}")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_demo, _add_export, _add_inspect, _add_benchmark, _add_coral_check):
        add(commands)
    return made


def positive(text: str) -> int:
    """A positive integer, for argparse."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, received {text!r}")
    return value


def _add_demo(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser(
        "demo",
        help="the whole way on real data: train, learn when to exit, export, measure, report",
        description="Trains a static and a dynamic network, learns when to leave the dynamic one, exports all of them, "
        "runs them through LiteRT with and without the delegate, prints one table, and writes model.keras, "
        "model.tflite, report.json and report.html. Digits take a few minutes on two "
        "cores, mnist and cifar10 longer.",
    )
    command.add_argument("--out", required=True, metavar="DIR", help="where the files go; made if it is not there")
    command.add_argument(
        "--data", default="digits", choices=("digits", "mnist", "cifar10"), help="data set (default: digits, embedded)"
    )
    command.add_argument(
        "--data-dir", metavar="DIR", help="directory with mnist.npz or cifar10.npz (default: download once)"
    )
    command.add_argument("--seed", type=int, default=0, help="of weights, augmentation and policies (default: 0)")
    command.add_argument("--epochs", type=positive, help="training epochs of each network (default: by data set)")
    command.add_argument("--threads", type=positive, default=1, help="threads while measuring (default: 1)")
    command.set_defaults(run=_run_demo)


def _add_export(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser(
        "export",
        help="a saved Keras model as a verified .tflite file",
        description="Converts a saved Keras model and verifies the file against Keras; writes it whole or not at all.",
    )
    command.add_argument("model", metavar="MODEL.keras", help="saved by model.save")
    command.add_argument(
        "--out", metavar="FILE.tflite", help="default: the model's name with .tflite; a folder or .zip with --target"
    )
    command.add_argument(
        "--import", dest="modules", action="append", default=[], metavar="MODULE", help="module with custom layers"
    )
    command.add_argument(
        "--ops", choices=("composite", "custom", "builtin"), help="form of the ops (default: composite)"
    )
    command.add_argument(
        "--target",
        choices=("linux", "android", "coral"),
        help="chooses --ops for a device; where --out is a folder or .zip, what belongs beside the model, too",
    )
    command.add_argument("--aar", metavar="FILE.aar", help="the Android library for an Android folder")
    command.add_argument("--task", metavar="NAME", help="the only task to export of a network of several")
    command.add_argument("--int8", action="store_true", help="int8 weights and activations; needs --data")
    command.add_argument(
        "--data", metavar="FILE.npz", help="real inputs: one array per input of the model (or one array for one input)"
    )
    command.set_defaults(run=_run_export)


def _add_inspect(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser(
        "inspect",
        help="what is in a .tflite file",
        description="Ops, subgraphs, exits, MACs, metadata and sizes, of a file or of all in an exported folder.",
    )
    command.add_argument("file", metavar="FILE.tflite")
    command.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    command.set_defaults(run=_run_inspect)


def _add_benchmark(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser(
        "benchmark",
        help="latency of a .tflite file, with and without the delegate",
        description="Runs the file stock and with the delegate in turns, one sample at a time: mean, p50 and p95.",
    )
    command.add_argument("file", metavar="FILE.tflite")
    command.add_argument(
        "--delegate",
        default="auto",
        metavar="auto|none|PATH",
        help="our kernels, stock only, or a library (default: auto)",
    )
    command.add_argument("--threads", type=positive, default=1, help="threads of each interpreter (default: 1)")
    command.add_argument("--runs", type=positive, default=200, help="timed runs of each (default: 200)")
    command.add_argument(
        "--data",
        metavar="FILE.npz",
        help="real inputs; noise where left out, which may take other exits than real ones",
    )
    command.add_argument("--task", metavar="NAME", help="the task to run of a file of several")
    command.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    command.set_defaults(run=_run_benchmark)


def _add_coral_check(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser(
        "coral-check",
        help="what the Edge TPU compiler would make of a .tflite file",
        description="Says operator by operator what runs on an Edge TPU, where the compiler would cut, and how to mend "
        "it. Runs edgetpu_compiler, too, where it is on the PATH.",
    )
    command.add_argument("file", metavar="FILE.tflite")
    command.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    command.set_defaults(run=_run_coral_check)


# Keras and TensorFlow take seconds to import, so each command imports its own needs.
def _run_demo(options: argparse.Namespace) -> None:
    from keras_efficient.cli.demo import run

    run(options)


def _run_export(options: argparse.Namespace) -> None:
    from keras_efficient.cli.export import run

    run(options)


def _run_inspect(options: argparse.Namespace) -> None:
    from keras_efficient.cli.inspect import run

    run(options)


def _run_benchmark(options: argparse.Namespace) -> None:
    from keras_efficient.cli.benchmark import run

    run(options)


def _run_coral_check(options: argparse.Namespace) -> None:
    from keras_efficient.cli.coral_check import run

    run(options)


def _prepare_process() -> None:
    """The program's own process: TensorFlow is the backend unless the user says otherwise, and its log stays quiet."""
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 1000 else f"{text[:1000]} ..."
