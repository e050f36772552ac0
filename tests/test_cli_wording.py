"""Messages of the command line: in options, and on any terminal."""

import argparse
import io
import sys

import pytest

from keras_vit.cli import _parser
from keras_vit.cli.output import print_anywhere
from keras_vit.cli.wording import in_options, without_splits

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
        (
            "Name it: splits={'train': 'my data'}. Or: splits={'train': '.'} and "
            "validation_split=0.2",
            "Name it: --split train='my data'. Or: --split train=. and "
            "--validation-split 0.2",
        ),
        (
            "Received: splits={'train': ['1', '2'], 'test': '3'}",
            "Received: --split train=1 --split train=2 --split test=3",
        ),
        ("value_range=(0, 4095) or alpha='drop'", "--value-range 0 4095 or --alpha drop"),
        ("`splits` must name 'train'", "`--split` must name 'train'"),
        (
            "`validation_split` and `test_split` must leave examples",
            "`--validation-split` and `--test-split` must leave examples",
        ),
        (
            "`base_learning_rate` must be positive. Received: base_learning_rate=-1.0",
            "`--base-learning-rate` must be positive. Received: --base-learning-rate -1.0",
        ),
        (
            "Received: batch_size=30, micro_batch_size=7",
            "Received: --batch-size 30, --micro-batch-size 7",
        ),
        ("Received: data_dir=None", "Received: no `--data-dir`"),
        ("Received: image_size=(384, 512).", "Received: --image-size 384 512."),
        ("`ema_momentum` must", "`--ema-momentum` must"),
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


def test_advice_on_splits_is_left_out_where_none_are_given():
    text = "Name it: splits={'train': …}; or so"
    assert without_splits(text, "Give it") == "Give it; or so"
    text = "Name it: splits={'train': 'my data'}. Name it: splits={'train': '.'} and "
    assert without_splits(f"{text}validation_split=0.2", "Give it") == "Give it"


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
