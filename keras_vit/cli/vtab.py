"""`keras-vit vtab`: a checkpoint on the nineteen tasks of VTAB-1k."""

import argparse
import json
import os
import sys

from keras_vit.cli.options import (
    ERROR,
    OK,
    RUN,
    add_command,
    add_dtype,
    add_numbers,
    add_overrides,
    add_rematerialize,
    add_seed,
    given,
    overrides_of,
)
from keras_vit.cli.output import verbosity, warn
from keras_vit.runs import evaluate_vtab, vtab_states
from keras_vit.runs.vtab import FINETUNE, VTAB_PROTOCOLS
from keras_vit.tables import table
from keras_vit.training import VTAB

_ARGUMENTS = ("tasks", "data_dir", "protocol", "layer", "cache_dir", "batch_size", "dtype")
_ARGUMENTS += ("strategy", "seed", "overwrite")
_RECIPE = ("steps", "micro_batch_size", "base_learning_rate", "rematerialize")


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command to the parser."""
    parser = add_command(
        commands, "vtab", _vtab, "judge a model on the nineteen tasks of VTAB-1k"
    )
    parser.add_argument("--model", required=True, metavar="RUN", help=RUN)
    parser.add_argument(
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder for the results of one model and one protocol; the same command again "
        "runs the tasks that are not finished",
    )
    parser.add_argument(
        "--data-dir", metavar="FOLDER", help="where TensorFlow Datasets keeps its data"
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        metavar="NAME",
        help="tasks, such as pets, or groups: natural, specialized, structured (default: "
        "all)",
    )
    parser.add_argument(
        "--protocol",
        choices=VTAB_PROTOCOLS,
        default="linear",
        help="linear (default): logistic regression on fixed features; few-shot: least "
        "squares on them; finetune: the whole model is trained on each task, by the recipe "
        "of the ViT paper",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="list what would be run, and the commands that prepare what is missing",
    )
    parser.add_argument("--overwrite", action="store_true", help="run finished tasks again")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="images in a batch of features (default: 32), or in each update of the "
        "training (default: 512)",
    )
    add_dtype(parser)
    parser.add_argument(
        "--strategy", default="auto", metavar="NAME", help="as in `keras-vit finetune`"
    )
    _add_features(parser.add_argument_group("fixed features"))
    _add_training(parser.add_argument_group("fine-tuning"))
    add_overrides(parser)


def _add_features(group):
    group.add_argument(
        "--layer",
        default="pooled",
        metavar="NAME",
        help="output of the model whose features are classified (default: %(default)s)",
    )
    group.add_argument(
        "--cache-dir",
        metavar="FOLDER",
        help="where features stay (default: features in the output)",
    )


def _add_training(group):
    numbers = {
        "steps": (int, "updates of the weights (default: 2500)"),
        "micro-batch-size": (int, "images in memory at a time; accumulates gradients"),
        "base-learning-rate": (float, "learning rate after the warm-up (default: 0.01)"),
    }
    add_numbers(group, numbers)
    add_rematerialize(group)
    add_seed(group)


def _vtab(args):
    if args.dry_run:
        return _dry_run(args)
    result = evaluate_vtab(
        args.model,
        args.output,
        recipe=_recipe(args),
        verbose=verbosity(args),
        say=warn,
        **given(args, _ARGUMENTS),
        **overrides_of(args),
    )
    scores = result.scores
    print(json.dumps(scores.summary()) if args.json else scores)
    facts = [("results", os.fspath(result.results)), ("report", os.fspath(result.report))]
    print(table(facts, left=(0, 1)), file=sys.stderr if args.json else sys.stdout)
    return OK if scores.scores and not scores.failed else ERROR


def _recipe(args):
    """The recipe with the given hyperparameters; `None` if there are none."""
    changes = given(args, _RECIPE)
    if not changes:
        return None
    if args.protocol != FINETUNE:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in changes)
        raise ValueError(
            f"{options}: for the fine-tuning. Received: --protocol {args.protocol}. Leave "
            "it out, or give --protocol finetune."
        )
    return VTAB(**changes)


def _dry_run(args):
    states = vtab_states(args.output, **given(args, ("tasks", "data_dir")))
    if args.json:
        rows = [{"task": s.task.name, **_facts(s)} for s in states]
        print(json.dumps(rows))
        return OK
    rows = [("task", "group", "data set", "state")]
    rows += [(s.task.name, s.task.group, s.task.data_set, s.state) for s in states]
    print(table(rows, left=(0, 1, 2, 3)))
    if commands := list(dict.fromkeys(s.command for s in states if s.state == "missing")):
        print("\n".join(["prepare the missing data with", *commands]))
    return OK


def _facts(state):
    facts = {"group": state.task.group, "data_set": state.task.data_set}
    return {**facts, "state": state.state, "command": state.command}
