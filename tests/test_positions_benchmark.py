"""The table of positions from end to end, with one epoch on few images."""

import sys

import numpy as np
import pytest

from benchmarks import positions

pytestmark = pytest.mark.one_backend


def test_the_label_is_the_side_of_the_cross():
    (images, labels), (others, _) = positions.sides(40, 8)
    assert (images.shape, others.shape) == ((40, 16, 16, 1), (8, 16, 16, 1))
    assert set(labels) == set(range(4))
    cross = np.zeros((4, 4), bool)
    cross[range(4), range(4)] = cross[range(4), range(3, -1, -1)] = True
    for image, label in zip(images, labels, strict=True):
        patches = image.reshape(4, 4, 4, 4).swapaxes(1, 2)  # (row, column, 4, 4)
        bright = patches > 0
        rings = bright.sum((2, 3)) > 9  # of 12, and a cross has 8
        crosses = bright[:, :, cross].all(2) & ~rings
        (a,), (b,) = np.argwhere(crosses), np.argwhere(rings)
        down, right = a - b
        side = (down > 0) if abs(down) > abs(right) else 2 + (right > 0)
        assert side == label


def test_trainings_are_written_and_not_repeated(tmp_path, monkeypatch, capsys):
    kinds = {("learned2d", "each_layer"): 0.64046, ("relative_key", "stem"): 0.64032}
    monkeypatch.setattr(positions, "PAPER", kinds)
    monkeypatch.setitem(positions.DATA, "sides", lambda: _SIDES(64, 16))
    path = tmp_path / "new" / "results.jsonl"
    options = ["--data", "sides", "--seeds", "2", "--epochs", "1", "--results", str(path)]
    monkeypatch.setattr(sys, "argv", ["positions", *options])
    positions.main()
    first = capsys.readouterr().out
    assert first.count(" s)\n") == 4
    row = first.splitlines()[-2]
    assert row.startswith("| `learned2d` | `each_layer` | 0.64046 | 0.")
    assert row.endswith(" (2) |")
    positions.main()
    assert capsys.readouterr().out.splitlines() == first.splitlines()[4:]
    # A run that is cut short keeps what it has.
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    monkeypatch.setattr(sys, "argv", ["positions", *options, "--minutes", "-1"])
    positions.main()
    assert "Stopped after -1.0 minutes" in (short := capsys.readouterr().out)
    assert "(1)" in short.splitlines()[-1]


_SIDES = positions.sides
