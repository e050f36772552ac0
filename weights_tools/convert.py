"""Writes a checkpoint of any layout in another one; as `keras-vit convert`.

    python weights_tools/convert.py ViT-B_16.npz flowers.safetensors --classes 102

`--help` lists the options.
"""

import sys
from pathlib import Path

# The package of this clone, installed or not.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from keras_vit.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
