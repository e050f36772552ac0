"""`keras-vit …`: arguments in, text out."""

import argparse
import os
import sys
import traceback

import keras_vit
from keras_vit.cli import (
    checkpoints,
    embed,
    evaluate,
    explain,
    export,
    finetune,
    plan,
    predict,
    pretrain,
    vtab,
)
from keras_vit.cli.options import (
    EPILOG,
    ERROR,
    INTERRUPTED,
    PIPE_CLOSED,
    current_spelling,
)
from keras_vit.cli.output import print_anywhere
from keras_vit.cli.wording import in_options

# Raised by a wrong argument, file or network, a `--set` of the wrong type, and a loss that
# is NaN. Anything else is a bug of this package.
ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError)


def main(argv: list[str] | None = None) -> int:
    """Runs a sub-command and returns the exit status.

    0: done, or no difference; 1: `verify` found a difference, or the training that `plan`
    describes does not fit; 2: an error, in one line on stderr; 130: interrupted. A
    training that SIGTERM ends raises `SystemExit` with 75: the same command resumes it.

    Args:
        argv: arguments without the program's name; `None` for the process's.
    """
    print_anywhere()
    parser = _parser()
    argv = current_spelling(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(argv, argparse.Namespace(argv=argv))
    try:
        status = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # `| head` has enough. Without this Python complains again as it exits.
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
            message = f"an argument has the wrong type (--traceback shows where): {message}"
        print(f"keras-vit: error: {message}", file=sys.stderr)
        return ERROR


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras-vit",
        description="Fine-tune Vision Transformers on your images, and convert, verify and "
        "inspect checkpoints, with Keras.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"keras-vit {keras_vit.__version__}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    modules = (finetune, pretrain, evaluate, predict, embed, explain, vtab, export)
    modules += (plan, checkpoints)
    for module in modules:
        module.add_to(commands)
    return parser
