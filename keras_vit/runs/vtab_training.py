"""A model fine-tuned on one of VTAB's tasks."""

import os

import keras

from keras_vit.distribution.checks import check_batches
from keras_vit.evaluation.vtab import Task, TaskScore, load_task
from keras_vit.runs.classifier import Classifier
from keras_vit.runs.scores_folder import ScoresFolder
from keras_vit.training import ExactResume, Recipe
from keras_vit.training.finetune import finetune, prepare_data
from keras_vit.zoo.pretrained import from_pretrained


def fine_tune_on_task(
    base: keras.Model,
    recipe: Recipe,
    folder: ScoresFolder,
    task: Task,
    *,
    data_dir: str | os.PathLike[str] | None,
    seed: int,
    verbose: str | int,
) -> TaskScore:
    """Trains a copy of a model on a task's 1,000 examples, and tests its last state.

    No checkpoint is chosen, as all examples but those of the test are trained on. If it is
    killed, the same call resumes the training, bit for bit.

    Args:
        base: a model of this package without a head; it is not changed.
        recipe: the hyperparameters, such as `training.VTAB()`.
        folder: keeps the checkpoints from which the training resumes; its settings must
            not change before.
        task: the task.
        data_dir: folder of TensorFlow Datasets' data; `None` for its default.
        seed: random seed of order, augmentation and dropout.
        verbose: as in `fit` of Keras.
    """
    keras.utils.set_random_seed(seed)
    check_batches(recipe.micro_batch_size or recipe.batch_size)
    options = {"classifier_activation": None, **recipe.model_arguments()}
    network = from_pretrained(base, classes=task.num_classes, **options)
    network.note(preprocessing=None)  # the task says how its files are read
    data = load_task(task, data_dir, joined=True, seed=seed)
    data = prepare_data(data, network, recipe)
    resume = folder.resume_path(task.name)
    exact = ExactResume(resume, data=data, configuration=folder.settings)
    finetune(network, data, recipe, callbacks=exact, verbose=verbose)
    names, images = data.class_names, data.pipeline
    evaluation = Classifier(network, images, names, recipe.loss).evaluate(data, "test")
    return TaskScore(evaluation.num_correct, evaluation.num_examples)
