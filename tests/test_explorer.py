"""The explorer of attention: rows of maps for clicked pixels, the page, a real browser."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from helpers import assert_close, tiny
from PIL import Image

from keras_vit import BiTResNet, analysis
from keras_vit.analysis import TokenGrid
from keras_vit.cli import main
from keras_vit.data import Augmentation, Pipeline, load_images
from keras_vit.data.pipeline import evaluation_part
from keras_vit.explorer import ExploredModel, explore, explored_model, panel
from keras_vit.explorer.overlay import enlarged, overlay
from keras_vit.explorer.page import Page
from keras_vit.explorer.panel import Choice
from keras_vit.explorer.view import Place, View

one_backend = pytest.mark.one_backend


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A file with a picture that is wider than high."""
    path = tmp_path_factory.mktemp("pictures") / "<b>wide.png"
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3))
    Image.fromarray(pixels.astype("uint8")).save(path)
    return path


def saved(folder, name="m.keras", **fields):
    path = folder / name
    tiny(**fields).save(path)
    return path


# Places and patches.


def view(rows=2, columns=3, prefix=1, size=(16, 24), part=(0, 0, 1, 1), patch=(8, 8)):
    return View(TokenGrid(rows, columns, patch, prefix), size, part)


@one_backend
@pytest.mark.parametrize(
    ("pixel", "patch", "token"),
    [
        ((0, 0), (0, 0), 5),
        ((79, 0), (0, 0), 5),
        ((80, 0), (0, 1), 6),
        ((239, 159), (1, 2), 10),
    ],
)
def test_a_pixel_of_an_enlarged_picture_lies_in_a_patch(pixel, patch, token):
    seen = view(prefix=5)  # 160 × 240 pixels, patches of 80
    place = seen.place_at(pixel, (160, 240))
    assert seen.patch_at(place) == patch
    assert seen.token_at(place) == token
    assert seen.shows(place)


