"""The page: components of Gradio, and which of them change when one does."""

from collections.abc import Callable, Sequence
from typing import Any

from keras_vit.explorer import panel
from keras_vit.explorer.explored import ExploredModel
from keras_vit.explorer.panel import Choice, Contents
from keras_vit.explorer.view import Place
from keras_vit.extras import require
from keras_vit.report.looks import CLASS_MAPS

MEAN = "mean"  # of the heads
HINT = "Drop an image. Then click a patch in a picture to see what it attends to."
_FILES = (600, 3600)  # seconds: how often, and after which age, pictures are deleted

# One call at a time: a model keeps the maps of one image.
_EVENT = {"concurrency_id": "models", "concurrency_limit": 1, "api_visibility": "private"}
_QUICK = {**_EVENT, "trigger_mode": "always_last", "show_progress": "hidden"}


class Panel:
    """The components of one model.

    Args:
        gr: the module of Gradio.
        model: the model.
        number: int, which of the models it is, from 0.
        has_choice: bool, whether block and head are chosen here.
    """

    def __init__(self, gr: Any, model: ExploredModel, number: int, has_choice: bool):
        self._gr, self._number = gr, number
        text(gr, panel.heading(model))
        self.choice: list[Any] = choice(gr, model, number) if has_choice else []
        self.parts: dict[str, Any] = {}
        self._add_picture("patch", "The clicked patch attends to", "kv-click")
        self.parts["reading"] = text(gr, "", f"reading-{number}")
        if model.class_map_kind:  # else there is neither
            name = CLASS_MAPS[model.class_map_kind][0]
            with gr.Row(elem_classes="kv-maps"):
                self._add_picture("class_map", name[0].upper() + name[1:])
                self._add_picture("rollout", "Rollout of all blocks")
        self.parts["predictions"] = text(gr, "", f"predictions-{number}")

    def _add_picture(self, name, caption, *classes):
        with self._gr.Column(min_width=120):
            text(self._gr, panel.caption(caption))
            self.parts[name] = self._gr.Image(
                show_label=False,
                label=caption,
                alt_text=caption,
                elem_id=f"{name}-{self._number}",
                elem_classes=["kv-picture", *classes],
                interactive=False,
                format="png",
                buttons=[],  # they would cover patches
            )

    def values(self, contents: Contents) -> dict[Any, Any]:
        """Contents by component."""
        parts = self.parts
        return {parts[name]: value for name, value in contents.items() if name in parts}


def text(gr: Any, content: str, name: str | None = None) -> Any:
    """A component of HTML."""
    return gr.HTML(content, elem_id=name, padding=False)


def choice(gr: Any, model: ExploredModel, number: int) -> list[Any]:
    """The components by which block and head of a model are chosen."""
    last = model.num_blocks - 1
    block = gr.Slider(
        *(0, max(last, 1), last),
        step=1,
        label="Block",
        visible=last > 0,
        elem_id=f"block-{number}",
    )
    heads = [str(head) for head in range(model.num_heads)]
    heads = [("mean of the heads", MEAN), *zip(heads, heads, strict=True)]
    return [block, gr.Radio(heads, value=MEAN, label="Head", elem_id=f"head-{number}")]


