"""Says what a checkpoint holds and which model it would become; as `keras-vit inspect`.

    python weights_tools/inspect_checkpoint.py model.safetensors --names

`--help` lists the options.
"""

import sys
from pathlib import Path

# The package of this clone, installed or not.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from keras_vit.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["inspect", *sys.argv[1:]]))