@one_backend
def test_each_pixel_lies_in_the_patch_that_its_colour_shows():
    """Also where patches do not cover the image: 20 × 29 pixels have 2 × 3 patches of 8."""
    seen = view(size=(20, 29))
    rows, columns = seen.patch_indices((40, 58))
    assert rows.tolist() == [0] * 16 + [1] * 16 + [-1] * 8
    assert columns.tolist() == [0] * 16 + [1] * 16 + [2] * 16 + [-1] * 10
    for y in (0, 15, 16, 31, 32, 39):
        for x in (0, 15, 16, 47, 48, 57):
            place = seen.place_at((x, y), (40, 58))
            assert seen.patch_at(place) == (min(y // 16, 1), min(x // 16, 2))


@one_backend
def test_a_place_is_the_same_in_two_models_that_crop_differently():
    """One sees the middle half of the width, the other the whole image."""
    middle, whole = view(part=(0, 0.25, 1, 0.75)), view()
    place = middle.place_at((0, 0), (16, 24))
    assert place == Place(0.5 / 16, 0.25 + 0.5 * 0.5 / 24)
    assert whole.patch_at(place) == (0, 0)
    assert whole.patch_at(middle.place_at((23, 15), (16, 24))) == (1, 2)
    outside = Place(0.1, 0.1)
    assert whole.shows(outside)
    assert not middle.shows(outside)
    assert middle.patch_at(outside) == (0, 0)  # the nearest


@one_backend
@pytest.mark.parametrize("shape", [(120, 60), (60, 120), (64, 64), (33, 70)])
@pytest.mark.parametrize("crop", ["resize", "square", "center"])
def test_the_part_of_an_image_is_what_its_crop_shows(crop, shape):
    """An image of its own coordinates, cropped, says where each pixel was."""
    pipeline = Pipeline(
        image_size=(16, 24),
        image_mean=None,
        image_std=None,
        augmentation=Augmentation(evaluation_crop=crop),
    )
    rows, columns = (255 * (np.arange(n) + 0.5) / n for n in shape)
    coordinates = np.zeros((*shape, 3), "float32")
    coordinates[..., 0], coordinates[..., 1] = rows[:, None], columns
    shown = load_images([coordinates], pipeline)[0] / 255
    seen = view(part=evaluation_part(shape, pipeline))
    for y, x in ((5, 4), (8, 12), (11, 19)):
        place = seen.place_at((x, y), (16, 24))
        np.testing.assert_allclose(place, shown[y, x, :2], atol=0.01)


# Pictures.


@one_backend
def test_an_overlay_colours_patches_by_weight_and_frames_one():
    weights = np.zeros((2, 3))
    weights[1, 2], weights[0, 1] = 0.4, 0.2
    grey = np.full((160, 240, 3), 100, "uint8")
    drawn = overlay(grey, weights, view(), (0, 0)).astype(int)
    red_above_blue = drawn[..., 0] - drawn[..., 2]
    tiles = red_above_blue.reshape(2, 80, 3, 80)[:, 20:60, :, 20:60]
    assert (tiles == tiles[:, :1, :, :1]).all()  # one colour in a patch
    shades = tiles[:, 0, :, 0]
    assert np.argwhere(shades == 0).tolist() == [[0, 0], [0, 2], [1, 0], [1, 1]]
    assert shades[1, 2] > 150
    assert abs(2 * shades[0, 1] - shades[1, 2]) <= 2
    white = np.argwhere((drawn == 255).all(-1))
    assert white.min(0).tolist() == [0, 0]
    assert white.max(0).tolist() == [79, 79]
    assert len(white) < 80 * 80 / 4


@one_backend
def test_an_overlay_of_a_map_of_zeros_is_grey():
    drawn = overlay(np.full((16, 24, 3), 200, "uint8"), np.zeros((2, 3)), view())
    assert len(np.unique(drawn)) == 1


@one_backend
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((32, 32, 3), (640, 640)),
        ((14, 28, 1), (322, 644)),
        ((224, 224, 3), (640, 640)),
        ((224, 112, 3), (640, 320)),
        ((728, 700, 3), (728, 700)),
    ],
)
def test_pictures_are_enlarged_and_small_ones_by_a_whole_number(shape, size):
    picture = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
    large = enlarged(picture)
    assert large.shape == (*size, 3)
    if max(shape) < 96:  # the pixels themselves
        np.testing.assert_array_equal(
            large[:: size[0] // shape[0], :: size[1] // shape[1]],
            np.broadcast_to(picture, (*shape[:2], 3)),
        )


# Rows of attention maps.

MODELS = {
    "token": ({}, ["class token"]),
    "registers": ({"num_registers": 2}, ["class token", "register 0", "register 1"]),
    "distilled": ({"distilled": True}, ["class token", "distillation token"]),
    "gap": ({"pooling": "gap", "class_token": False}, []),
    "two sides": ({"image_size": (16, 40)}, ["class token"]),
    "rotary": ({"rope": {"kind": "dinov3"}, "position": "none"}, ["class token"]),
    "merged": ({"merged_tokens": (2, 3)}, ["class token"]),
    "hybrid": (
        {"stem": {"num_units": (1, 1), "width_factor": 0.5}, "patch_size": 2},
        ["class token"],
    ),
    "channels first": ({"data_format": "channels_first"}, ["class token"]),
    "grey": ({"input_shape": (32, 32, 1)}, ["class token"]),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_clicked_patch_shows_its_row_of_the_attention_maps(kind, picture, tmp_path):
    fields, prefix = MODELS[kind]
    if "channels first" in kind:
        fields = {**fields, "input_shape": (3, 32, 32)}
    model = explored_model(saved(tmp_path, **fields))
    opened = model.open(picture)
    grid = opened.view.grid
    assert model.prefix_names == prefix
    assert grid.num_prefix == len(prefix)
    maps = analysis.attention_maps(model.explainer.model, opened.inputs)[:, 0]
    height, width = opened.picture.shape[:2]
    row, column = grid.rows - 1, grid.columns - 2
    # The middle of that patch in the picture.
    pixel = (width * (column + 0.5) // grid.columns, height * (row + 0.5) // grid.rows)
    token = opened.view.token_at(opened.view.place_at(pixel, (height, width)))
    assert token == len(prefix) + row * grid.columns + column
    for block in range(2):
        assert_close(model.row(opened, block, 1, token), maps[block, 1, token])
        mean = maps[block].mean(0)[token]
        assert_close(model.row(opened, block, None, token), mean)


@pytest.mark.parametrize("pooling", ["token", "map", "gap"])
def test_contents_of_the_page_are_those_of_the_analysis(pooling, picture, tmp_path):
    model = explored_model(saved(tmp_path, pooling=pooling, num_registers=1))
    opened = model.open(picture)
    inside, seen, inputs = model.explainer.model, opened.view, opened.inputs
    choice, place = Choice(0, 3), Place(0.9, 0.5)
    contents = panel.of_image(opened) | panel.of_choice(model, opened, choice)
    contents |= panel.of_patch(model, opened, choice, place)
    assert contents.keys() == set(panel.PARTS)
    if pooling == "token":  # of the block and the head that are chosen
        expected = analysis.class_attention(inside, inputs, 0)[0, 0, 3]
    elif pooling == "map":
        expected = analysis.pooling_attention(inside, inputs)[0].mean(0)
    else:
        expected = analysis.relevance(inside, inputs)[0]
    rollout = analysis.rollout_map(inside, inputs)[0]
    row = analysis.attention_maps(inside, inputs, 0)[0, 0, 3][seen.token_at(place)]
    pictures = {
        "class_map": overlay(opened.picture, expected, seen),
        "rollout": overlay(opened.picture, rollout, seen),
        "patch": overlay(opened.picture, seen.grid.maps(row), seen, seen.patch_at(place)),
    }
    for name, drawn in pictures.items():
        difference = np.abs(contents[name].astype(int) - drawn)
        assert difference.max() <= 1, name  # of 255, by rounding
    prefix = seen.grid.num_prefix
    for share in (row[prefix:].max(), row[seen.token_at(place)], *row[:prefix]):
        assert f"<strong>{100 * share:.1f} %</strong>" in contents["reading"]


@pytest.mark.parametrize("most_bytes", [0, 2 * 4 * 17**2 * 4, 2**20])
def test_maps_are_kept_within_a_number_of_bytes(most_bytes, picture, tmp_path):
    """None but the last, those of two blocks, all."""
    explainer = explored_model(saved(tmp_path, num_layers=4)).explainer
    model = ExploredModel("m", explainer, most_bytes)
    opened = model.open(picture)
    expected = analysis.attention_maps(explainer.model, opened.inputs)[:, 0]
    most = {0: 1, 2**20: 4}.get(most_bytes, 2)
    for block in (3, 0, 2, 0, 1):
        assert_close(model.row(opened, block, 2, 5), expected[block, 2, 5])
        assert len(model._maps) <= most
        assert block in model._maps
    again = model.open(picture)
    model.row(again, 3, 2, 5)
    assert len(model._maps) in (1, 4)  # of the first image there is none


def test_hostile_names_stay_text(picture, tmp_path):
    names = ["<img src=x onerror=alert(1)>", "${1+1}", "{{value}}", *map(str, range(7))]
    path = saved(tmp_path, "<i>m.keras", class_names=names)
    model = explored_model(path)
    texts = [panel.heading(model), panel.of_image(model.open(picture))["predictions"]]
    assert "<img" not in texts[1]
    assert "<i>" not in texts[0]
    assert "&lt;i&gt;m.keras" in texts[0]
    assert "&lt;b&gt;wide.png" in texts[1]


def test_models_without_a_head_predict_nothing(picture, tmp_path):
    model = explored_model(saved(tmp_path, classes=0))
    text = panel.of_image(model.open(picture))["predictions"]
    assert "no head" in text
    assert "%" not in text


def test_models_without_attention_are_refused(tmp_path):
    model = BiTResNet(32, num_units=(1, 1, 1, 1), width_factor=0.5, classes=3)
    model.save(tmp_path / "bit.keras")
    with pytest.raises(ValueError, match="Received: model=BiTResNet"):
        explored_model(tmp_path / "bit.keras")


# The page.


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    """Models of other depths, heads, patches and parts of the image."""
    folder = tmp_path_factory.mktemp("models")
    names = ["<b>bold</b>", "{{value}}", "${1 + 1}", *map(str, range(7))]
    first = saved(folder, "first.keras", num_registers=2, class_names=names)
    whole = {"evaluation_crop": "resize"}
    second = saved(
        folder,
        "second.keras",
        image_size=(16, 24),
        num_layers=3,
        num_heads=3,
        preprocessing=whole,
    )
    return first, second


@pytest.fixture
def gradio():
    return pytest.importorskip("gradio", reason="the explorer needs Gradio")


@one_backend
def test_a_click_in_one_picture_moves_the_patch_of_both_models(gradio, two_models, picture):
    models = [explored_model(path) for path in two_models]
    page = Page(models)
    state = [1, "mean", 2, "0", 50, 50]  # block and head of each, place
    opened = page._open(picture, *state)
    images = opened[page._images]
    # The picture is 30 × 50, of which the first model sees the middle.
    assert [seen.view.part for seen in images][1] == (0, 0, 1, 1)
    event = gradio.SelectData(None, {"index": [0, 639], "value": None})  # bottom left
    moved = page._clicked(0)(images, event, *state)
    first, second = (one.parts for one in page._panels)
    down, across = (moved[slider] / 100 for slider in page._place)
    place = Place(down, across)
    assert images[0].view.patch_at(place) == (3, 0)
    assert images[1].view.patch_at(place) == (1, 0 if across < 1 / 3 else 1)
    choices = Choice(1, None), Choice(2, 0)
    for i, parts in enumerate((first, second)):
        expected = panel.of_patch(models[i], images[i], choices[i], place)
        np.testing.assert_array_equal(moved[parts["patch"]], expected["patch"])
        assert moved[parts["reading"]] == expected["reading"]
    # The same by the sliders; and another block, of one model alone.
    same = page._move(images, *state[:4], 100 * down, 100 * across)
    assert same[first["reading"]] == moved[first["reading"]]
    other = page._choose(images, 0, *state[1:4], 100 * down, 100 * across)
    assert other[first["reading"]] != moved[first["reading"]]
    assert other[second["reading"]] == moved[second["reading"]]
    assert (other[first["class_map"]] != opened[first["class_map"]]).any()


@one_backend
def test_models_with_as_many_blocks_and_heads_share_the_choice(gradio, two_models, picture):
    first, second = two_models
    alike = Page([explored_model(first), explored_model(first)])
    assert len(alike._choices) == 2
    shown = alike._open(picture, 0, "1", 10, 10)
    left, right = (one.parts["reading"] for one in alike._panels)
    assert shown[left] == shown[right]
    assert len(Page([explored_model(first), explored_model(second)])._choices) == 4


@one_backend
def test_a_file_that_is_no_image_is_told_on_the_page(gradio, two_models, tmp_path):
    page = Page([explored_model(two_models[0])])
    (tmp_path / "<i>.png").write_bytes(b"no image")
    shown = page._open(tmp_path / "<i>.png", 0, "mean", 50, 50)
    assert shown[page._images] is None
    parts = page._panels[0].parts
    assert shown[parts["patch"]] is None
    assert "Cannot read the image &#x27;&lt;i&gt;.png&#x27;" in shown[parts["predictions"]]
    # Controls are moved before there is an image.
    assert page._choose(None, 0, "mean", 50, 50) == gradio.skip()
    assert page._move(None, 0, "mean", 50, 50) == gradio.skip()


@one_backend
def test_a_model_of_averaged_tokens_without_a_head_has_a_page(gradio, tmp_path, picture):
    fields = {"classes": 0, "pooling": None, "class_token": False, "num_layers": 1}
    page = Page([explored_model(saved(tmp_path, **fields))])
    shown = page._open(picture, 0, "mean", 50, 50)
    assert shown.keys() == {page._images, *page._panels[0].parts.values()}
    assert set(page._panels[0].parts) == {"patch", "reading", "predictions"}


# The server.


@one_backend
@pytest.mark.parametrize("module", ["gradio", "uvicorn"])
def test_without_gradio_it_is_said_how_to_install_it(module, monkeypatch, two_models):
    if module == "uvicorn":
        pytest.importorskip("gradio")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'keras-vit\[explorer\]'"):
        explore(two_models[0], port=0)


@one_backend
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--serve", "--output", "x"], "`--serve` writes nothing"),
        (["--serve", "--json"], "Received: `--json`"),
        (["a.png", "--output", "x", "--port", "80"], "`--port` is for `--serve`"),
        (["a.png", "--open"], "`--open` is for `--serve`"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, reason, capsys):
    assert main(["explain", "m.keras", *options]) == 2
    assert reason in capsys.readouterr().err


@one_backend
def test_images_are_needed_only_without_serve(capsys):
    with pytest.raises(SystemExit):
        main(["explain", "m.keras", "--output", "x"])
    assert "required: IMAGE" in capsys.readouterr().err


@one_backend
def test_a_port_that_is_taken_is_refused(gradio, two_models, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["explain", str(two_models[0]), "--serve", "--port", str(port)]) == 2
    assert f"--port {port}, on which another program listens" in capsys.readouterr().err


@pytest.fixture(scope="module")
def served(two_models, tmp_path_factory):
    """The address of `keras-vit explain A --serve B`, which Ctrl-C ends."""
    pytest.importorskip("gradio", reason="the explorer needs Gradio")
    temporary = tmp_path_factory.mktemp("temporary")
    first, second = map(str, two_models)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "keras_vit"),
            *("explain", first, "--serve", "--port", "0", second),
        ],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("page  http://127.0.0.1:"), process.stderr.read()
        assert list(temporary.glob("keras-vit-*"))
        yield line.split()[1]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, "keras-vit: interrupted\n")
        assert not list(temporary.glob("keras-vit-*"))
    finally:
        process.kill()
        process.wait()