class Page:
    """The page of one model, or of several that see the same image.

    Args:
        models: the models.

    Raises:
        ImportError: if Gradio is not installed.
    """

    def __init__(self, models: Sequence[ExploredModel]):
        self.models = tuple(models)
        gr = self._gr = require("gradio", "The explorer", "explorer")
        with gr.Blocks(
            title="keras-vit explorer",
            analytics_enabled=False,
            delete_cache=_FILES,
            fill_width=True,
        ) as blocks:
            self.blocks: Any = blocks
            self._images = gr.State()
            with gr.Row():
                with gr.Column(scale=2, min_width=260):
                    self._add_controls()
                with gr.Column(scale=5, min_width=300), gr.Row():
                    self._panels = [self._panel(i) for i in range(len(self.models))]
            for one in self._panels:
                self._choices += one.choice
            self._listen()

    def _add_controls(self):
        gr = self._gr
        text(gr, HINT)
        self._file = gr.File(label="Image", elem_id="file", height=130)
        sizes = {(model.num_blocks, model.num_heads) for model in self.models}
        self._is_shared = len(sizes) == 1  # one block and head for all models
        # Block and head, of each model or of all.
        self._choices = choice(gr, self.models[0], 0) if self._is_shared else []
        self._place = [
            gr.Slider(0, 100, 50, step=0.01, label=label, elem_id=name)
            for name, label in (
                ("down", "Patch: % from the top"),
                ("across", "Patch: % from the left"),
            )
        ]

    def _panel(self, number):
        with self._gr.Column(min_width=260):
            return Panel(self._gr, self.models[number], number, not self._is_shared)

    # Events.

    def _listen(self):
        gr, state = self._gr, [self._images, *self._choices, *self._place]
        parts = [one for shown in self._panels for one in shown.parts.values()]
        opened = [self._images, *parts]
        self._file.upload(self._open, [self._file, *state[1:]], opened, **_EVENT)
        self._file.clear(self._close, None, opened, **_EVENT)
        inputs = [one.input for one in self._choices]
        gr.on(inputs, self._choose, state, parts, **_QUICK)
        inputs = [one.input for one in self._place]
        gr.on(inputs, self._move, state, parts, **_QUICK)
        for number, shown in enumerate(self._panels):
            shown.parts["patch"].select(
                self._clicked(number), state, [*self._place, *parts], **_QUICK
            )

    def _open(self, path, *state):
        try:
            images = tuple(model.open(path) for model in self.models)
        except (ValueError, OSError) as error:
            return self._without_image(" ".join(str(error).split()))
        shown = self._of_each(lambda i: panel.of_image(images[i]))
        return {self._images: images, **shown, **self._choose(images, *state)}

    def _close(self):
        return self._without_image()

    def _without_image(self, error=""):
        shown = self._of_each(lambda i: panel.without_image(error))
        return {self._images: None, **shown}

    def _choose(self, images, *state):
        if images is None:
            return self._gr.skip()
        choices, _ = self._chosen(state)
        shown = self._of_each(
            lambda i: panel.of_choice(self.models[i], images[i], choices[i])
        )
        return {**shown, **self._move(images, *state)}

    def _move(self, images, *state):
        if images is None:
            return self._gr.skip()
        choices, place = self._chosen(state)
        return self._of_patches(images, choices, place)

    def _clicked(self, number) -> Callable[..., Any]:
        """The function that answers a click in the picture of one of the models."""

        def clicked(images, event: self._gr.SelectData, *state):
            image, (choices, _) = images[number], self._chosen(state)
            place = image.view.place_at(event.index, image.picture.shape[:2])
            percents = (round(100 * share, 2) for share in place)
            moved = dict(zip(self._place, percents, strict=True))
            return {**moved, **self._of_patches(images, choices, place)}

        return clicked

    def _of_patches(self, images, choices, place):
        return self._of_each(
            lambda i: panel.of_patch(self.models[i], images[i], choices[i], place)
        )

    def _of_each(self, contents_of: Callable[[int], Contents]) -> dict[Any, Any]:
        """Values of the components of all models, from the contents of each."""
        shown = {}
        for number, one in enumerate(self._panels):
            shown |= one.values(contents_of(number))
        return shown

    def _chosen(self, state) -> tuple[list[Choice], Place]:
        """The choice for each model, and the place, from the values of the components."""
        *values, down, across = state
        pairs = zip(values[::2], values[1::2], strict=True)
        choices = [Choice(int(b), None if h == MEAN else int(h)) for b, h in pairs]
        if len(choices) < len(self.models):  # one for all
            choices *= len(self.models)
        return choices, Place(down / 100, across / 100)
