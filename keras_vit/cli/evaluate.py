"""`keras-vit evaluate`: how well a model does, and how sure that is."""

import json
import sys

from keras_vit.cli.options import (
    CHECKPOINT,
    DATA,
    OK,
    add_command,
    add_data_options,
    add_merging,
    data_arguments,
    found_again,
    load_data,
    merging_of,
)
from keras_vit.cli.results import (
    accuracy_name,
    loss_note,
    print_result,
    result_of,
    write_report_of,
)
from keras_vit.runs import load_classifier

SPLITS = ("train", "validation", "test")


def add_to(commands) -> None:
    """Adds the sub-command to the parser."""
    parser = add_command(
        commands, "evaluate", _evaluate, "tell the accuracy of a model, with an interval"
    )
    parser.add_argument(
        "source", metavar="RUN", help=f"the folder of a training, or {CHECKPOINT}"
    )
    parser.add_argument(
        "data", metavar="DATA", nargs="?", help=f"{DATA}; by default that of the training"
    )
    parser.add_argument(
        "--split",
        choices=SPLITS,
        help="by default test where there is one, else validation; all images of a "
        "folder without splits",
    )
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="images (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--report", metavar="FOLDER", help="write a report there, too")
    add_merging(parser)
    add_data_options(parser)


def _evaluate(args):
    if args.data is not None:
        args.data = found_again(args.data)
    classifier = load_classifier(args.source, args.batch_size, **merging_of(args))
    data = _data(args, classifier)
    split = args.split or next(s for s in reversed(SPLITS) if s in data.splits)
    verbose = 1 if sys.stdout.isatty() and not args.json else 0
    evaluation = classifier.evaluate(data, split, verbose=verbose)
    if args.json:
        print(json.dumps(result_of(classifier, evaluation, split)))
    else:
        print_result(evaluation, accuracy_name(data, split), loss_note(classifier))
    if args.report:
        page = write_report_of(classifier, evaluation, data, split, args.report)
        print(f"report {page}", file=sys.stderr if args.json else sys.stdout)
    return OK


def _data(args, classifier):
    config = classifier.run.config()["data"] if classifier.run else None
    if args.data is None and config is None:
        raise ValueError(
            "Which images? The folder of a training would tell. Received: "
            f"{args.source!r}, which is none. Give DATA."
        )
    if config is None or args.data not in (None, config["arguments"]["source"]):
        # Other images than those of the training: all of them, unless a part is named.
        whole = {} if args.split else {"validation_split": 0.0, "test_split": 0.0}
        return load_data(data_arguments(args, args.data, **whole))
    given = data_arguments(args, config["arguments"]["source"])
    data = load_data({**config["arguments"], **given})
    if data.fingerprint != config["fingerprint"]:
        print(
            "keras-vit: the images are not those of the training any more, so some that "
            f"were trained on may be in the {args.split or 'test'} split.",
            file=sys.stderr,
        )
    return data
