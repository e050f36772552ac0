"""Models as files of other runtimes: SavedModel, ONNX, LiteRT, OpenVINO, torch."""

from keras_vit.exporting.export import ExportReport, export
from keras_vit.exporting.formats import FORMATS
from keras_vit.exporting.metadata import read_metadata
from keras_vit.exporting.runtimes import load_exported

__all__ = ["FORMATS", "ExportReport", "export", "load_exported", "read_metadata"]
