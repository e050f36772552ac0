"""`keras-vit evaluate`: the accuracy of a model or of its features, with an interval."""

import argparse
import json
import sys

from keras_vit.cli.options import (
    DATA,
    OK,
    RUN,
    add_batch_size,
    add_command,
    add_data_options,
    add_merging,
    data_options,
    given,
)
from keras_vit.cli.output import print_result, verbosity, warn
from keras_vit.cli.protocols import add_protocols, check_no_protocol, evaluate_protocol
from keras_vit.cli.wording import without_splits
from keras_vit.evaluation.imagenet import TEST_SETS
from keras_vit.runs import evaluate, evaluate_imagenet
from keras_vit.runs.evaluation import SPLITS

ALONE = "Give those to evaluate as a folder or CSV file of their own"
TABLE = "Name the split of each image in a column of a CSV file"


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command to the parser."""
    parser = add_command(
        commands, "evaluate", _evaluate, "print the accuracy of a model, with an interval"
    )
    parser.add_argument("source", metavar="RUN", help=RUN)
    parser.add_argument(
        "data", metavar="DATA", nargs="?", help=f"{DATA} (default: the run's data)"
    )
    parser.add_argument(
        "--split",
        choices=SPLITS,
        help="split to evaluate (default: test, or validation without it; of data other "
        "than the run's all images that it was not trained on)",
    )
    add_batch_size(parser)
    parser.add_argument(
        "--by-order",
        action="store_true",
        help="match the classes of DATA, sorted by name or number, with the outputs of the "
        "model by their order instead of their names",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--report", metavar="FOLDER", help="write an HTML report there")
    parser.add_argument(
        "--imagenet",
        choices=TEST_SETS,
        help="score a classifier of ImageNet-1k on this test set, beside its published "
        "accuracy; DATA is the folder of the images (default: TensorFlow Datasets)",
    )
    parser.add_argument(
        "--real-labels",
        metavar="FILE",
        help="a copy of ReaL's real.json (default: downloaded)",
    )
    add_merging(parser)
    add_protocols(parser)
    add_data_options(parser)


def _evaluate(args):
    if not args.protocol:
        check_no_protocol(args)
    if args.imagenet:
        return _evaluate_imagenet(args)
    if args.real_labels:
        raise ValueError("`real_labels` belongs to --imagenet imagenet_real.")
    try:
        if args.protocol:
            return evaluate_protocol(args)
        result = evaluate(
            args.source,
            args.data,
            verbose=verbosity(args),
            say=warn,
            **given(args, ("split", "batch_size", "by_order", "merged_tokens")),
            **data_options(args),
        )
    except (ValueError, FileNotFoundError) as error:
        # There is no option for `splits` here.
        message = without_splits(str(error), TABLE if args.protocol else ALONE)
        if message == str(error):
            raise
        raise type(error)(message) from error
    if args.json:
        print(json.dumps(result.summary()))
    else:
        print_result(result)
    if args.report:
        page = result.write_report(args.report)
        print(f"report {page}", file=sys.stderr if args.json else sys.stdout)
    return OK


def _evaluate_imagenet(args):
    names = ("split", "by_order", "report", "protocol")
    others = {name: getattr(args, name) for name in names}
    others |= {k: v for k, v in data_options(args).items() if k != "data_dir"}
    if refused := [name for name, value in others.items() if value]:
        raise ValueError(
            "A test set of ImageNet is scored whole, as it was published. Leave out: "
            f"{', '.join(f'`{name}`' for name in refused)}."
        )
    result = evaluate_imagenet(
        args.source,
        args.imagenet,
        args.data,
        verbose=verbosity(args),
        **given(args, ("data_dir", "real_labels", "batch_size", "merged_tokens")),
    )
    print(json.dumps(result.summary()) if args.json else result)
    return OK
