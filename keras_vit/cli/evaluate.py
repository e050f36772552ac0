"""`keras-vit evaluate`: how well a model does, and how sure that is."""

import json
import sys
from dataclasses import replace

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
    reading_of,
)
from keras_vit.cli.results import (
    UNSEEN,
    accuracy_name,
    loss_note,
    print_result,
    result_of,
    write_report_of,
)
from keras_vit.cli.wording import without_splits
from keras_vit.data import ImageData
from keras_vit.data.labels import UnknownClassError
from keras_vit.runs import load_classifier, reunite

SPLITS = ("train", "validation", "test")
# No split but the data's own: one that is drawn here would hold images that the model was
# trained on.
UNDIVIDED = {"validation_split": 0.0, "test_split": 0.0}
ALONE = "Give those to evaluate as a folder or CSV file of their own"


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
        help="by default test where there is one, else validation; of other data than "
        "the training's all images that it was not trained on",
    )
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="images (%(default)s)"
    )
    parser.add_argument(
        "--by-order",
        action="store_true",
        help="take the classes of DATA, in the order of their names or numbers, for the "
        "outputs of the model, whatever the model calls them",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--report", metavar="FOLDER", help="write a report there, too")
    add_merging(parser)
    add_data_options(parser)


def _evaluate(args):
    if args.data is not None:
        args.data = found_again(args.data)
    classifier = load_classifier(args.source, args.batch_size, **merging_of(args))
    if args.by_order:
        classifier = replace(classifier, class_names=None)
    verbose = 1 if sys.stdout.isatty() and not args.json else 0
    try:
        data, split = _data(args, classifier)
        evaluation = classifier.evaluate(data, split, verbose=verbose)
    except UnknownClassError as error:
        raise ValueError(
            f"{error}. If the data's classes are the model's, in the same order, give "
            "--by-order."
        ) from error
    if args.json:
        print(json.dumps(result_of(classifier, evaluation, split)))
    else:
        print_result(evaluation, accuracy_name(data, split), loss_note(classifier))
    if args.report:
        page = write_report_of(classifier, evaluation, data, split, args.report)
        print(f"report {page}", file=sys.stderr if args.json else sys.stdout)
    return OK


def _data(args, classifier) -> tuple[ImageData, str]:
    """The images, and the split of them that is to be evaluated."""
    names = classifier.class_names
    known = {} if names is None else {"class_names": names}
    # As the images of the training were read, unless an option says otherwise.
    known |= {k: v for k, v in reading_of(args, classifier.pipeline).items() if v}
    if classifier.run is not None:
        return _of_training(args, classifier.run, known)
    if args.data is None:
        raise ValueError(
            "Which images? The folder of a training would tell. Received: "
            f"{args.source!r}, which is none. Give DATA."
        )
    data = _load({**data_arguments(args, args.data), **known, **UNDIVIDED})
    return data, _own_split(args, data)


def _load(given) -> ImageData:
    """The images; errors name no splits, which are not to be given here."""
    try:
        return load_data(given)
    except (ValueError, FileNotFoundError) as error:
        said = without_splits(str(error), ALONE)
        if said == str(error):
            raise
        raise type(error)(said) from error


def _of_training(args, run, known) -> tuple[ImageData, str]:
    """Also where the images have moved since, have changed, or are others."""
    config = run.config()["data"]
    used, source = config["arguments"], args.data or config["arguments"]["source"]
    is_other = source != used["source"]
    given = {**data_arguments(args, source), **known}
    try:
        data = _load({**used, **given})
    except (ValueError, FileNotFoundError):
        if not is_other:
            raise
        used = {}  # its splits or columns are not those of these data
    else:
        if data.fingerprint == config["fingerprint"]:
            if is_other:
                _say("these are the images of the training, so its splits are used.")
            return data, args.split or _default_split(data.splits)
    data, examples = _load({**used, **given, **UNDIVIDED}), run.examples()
    reunion = reunite(data, examples) if examples else None
    if reunion is not None and reunion.known:
        return _reunited(args, data, reunion, examples, is_other)
    if not is_other:
        _tell_changed(args, data)
    elif examples is None:
        _say(
            "the run does not tell which images it was trained on, so there may be some "
            "of them among these."
        )
    return data, _own_split(args, data)


def _own_split(args, data) -> str:
    """The split that is asked for, if the data has it by itself."""
    split = args.split or _default_split(data.splits)
    if split not in data.splits:
        raise ValueError(
            f"{data.name!r} has no split {split!r} of its own, and one that is drawn here "
            "could hold images that the model was trained on. Leave --split out, or give "
            "the folder or file of that part alone as DATA."
        )
    return split


def _default_split(splits) -> str:
    return next(split for split in reversed(SPLITS) if split in splits)


def _tell_changed(args, data):
    """Warns that the training's images have changed; an error if all were trained on."""
    if _default_split(data.splits) == "train" and args.split != "train":
        raise ValueError(
            "The images are not those of the training any more, and nothing tells which "
            "of them it was trained on. Give images that it has not seen as DATA."
        )
    _say(
        "the images are not those of the training any more, so some that were trained on "
        f"may be in the {args.split or _default_split(data.splits)} split."
    )


def _reunited(args, data, reunion, examples, is_other) -> tuple[ImageData, str]:
    """Images of which the training knew some: none that it was trained on is scored."""
    split = args.split
    if split is None and not is_other:
        split = _default_split({*examples, *data.splits})
    if split == "train" or (split is not None and split not in data.splits):
        return _as_trained(reunion, split, examples)
    own = split or _default_split(data.splits)
    count = len(data.splits[own])
    if own not in reunion.untrained.splits:
        raise ValueError(
            f"The model was trained on all {count} images of {data.name!r}. Give others, "
            "or --split train to score these."
        )
    if reunion.trained[own]:
        _say(
            f"{reunion.trained[own]} of the {count} images are left out, as the model was "
            "trained on them."
        )
    source = reunion.untrained.splits[own]
    if own == "train":  # not those of the training's
        own = UNSEEN if reunion.trained[own] else own
        return replace(data, splits={own: source}), own
    return replace(data, splits={**data.splits, own: source}), own


def _as_trained(reunion, split, examples) -> tuple[ImageData, str]:
    """The training's split of images some of which are gone, or new."""
    if split not in examples or split not in reunion.data.splits:
        raise ValueError(
            f"No image of the training's {split} split is there. Leave --split out, or "
            "give a folder or file that holds them as DATA."
        )
    _say(
        "the images are not those of the training any more. Evaluated are those of its "
        f"{split} split; {reunion.missing[split]} of its {len(examples[split])} are not "
        f"there, and {reunion.new} that it did not know are left out."
    )
    return reunion.data, split


def _say(text):
    print(f"keras-vit: {text}", file=sys.stderr)
