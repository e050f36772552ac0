"""`keras-vit …`: arguments in, text out."""

import argparse
import os
import sys
import traceback

import keras_vit
from keras_vit.cli import checkpoints, evaluate, export, finetune, plan, predict
from keras_vit.cli.options import EPILOG, ERROR, INTERRUPTED, PIPE_CLOSED
from keras_vit.cli.output import print_anywhere
from keras_vit.cli.wording import in_options

# What a wrong argument, file or network raises, a `--set` of the wrong type, and a loss
# that is no number; anything else is an error of ours.
ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError)


def main(argv: list[str] | None = None) -> int:
    """Runs a sub-command and gives the exit status.

    0: done, or nothing differs; 1: `verify` found a difference, or what `plan` was asked
    for does not fit; 2: an error, in one line on the standard error stream; 130:
    interrupted. A training that SIGTERM ends raises `SystemExit` with 75: the same
    command goes on.

    Args:
        argv: arguments, without the program's name; `None` for those of the process.
    """
    print_anywhere()
    parser = _parser()
    argv = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(argv, argparse.Namespace(argv=argv))
    try:
        status = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # As when `| head` has enough; Python would complain once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print("keras-vit: interrupted", file=sys.stderr)
        return INTERRUPTED
    except ERRORS as error:
        if args.traceback:
            traceback.print_exc()
        message = in_options(" ".join(str(error).split()), args.command)
        if isinstance(error, TypeError):
            message = f"an argument has the wrong type (--traceback tells more): {message}"
        print(f"keras-vit: error: {message}", file=sys.stderr)
        return ERROR


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras-vit",
        description="Vision Transformers for Keras: fine-tuned on your images, and "
        "checkpoints in, out and side by side.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"keras-vit {keras_vit.__version__}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (finetune, evaluate, predict, export, plan, checkpoints):
        module.add_to(commands)
    return parser
