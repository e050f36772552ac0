"""The ViT paper's table of results in one command.

    python -m benchmarks.paper OUTPUT --dry-run    # commands, compute, what is missing
    KERAS_BACKEND=jax python -m benchmarks.paper OUTPUT --dtype mixed_bfloat16
    python -m benchmarks.paper OUTPUT --row 'ViT-L/16' --column cifar100 --seeds 0

Each cell is a fine-tuning by the paper's recipe with three seeds, or the evaluation of a
published classifier. Run again, the command resumes what was killed and repeats nothing.
The folder gets `table.md`, `table.json`, `compute.png` and `few_shot.png`. Cells whose
weights or data are not there are named; data sets are those that TensorFlow Datasets has
prepared in `--data-dir`.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from benchmarks.paper.cells import UNTRAINED, Cell, Setting
from benchmarks.paper.charts import write_charts
from benchmarks.paper.few_shot import FewShotCell
from benchmarks.paper.rows import COLUMNS, FEW_SHOT_MODELS, MODELS, REAL, Column, Model
from benchmarks.paper.table import as_json, markdown

# Weights that cannot be had, data that does not fit: the other cells are still run.
ERRORS = (ValueError, OSError, RuntimeError, ImportError)


def grid(
    setting: Setting,
    models: Sequence[Model] = MODELS,
    columns: Sequence[Column] = COLUMNS,
) -> list[list[Cell]]:
    """The cells of each model."""
    return [[Cell(model, column, setting) for column in columns] for model in models]


def describe(rows: Sequence[Sequence[Cell]], few_shot: Sequence[FewShotCell]) -> str:
    """Commands, compute and what is missing, for `--dry-run`."""
    lines, total = [], 0.0
    for cell in (cell for cells in rows for cell in cells):
        lines.append(cell.title)
        if missing := cell.missing():
            lines.append(f"  {missing}")
        if cell.model.preset is None or missing == UNTRAINED:
            continue
        exaflops = cell.exaflops()
        total += exaflops
        if exaflops:
            lines.append(f"  {exaflops:,.1f} exaFLOPs for {len(cell.seeds)} seeds")
        lines += [f"  {cell.command(seed)}" for seed in cell.seeds]
    for point in few_shot:
        lines += [point.title, f"  {point.command()}"]
        if missing := point.missing():
            lines.insert(-1, f"  {missing}")
    lines.append(
        f"{total:,.0f} exaFLOPs in all, evaluations left out: {_days(total):,.0f} days of "
        "a device that sustains 200 TFLOP/s"
    )
    return "\n".join(lines)


def _days(exaflops, rate=200e12):
    return exaflops * 1e18 / rate / 86_400


def run(rows: Sequence[Sequence[Cell]], few_shot: Sequence[FewShotCell]) -> Iterator[str]:
    """Runs every cell whose weights and data are there; yields a line on each failure."""
    # ReaL is measured on the models that are fine-tuned on ImageNet.
    cells = [cell for cells in rows for cell in cells]
    for cell in sorted(cells, key=lambda cell: cell.column.name == REAL):
        if cell.missing():
            continue
        for seed in cell.seeds:
            print(f"{cell.title}, seed {seed}: {cell.command(seed)}", file=sys.stderr)
            try:
                cell.run(seed, say=_say)
            except ERRORS as error:
                yield f"{cell.title}, seed {seed}: {error}"
                break
    for point in few_shot:
        if point.missing():
            continue
        try:
            point.run()
        except ERRORS as error:
            yield f"{point.title}: {error}"


def _say(text):
    print(f"  {text}", file=sys.stderr)


def write(
    rows: Sequence[Sequence[Cell]], few_shot: Sequence[FewShotCell], folder: Path
) -> str:
    """Writes the table and the charts of what was measured; returns the table."""
    folder.mkdir(parents=True, exist_ok=True)
    table = markdown(rows)
    (folder / "table.md").write_text(table, "utf-8")
    (folder / "table.json").write_text(json.dumps(as_json(rows), indent=1), "utf-8")
    points = [point for cell in few_shot if (point := cell.point()) is not None]
    write_charts(rows, points, folder)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 1 if a cell has failed."""
    args = _parser().parse_args(argv)
    setting = Setting(
        args.output,
        args.data_dir,
        tuple(args.seeds),
        {"dtype": args.dtype, "strategy": args.strategy},
    )
    models = [m for m in MODELS if not args.row or m.name in args.row]
    columns = [c for c in COLUMNS if not args.column or c.name in args.column]
    rows = grid(setting, models, columns)
    few_shot = [FewShotCell(model, setting) for model in FEW_SHOT_MODELS]
    if args.row or args.column:
        few_shot = []
    if args.dry_run:
        print(describe(rows, few_shot))
        return 0
    failures = list(run(rows, few_shot))
    print(write(rows, few_shot, args.output))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder of all runs")
    parser.add_argument("--data-dir", help="where TensorFlow Datasets keeps its data")
    names = list(dict.fromkeys(model.name for model in MODELS))
    parser.add_argument("--row", action="append", choices=names, help="a model alone")
    parser.add_argument(
        "--column",
        action="append",
        choices=[column.name for column in COLUMNS],
        help="a data set alone",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--dtype", default="float32", metavar="POLICY")
    parser.add_argument("--strategy", default="auto", metavar="NAME")
    parser.add_argument(
        "--dry-run", action="store_true", help="print commands and compute, run nothing"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
