"""Data sets as TensorFlow Datasets prepares them, written to a folder."""


def write_prepared(
    data_dir, name, features, splits, version="1.2.3", file_format="tfrecord"
):
    """Writes a data set; `data_dir` is then a folder of TensorFlow Datasets.

    `features` is a `FeaturesDict`, and `name` may have a configuration ("eurosat/rgb").
    `splits` holds for each split a list of shards, which are lists of serialized examples;
    see `serialized`. Returns the folder of the data set.
    """
    import tensorflow_datasets as tfds

    folder = data_dir / name / version
    folder.mkdir(parents=True)
    infos = []
    for split, shards in splits.items():
        template = tfds.core.ShardedFileTemplate(
            folder,
            dataset_name=name.split("/")[0],
            split=split,
            filetype_suffix=file_format,
        )
        for number, records in enumerate(shards):
            path = template.sharded_filepath(shard_index=number, num_shards=len(shards))
            WRITERS[file_format](str(path), records)
        info = tfds.core.SplitInfo(
            name=split,
            shard_lengths=list(map(len, shards)),
            num_bytes=0,
            filename_template=template,
        )
        infos.append(info)
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, check_data=False
    )
    return folder


def serialized(features, example):
    """The record of an example, a dictionary of values by feature."""
    return features.serialize_example(features.encode_example(example))


def _write_tfrecord(path, records):
    import tensorflow as tf

    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)


def _write_array_record(path, records):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(path, "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


WRITERS = {"tfrecord": _write_tfrecord, "array_record": _write_array_record}
