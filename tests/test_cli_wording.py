"""What the command line says: in options, and on any terminal."""

import argparse
import io
import sys

import pytest

from keras_vit.cli import _parser
from keras_vit.cli.output import print_anywhere
from keras_vit.cli.wording import in_options

pytestmark = pytest.mark.one_backend


def command(name):
    """The parser of a sub-command."""
    (choices,) = (
        action.choices
        for action in _parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return choices[name]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "leave them out with bad_images='skip':",
            "leave them out with --bad-images skip:",
        ),
        (
            "Name one: splits={'train': …, 'test': …}",
            "Name one: --split train=… --split test=…",
        ),
        ("`splits` must name 'train'", "`--split` must name 'train'"),
        (
            "`validation_split` and `test_split` must leave examples",
            "`--validation-split` and `--test-split` must leave examples",
        ),
        (
            "`base_learning_rate` must be positive. Received: base_learning_rate=-1.0",
            "`--learning-rate` must be positive. Received: --learning-rate -1.0",
        ),
        (
            "Received: batch_size=30, micro_batch_size=7",
            "Received: --batch-size 30, --micro-batch-size 7",
        ),
        ("Received: data_dir=None", "Received: no `--data-dir`"),
        ("Received: resolution=(384, 512).", "Received: --resolution 384 512."),
        ("`ema_momentum` must", "`--ema` must"),
        ("or choose another `directory`.", "or give `--overwrite`."),
        # No option has this name; and a file's name is what it is.
        ("`dropout_rate` must be in [0, 1)", "`dropout_rate` must be in [0, 1)"),
        ("cannot read 'a seed=3.jpg' of it", "cannot read 'a seed=3.jpg' of it"),
        ("cannot read /images/seed=3/x.jpg", "cannot read /images/seed=3/x.jpg"),
        ("the model's seed=3, and 'seed=4'", "the model's --seed 3, and 'seed=4'"),
    ],
)
def test_arguments_become_options(message, expected):
    assert in_options(message, command("finetune")) == expected


def test_only_the_options_of_the_command_count():
    message = "Give `class_index`, classes=10 or overwrite=True."
    assert in_options(message, command("predict")) == (
        "Give `--class-index`, classes=10 or overwrite=True."
    )
    assert in_options(message, command("convert")) == (
        "Give `class_index`, --classes 10 or `--overwrite`."
    )


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"24 x 24 - ... \\u0434\\xfc \xff\n"),
        ("cp1251", b"24 x 24 \x96 \x85 \xe4\\xfc \xff\n"),
        ("utf-8", "24 × 24 – … дü ".encode() + b"\xff\n"),
    ],
)
def test_letters_that_a_stream_lacks_are_replaced(monkeypatch, encoding, expected):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    monkeypatch.setattr(sys, "stderr", None)  # as without a console on Windows
    print_anywhere()
    # The last is a byte of a file name that is no text.
    print("24 × 24 – … дü \udcff", flush=True)
    assert written.getvalue() == expected
