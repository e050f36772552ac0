"""The explorer's server: one page, on this machine, for this machine."""

import errno
import os
import signal
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from keras_vit.data.packages import tensorflow
from keras_vit.explorer.explored import explored_model
from keras_vit.explorer.page import Page
from keras_vit.extras import require
from keras_vit.report.markup import style

HOST = "127.0.0.1"
PORTS = range(7860, 7960)  # of which the first free one is taken
# The browser asks no other host, whatever the page says.
_POLICY = (
    "default-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "form-action 'self'; frame-ancestors 'none'"
)
_SECONDS = 1  # for answers that are under way when the server ends


def explore(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    port: int | None = None,
    open_browser: bool = False,
    on_start: Callable[[str], None] = print,
    **options: Any,
) -> None:
    """Serves a page in which a model's attention is explored, until it is interrupted.

    An image is dropped on the page; a click on a patch shows what the patch attends to, in
    any block and head, beside the map of what the head reads and attention rollout. Two
    models are shown side by side, for the same image and the same place in it. The page is
    reached from this machine alone, and asks no other.

    Args:
        sources: the folder of a run, or anything that `keras_vit.from_pretrained` takes;
            or several of them.
        port: port of the page; `None` for the first free one from 7860 on.
        open_browser: whether to open the page in the browser.
        on_start: called with the address when the page can be opened.
        **options: arguments of `runs.load_explainer`, such as `class_index`.

    Raises:
        ImportError: if Gradio is not installed, or the packages that read images.
        FileNotFoundError: if a checkpoint does not exist.
        ValueError: if a model has no attention, or an argument is out of range.
        OSError: if the port is taken.
        KeyboardInterrupt: when it is interrupted.
        SystemExit: with 143, when it is terminated (SIGTERM).

    Example:

    >>> keras_vit.explorer.explore(["runs/before", "runs/after"])
    """
    if isinstance(sources, str | os.PathLike):
        sources = [sources]
    if not sources:
        raise ValueError("`sources` must be at least one model. Received: none")
    require("gradio", "The explorer", "explorer")
    tensorflow()  # reads images; missing packages are told before models are loaded
    with _listening(port) as listener, _termination_raised(), _own_folder():
        models = [explored_model(source, **options) for source in sources]
        address = f"http://{HOST}:{listener.getsockname()[1]}"

        def started():
            on_start(address)
            if open_browser:
                webbrowser.open(address)

        _serve(_app(Page(models), listener), listener, started)


def _serve(app, listener, on_start):
    """Serves an app on a socket until it is interrupted."""
    uvicorn = require("uvicorn", "The explorer", "explorer")
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_SECONDS)

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            on_start()

    Server(config).run(sockets=[listener])


def _app(page, listener):
    gr = require("gradio", "The explorer", "explorer")
    fastapi = require("fastapi", "The explorer", "explorer")
    hosts = require("starlette.middleware.trustedhost", "The explorer", "explorer")
    app = fastapi.FastAPI(openapi_url=None)
    # A name of another host that leads here would give its pages what this one gets.
    allowed = [HOST, "localhost"]
    app.add_middleware(hosts.TrustedHostMiddleware, allowed_hosts=allowed)

    @app.middleware("http")
    async def with_policy(request, call_next):
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
    app = gr.mount_gradio_app(
        app,
        page.blocks,
        "/",
        server_name=HOST,
        server_port=listener.getsockname()[1],
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        show_error=False,
        theme=gr.themes.Default(**fonts),
        css=style("explorer"),
    )
    return app


@contextmanager
def _listening(port: int | None) -> Iterator[socket.socket]:
    """A socket that is bound to a port of this machine.

    Raises:
        OSError: if the port is taken, or all of `PORTS` are.
    """
    with socket.socket() as listener:
        # As servers do: a port that has just been used is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for candidate in PORTS if port is None else [port]:
            try:
                listener.bind((HOST, candidate))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                yield listener
                return
        if port is None:
            port = f"{PORTS[0]} to {PORTS[-1]}"
        raise OSError(
            f"`port` must be free. Received: port={port}, on which another program "
            "listens. Give another, or port=0 for any that is free."
        )


@contextmanager
def _termination_raised() -> Iterator[None]:
    """Makes SIGTERM raise `SystemExit`, so that what is open is closed.

    The server catches it while it runs, and sends it again when it has ended.
    """

    def ended(number, frame):
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set what signals do
        return
    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _own_folder() -> Iterator[None]:
    """Makes Gradio keep images in a folder that goes with the server."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(
        prefix="keras-vit-", ignore_cleanup_errors=True
    ) as own:
        os.environ["GRADIO_TEMP_DIR"] = own
        try:
            yield
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before