@one_backend
def test_the_page_is_for_this_machine_alone(served):
    with urllib.request.urlopen(served) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self' data: blob:;")
    # A page of another host, whose name leads to this machine.
    foreign = urllib.request.Request(served, headers={"Host": "example.org"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(foreign)


@pytest.fixture
def browser():
    """Chromium without a window, that keeps its console and its requests."""
    selenium = pytest.importorskip(
        "selenium.webdriver", reason="selenium drives the browser"
    )
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("chromium and chromedriver are not installed")
    options = selenium.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1200,1400")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield found
    found.quit()


def requests_of(browser):
    """Addresses that the browser has asked."""
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            yield message["params"]["request"]["url"]


@one_backend
def test_a_patch_is_clicked_in_a_browser(served, browser, picture, two_models):
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def find(selector):
        return browser.find_element(By.CSS_SELECTOR, selector)

    def until(condition):
        # An element may be replaced while it is read.
        wait = WebDriverWait(browser, 60, 0.1, [StaleElementReferenceException])
        return wait.until(lambda _: condition())

    def shown(number):
        found = browser.find_elements(By.CSS_SELECTOR, f"#patch-{number} img")
        return found and found[0].get_attribute("src")

    def click(column, row):
        """Clicks the middle of a patch in the first picture, which has 4 × 4."""
        image = find("#patch-0 img")
        width, height = image.size["width"], image.size["height"]
        offset = (round(width * (column - 1.5) / 4), round(height * (row - 1.5) / 4))
        move = ActionChains(browser).move_to_element_with_offset(image, *offset)
        move.click().perform()

    def changes(act):
        """Does something that changes the first picture; the text beside it."""
        before = shown(0)
        act()
        until(lambda: shown(0) not in (None, before))
        return find("#reading-0").text

    browser.get(served)
    until(lambda: browser.find_elements(By.CSS_SELECTOR, "#file input[type=file]"))
    changes(lambda: find("#file input[type=file]").send_keys(str(picture)))
    until(lambda: shown(1))
    # Names are text: of classes, models and the image.
    text = find("body").text
    assert "Prediction of bwide.png" in text  # the file's name on this side
    assert "<b>wide" in text
    models = [explored_model(path) for path in two_models]
    opened = [model.open(picture) for model in models]
    for row in opened[0].explanation.prediction.classes:
        assert row.name in text
        assert f"{100 * row.probability:.1f} %" in text

    # A click on the patch in row 0 and column 3, of four.
    assert changes(lambda: click(3, 0)).startswith("Patch 0, 3 (row, column)")
    other = opened[1].view.patch_at(opened[0].view.place_at((560, 80), (640, 640)))
    reading = "Patch {}, {} (row, column)".format(*other)
    until(lambda: find("#reading-1").text.startswith(reading))

    def numbers(block, head):
        row = models[0].row(opened[0], block, head, 3 + 3)
        return [f"{100 * row[token]:.1f} %" for token in (3 + 3, 0, 1, 2)]

    def told():
        shares = browser.find_elements(By.CSS_SELECTOR, "#reading-0 li strong")
        return [share.text for share in shares][1:]

    assert told() == numbers(1, None)
    head = find("#head-0 input[value='2']")
    changes(lambda: browser.execute_script("arguments[0].click()", head))
    assert told() == numbers(1, 2)
    block = find("#block-0 input[type=number]")
    changes(lambda: block.send_keys("\ue003" * 3 + "0\ue007"))  # backspaces, 0, enter
    assert told() == numbers(0, 2)

    browser.set_window_size(2600, 1400)  # where pictures are narrower than their boxes
    assert changes(lambda: click(0, 3)).startswith("Patch 3, 0 (row, column)")
    assert changes(lambda: click(3, 3)).startswith("Patch 3, 3 (row, column)")

    hosts = {url.split("/")[2] for url in requests_of(browser) if url.startswith("http")}
    assert hosts == {served.split("/")[2]}
    severe = [one for one in browser.get_log("browser") if one["level"] == "SEVERE"]
    assert severe == []
