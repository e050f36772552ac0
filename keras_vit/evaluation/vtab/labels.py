"""Labels that VTAB computes from an example: numbers of objects, distances, groups.

Source: VTAB (arXiv 1910.04867), appendix A, and its code, google-research/task_adaptation.
A label takes the values of a record by feature, as flat arrays, and returns the class.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from keras_vit.data.records import StoredLabel

Values = Mapping[str, np.ndarray]

CLEVR_COUNTS = range(3, 11)  # images of CLEVR have 3 to 10 objects
CLEVR_EDGES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_EDGES = (-100.0, 8.0, 20.0, 999.0, np.inf)  # metres; the last class: no vehicle
KITTI_VEHICLES = 3  # types below are Car, Van and Truck
NO_VEHICLE = 1000.0


@dataclass(frozen=True)
class GroupedLabel:
    """Stored label whose neighbouring classes are joined into groups of equal width.

    Args:
        key: name of the feature.
        num_classes: number of its classes.
        num_groups: number of classes after joining. A group has `num_classes / num_groups`
            classes; if that is no whole number, such as 2.5, groups of 3 and 2 alternate.
    """

    key: str
    num_classes: int
    num_groups: int

    def __call__(self, values: Values) -> int:
        return StoredLabel(self.key)(values) * self.num_groups // self.num_classes


def clevr_count(values: Values) -> int:
    """Returns the number of objects, counted from the smallest of CLEVR.

    Raises:
        ValueError: if there are fewer or more objects than CLEVR has.
    """
    count = len(values["objects/size"])
    if count not in CLEVR_COUNTS:
        raise ValueError(f"An image of CLEVR has 3 to 10 objects. Received: {count}")
    return CLEVR_COUNTS.index(count)


def clevr_distance(values: Values) -> int:
    """Returns the bin of the distance between the camera and the closest object."""
    depths = values["objects/pixel_coords"].reshape(-1, 3)[:, 2]
    return bin_of(depths.min(), CLEVR_EDGES)


def kitti_distance(values: Values) -> int:
    """Returns the bin of the distance to the closest car, van or truck; the last: none."""
    depths = values["objects/location"].reshape(-1, 3)[:, 2]
    is_vehicle = values["objects/type"] < KITTI_VEHICLES
    return bin_of(depths[is_vehicle].min(initial=NO_VEHICLE), KITTI_EDGES)


def bin_of(value: float, edges: tuple[float, ...]) -> int:
    """Returns the bin of a value; a value on an edge belongs to the bin below.

    Args:
        value: float.
        edges: edges of the bins in rising order, one more than there are bins.

    Raises:
        ValueError: if the value is in no bin.
    """
    found = int(np.searchsorted(edges, value)) - 1
    if not 0 <= found < len(edges) - 1:
        raise ValueError(
            f"A distance must be above {edges[0]:g} and at most {edges[-1]:g}. Received: "
            f"{value:g}"
        )
    return found
