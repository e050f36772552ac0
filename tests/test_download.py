"""Downloads from servers on loopback, most of which do something wrong."""

import base64
import collections
import dataclasses
import datetime
import email.utils
import errno
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

import keras_vit
from keras_vit.download import retry, web
from keras_vit.download.cache import fetch

pytestmark = pytest.mark.one_backend

CONTENT = bytes(range(256)) * 1000
OTHER = CONTENT[::-1]
COMMIT = "c0ffee" * 6 + "abcd"
NO_ENTRY = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Imports the downloader without Keras, which would take seconds.
FETCH = f"""
import sys, types
sys.modules["keras_vit"] = types.ModuleType("keras_vit")
sys.modules["keras_vit"].__path__ = [{os.path.dirname(keras_vit.__file__)!r}]
from keras_vit.download.cache import fetch
print("ready", flush=True)
sys.stdin.readline()
print(fetch(sys.argv[1]))
"""


@dataclasses.dataclass
class Answer:
    content: bytes = CONTENT
    headers: dict = dataclasses.field(default_factory=dict)
    status: int = 200
    cut: int | None = None  # bytes after which the line is cut
    ranges: bool = True
    length: bool = True
    wait: threading.Event | None = None
    range_headers: dict = dataclasses.field(default_factory=dict)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if not self.path.startswith("/api/"):  # The hub's library reports its host.
            self.server.requests.append(self.headers)
        answers = self.server.answers.get(self.path)
        if not answers:
            return self.reply(404, NO_ENTRY if "/resolve/" in self.path else {}, b"")
        answer = answers.popleft() if len(answers) > 1 else answers[0]
        if answer.wait:
            answer.wait.wait(10)
        if answer.status != 200:
            return self.reply(answer.status, answer.headers, b"")
        offset = self.offset(answer)
        if offset is None:
            return self.reply(200, answer.headers, answer.content, answer)
        size = len(answer.content)
        if offset >= size:
            return self.reply(416, answer.headers, b"")
        place = {"Content-Range": f"bytes {offset}-{size - 1}/{size}"}
        headers = {**answer.headers, **place, **answer.range_headers}
        bounds = re.fullmatch(r"bytes (\d+)-(\d+)/.*", headers["Content-Range"])
        start, end = map(int, bounds.groups()) if bounds else (0, size)
        return self.reply(206, headers, answer.content[start : end + 1], answer)

    do_HEAD = do_GET  # noqa: N815

    def offset(self, answer):
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, answer.headers.get("ETag"))
        return int(asked[6:-1]) if asked and answer.ranges and same else None

    def reply(self, status, headers, content, answer=None):
        answer = answer or Answer()
        self.send_response(status)
        for name, value in headers.items():
            for line in value if isinstance(value, list) else [value]:
                self.send_header(name, line)
        if answer.length:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: answer.cut])

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    """Gives the answers to a path one after the other, the last one again and again."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.requests = []
        self.answers = {}

    def serve(self, path, *answers):
        self.answers[path] = collections.deque(answers)
        return self.address + path

    def asked(self, header="Range"):
        """Values of a header in the requests."""
        return [headers.get(header) for headers in self.requests]


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("KERAS_VIT_OFFLINE", raising=False)
    return tmp_path / "keras" / "keras_vit"


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The pauses between attempts, none of which takes any time. Pieces are small."""
    pauses = []
    monkeypatch.setattr(retry, "_sleep", pauses.append)
    monkeypatch.setattr(web, "_BLOCK", 500)
    return pauses


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def md5(content):
    return "md5=" + base64.b64encode(hashlib.md5(content).digest()).decode()


def files(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


def parts(folder):
    return [name for name in files(folder) if ".part" in name]


# Addresses and names.


def test_a_file_is_downloaded_once_and_recorded(server, cache):
    address = server.serve("/some/folder/vit.npz", Answer())
    path = fetch(address)
    assert Path(path) == cache / f"127.0.0.1_{server.server_port}/some/folder/vit.npz"
    assert Path(path).read_bytes() == CONTENT
    assert Path(f"{path}.sha256").read_text() == f"{sha256(CONTENT)}  vit.npz\n"
    assert fetch(address) == path
    assert len(server.requests) == 1
    assert parts(cache) == []


def test_a_cached_file_needs_no_server(server, cache):
    address = server.serve("/vit.npz", Answer())
    path = fetch(address)
    server.shutdown()
    server.server_close()
    assert fetch(address) == path


def test_google_storage(monkeypatch, cache):
    asked = []
    monkeypatch.setattr(
        "keras_vit.download.web.download",
        lambda address, path: asked.append((address, path)),
    )
    path = fetch("gs://vit_models/augreg/Ti_16-i21k+x y.npz")
    expected = "https://storage.googleapis.com/vit_models/augreg/Ti_16-i21k%2Bx%20y.npz"
    assert asked == [(expected, path)]
    folder = cache / "storage.googleapis.com/vit_models/augreg"
    assert Path(path) == folder / "Ti_16-i21k+x y.npz"
    assert fetch(expected) == path


def test_what_distinguishes_files(server, cache):
    """Queries and encoded slashes do, fragments do not."""
    names = ["/f?id=1", "/f?id=2", "/f", "/a%2Ff", "/a/f", "/a%252Ff", "/a%5C..%5Cf"]
    for number, name in enumerate(names):
        server.serve(name, Answer(str(number).encode()))
    paths = [fetch(server.address + name) for name in names]
    assert len(set(paths)) == len(names)
    for number, path in enumerate(paths):
        assert Path(path).read_text() == str(number)
        assert cache in Path(path).resolve().parents
    assert fetch(server.address + "/f#part") == paths[2]
    assert [os.path.basename(path) for path in paths[3:]] == [
        *("a%2Ff", "f", "a%252Ff", "a%5C..%5Cf")
    ]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "s3://bucket/vit.npz",
            "must begin with https://, http:// or gs://.*Received: 's3:",
        ),
        ("HTTPS://host/vit.npz", "must begin with"),
        ("hf://vit", "hf://owner/name.*Received: 'hf://vit'"),
        ("hf://../name", "hf://owner/name"),
        ("hf://owner/name@../main", "must be a name"),
        ("hf://owner/name@..%2F..%2Fmain", "must be a name"),
        ("hf://owner/name/../../vit.npz", "must be a name"),
        ("hf://owner/name//vit.npz", "must be a name"),
        ("http://host", "must be a name"),
        ("http://host/", "must be a name"),
        ("http://host/folder/", "must be a name.*Received: 'http://host/folder/'"),
        ("http://host//vit.npz", "must be a name"),
        ("http://host/../vit.npz", "must be a name"),
        ("http://host/%2e%2E/vit.npz", "must be a name"),
        ("http://host/a%00.npz", "must be a name"),
        ("http://../vit.npz", "must be a name"),
        ("gs://../vit.npz", "must be a name"),
        ("gs://bucket/../../vit.npz", "must be a name"),
        ("gs://bucket/", "must be a name"),
        ("gs://bucket", "must begin with"),
        (r"hf://owner/name@..\..\main", "hold none of"),
        ("http:///vit.npz", "must name a host"),
        ("http://host:port/vit.npz", "must name a host"),
        ("http://me:secret@host/vit.npz", r"must name a host.*//…@host/vit.npz"),
        ("http://host/vit.npz.sha256", "reserved for the cache"),
        ("http://host/vit.npz.part.json", "reserved for the cache"),
    ],
)
def test_addresses_that_are_refused(address, message, cache):
    with pytest.raises(ValueError, match=message) as caught:
        fetch(address)
    assert "secret" not in str(caught.value)
    assert not cache.parent.exists()


# Lines that break and servers that stumble.


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(status, server, cache, pauses):
    address = server.serve("/vit.npz", Answer(status=status))
    message = rf"{address} could not be downloaded: .*{status} .*give its path"
    with pytest.raises(ConnectionError, match=message):
        fetch(address)
    assert len(server.requests) == 1
    assert pauses == []
    assert [name for name in files(cache) if not name.endswith(".lock")] == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_says_where_credentials_belong(status, server):
    address = server.serve("/vit.npz", Answer(status=status))
    with pytest.raises(
        ConnectionError, match=r"license.*\.netrc.*HF_TOKEN if its address is hf://owner"
    ):
        fetch(address)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_server_that_stumbles(status, server, pauses):
    address = server.serve("/vit.npz", Answer(status=status), Answer(status=503), Answer())
    assert Path(fetch(address)).read_bytes() == CONTENT
    first, second = pauses
    assert 0.25 <= first <= 0.75
    assert 0.5 <= second <= 1.5


def test_a_server_that_lies_down(server, pauses):
    address = server.serve("/vit.npz", Answer(status=503))
    with pytest.raises(ConnectionError, match="answered 503 Service Unavailable"):
        fetch(address)
    assert len(server.requests) == 5
    assert len(pauses) == 4


def test_no_server_at_all(server, pauses):
    address = server.serve("/vit.npz")
    server.server_close()
    with pytest.raises(
        ConnectionError, match="could not be downloaded: .*refused"
    ) as caught:
        fetch(address)
    assert caught.value.__cause__ is not None
    assert len(pauses) == 4


def test_the_server_says_when_to_come_back(server, pauses):
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=20)
    times = ["7", "86400", email.utils.format_datetime(soon, usegmt=True), "tomorrow"]
    answers = [Answer(status=429, headers={"Retry-After": time}) for time in times]
    fetch(server.serve("/vit.npz", *answers, Answer()))
    assert pauses[:2] == [7, 60]
    assert 15 < pauses[2] <= 20
    assert 2 <= pauses[3] <= 6


VALIDATORS = [
    {"ETag": '"one"'},
    {"x-goog-generation": "1234"},
    {"ETag": '"one"', "x-goog-generation": "1234", "x-goog-hash": md5(CONTENT)},
]


@pytest.mark.parametrize("headers", VALIDATORS)
def test_a_broken_line_is_resumed(headers, server, cache):
    cuts = [Answer(headers=headers, cut=cut) for cut in (100_000, 50_000)]
    address = server.serve("/vit.npz", *cuts, Answer(headers=headers))
    assert Path(fetch(address)).read_bytes() == CONTENT
    assert server.asked() == [None, "bytes=100000-", "bytes=150000-"]
    assert server.asked("If-Range")[1:] == [headers.get("ETag")] * 2
    assert parts(cache) == []


def test_the_next_process_goes_on(server, cache):
    headers = {"ETag": '"one"'}
    cut = [Answer(headers=headers, cut=1000) for _ in range(5)]
    address = server.serve("/vit.npz", *cut, Answer(headers=headers))
    with pytest.raises(ConnectionError, match="Connection broken"):
        fetch(address)
    assert parts(cache) == ["vit.npz.part", "vit.npz.part.json"]
    assert Path(fetch(address)).read_bytes() == CONTENT
    assert server.asked()[-1] == "bytes=5000-"


def test_a_truncated_file_is_never_taken(server, cache):
    address = server.serve("/vit.npz", Answer(cut=1000))
    with pytest.raises(ConnectionError, match="could not be downloaded"):
        fetch(address)
    assert len(server.requests) == 5
    assert "vit.npz" not in files(cache)


NEW = {"ETag": '"two"', "x-goog-generation": "2"}
STARTS_OVER = {
    "the server ignores ranges": Answer(ranges=False),
    "the file changed": Answer(OTHER, NEW),
    "the file changed, yet it is continued": Answer(OTHER, range_headers=NEW),
    "it became longer": Answer(OTHER + b"more"),
    "it became shorter": Answer(b"short"),
    "another range": Answer(range_headers={"Content-Range": "bytes 7-255999/256000"}),
    "an incomplete range": Answer(
        range_headers={"Content-Range": "bytes 1000-1001/256000"}
    ),
    "no range": Answer(range_headers={"Content-Range": "all of it"}),
}


@pytest.mark.parametrize("case", STARTS_OVER)
def test_a_part_of_something_else_is_given_up(case, server, cache):
    headers = {"ETag": '"one"', "x-goog-generation": "1"}
    answer = STARTS_OVER[case]
    answer = dataclasses.replace(answer, headers=answer.headers or headers)
    address = server.serve("/vit.npz", Answer(headers=headers, cut=1000), answer)
    assert Path(fetch(address)).read_bytes() == answer.content
    assert server.asked()[:2] == [None, "bytes=1000-"]
    assert parts(cache) == []


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"one"'}])
def test_without_a_validator_nothing_is_resumed(headers, server):
    broken = Answer(OTHER, headers, cut=1000)
    address = server.serve("/vit.npz", broken, Answer(headers=headers))
    assert Path(fetch(address)).read_bytes() == CONTENT
    assert server.asked() == [None, None]


def test_a_note_that_is_damaged(server, cache):
    headers = {"ETag": '"one"'}
    cut = [Answer(headers=headers, cut=1000) for _ in range(5)]
    address = server.serve("/vit.npz", *cut, Answer(headers=headers))
    with pytest.raises(ConnectionError):
        fetch(address)
    (note,) = cache.rglob("*.part.json")
    note.write_text('{"etag": ')
    assert Path(fetch(address)).read_bytes() == CONTENT
    assert server.asked()[-1] is None


def test_a_file_of_unknown_length(server):
    path = fetch(server.serve("/vit.npz", Answer(length=False)))
    assert Path(path).read_bytes() == CONTENT


def test_a_redirection(server):
    target = server.serve("/elsewhere", Answer())
    moved = {"Location": target, "X-Linked-ETag": f'"{sha256(CONTENT)}"'}
    address = server.serve("/vit.npz", Answer(status=302, headers=moved))
    assert fetch(address).endswith("/vit.npz")
    server.serve("/elsewhere", Answer(OTHER))
    address = server.serve("/other.npz", Answer(status=302, headers=moved))
    with pytest.raises(ConnectionError, match=f"{sha256(OTHER)}, where.*{sha256(CONTENT)}"):
        fetch(address)


# Digests.


def test_a_damaged_download_is_repeated(server, cache):
    headers = {"x-goog-hash": ["crc32c=AAAAAA==", md5(CONTENT)], "ETag": '"one"'}
    address = server.serve("/vit.npz", Answer(OTHER, headers), Answer(headers=headers))
    assert Path(fetch(address)).read_bytes() == CONTENT
    assert server.asked() == [None, None]


@pytest.mark.parametrize(
    "join", [lambda *values: list(values), lambda *values: ", ".join(values)]
)
def test_a_wrong_digest(join, server, cache):
    headers = {"x-goog-hash": join("crc32c=AAAAAA==", md5(OTHER)), "ETag": '"one"'}
    address = server.serve("/vit.npz", Answer(headers=headers))
    expected, received = hashlib.md5(OTHER).hexdigest(), hashlib.md5(CONTENT).hexdigest()
    message = f"its md5 is {received}, where the server .x-goog-hash. says {expected}"
    with pytest.raises(ConnectionError, match=message):
        fetch(address)
    assert len(server.requests) == 5
    assert files(cache) in ([], ["vit.npz.lock"])


def test_what_google_stores_compressed_has_another_digest(server):
    headers = {"x-goog-hash": md5(OTHER), "x-goog-stored-content-encoding": "gzip"}
    assert fetch(server.serve("/vit.npz", Answer(headers=headers)))


@pytest.mark.parametrize(
    ("module", "name"), [("google_crc32c", "Checksum"), ("crc32c", "CRC32CHash")]
)
def test_crc32c_if_a_module_computes_it(module, name, server, monkeypatch):
    class Checksum:
        def update(self, data):
            pass

        def digest(self):
            return b"abcd"

    for missing in ("google_crc32c", "crc32c"):
        monkeypatch.setitem(sys.modules, missing, None)
    wrong = {"x-goog-hash": "crc32c=AAAAAA=="}
    assert fetch(server.serve("/unchecked.npz", Answer(headers=wrong)))
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{name: Checksum}))
    right = {"x-goog-hash": "crc32c=" + base64.b64encode(b"abcd").decode()}
    assert fetch(server.serve("/right.npz", Answer(headers=right)))
    with pytest.raises(
        ConnectionError, match="its crc32c is 61626364, where.*says 00000000"
    ):
        fetch(server.serve("/wrong.npz", Answer(headers=wrong)))


def test_names_that_tell_a_digest(server):
    value = sha256(CONTENT)
    for name in (
        f"vit-{value[:8]}.pth",
        f"vit-{value}.pth",
        "vit-20240131.pth",
        "vit-tiny.pth",
    ):
        assert fetch(server.serve(f"/{name}", Answer()))
    with pytest.raises(
        ConnectionError, match=f"sha256 is {value}, where the file's name says 0123abcd"
    ):
        fetch(server.serve("/vit-0123abcd.pth", Answer()))


def test_a_name_and_a_cached_file_without_a_record(server):
    address = server.serve(f"/vit-{sha256(CONTENT)[:8]}.pth", Answer())
    path = Path(fetch(address))
    path.write_bytes(OTHER)
    Path(f"{path}.sha256").unlink()
    with pytest.raises(ValueError, match=f"{sha256(OTHER)}, where the file's name says"):
        fetch(address)


def test_a_cached_file_that_changed(server):
    address = server.serve("/vit.npz", Answer())
    path = Path(fetch(address))
    path.write_bytes(OTHER)
    message = rf"{path}' is damaged or was changed.*{sha256(OTHER)}, where.*{sha256(CONTENT)}.*Delete it .*{path}.sha256"
    with pytest.raises(ValueError, match=message):
        fetch(address)
    assert len(server.requests) == 1
    path.unlink()
    Path(f"{path}.sha256").unlink()
    assert fetch(address) == str(path)
    assert path.read_bytes() == CONTENT


def test_a_record_is_kept_to(server):
    """Also by a download: a record may be put there before the file."""
    address = server.serve("/vit.npz", Answer())
    path = Path(fetch(address))
    path.unlink()
    server.serve("/vit.npz", Answer(OTHER))
    with pytest.raises(ConnectionError, match=f"the record .*says {sha256(CONTENT)}"):
        fetch(address)


def test_a_file_without_a_record(server):
    address = server.serve("/vit.npz", Answer())
    path = Path(fetch(address))
    record = Path(f"{path}.sha256")
    record.unlink()
    assert fetch(address) == str(path)
    assert record.read_text().startswith(sha256(CONTENT))
    record.write_text("nonsense")
    with pytest.raises(ValueError, match="64 hexadecimal digits. Received: 'nonsense'"):
        fetch(address)


def test_a_file_without_a_record_in_a_folder_that_cannot_be_written(server, monkeypatch):
    address = server.serve("/vit.npz", Answer())
    path = fetch(address)
    os.remove(f"{path}.sha256")
    monkeypatch.setattr(os, "replace", refuse)
    assert fetch(address) == path
    assert files(Path(path).parent) in (["vit.npz"], ["vit.npz", "vit.npz.lock"])


def refuse(*arguments):
    raise PermissionError(13, "Permission denied")


def test_a_cache_that_cannot_be_written(server, cache, monkeypatch):
    address = server.serve("/vit.npz", Answer())
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        fetch(address)
    assert not {"vit.npz", "vit.npz.sha256"} & set(files(cache))
    monkeypatch.setenv("KERAS_HOME", os.devnull)
    with pytest.raises(NotADirectoryError):
        fetch(address)


def test_a_disk_that_is_full(server, cache, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(path, mode="r", **options):
        return Full(path, mode) if mode == "ab" else open(path, mode, **options)

    monkeypatch.setattr(web, "open", full, raising=False)
    with pytest.raises(OSError, match="No space left") as caught:
        fetch(server.serve("/vit.npz", Answer()))
    assert not isinstance(caught.value, ConnectionError)
    assert not {"vit.npz", "vit.npz.sha256"} & set(files(cache))
    assert len(server.requests) == 1


def test_the_cache_is_where_keras_has_its_own(tmp_path, server, monkeypatch):
    address = server.serve("/vit.npz", Answer())
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    folder = f"127.0.0.1_{server.server_port}"
    assert Path(fetch(address)) == tmp_path / ".keras/keras_vit" / folder / "vit.npz"


# Processes, the terminal and the network that is forbidden.


def start(address, **environment):
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_importing_imports_no_library():
    libraries = ("filelock", "huggingface_hub", "requests", "tqdm")
    code = (
        FETCH.partition("print")[0] + f"print([n for n in {libraries} if n in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert output.stdout == "[]\n", output.stderr


def test_two_processes_want_the_same_file(server):
    go_on = threading.Event()
    address = server.serve("/vit.npz", Answer(wait=go_on))
    processes = [start(address), start(address)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    threading.Timer(0.3, go_on.set).start()
    outputs = [process.communicate(timeout=20) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0] == outputs[1]  # no progress bar, stderr is no terminal
    assert Path(outputs[0][0].strip()).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_progress_bar_on_a_terminal(server, monkeypatch, capsys):
    fetch(server.serve("/quiet.npz", Answer()))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fetch(server.serve("/vit.npz", Answer()))
    assert "vit.npz: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_the_network_is_forbidden(value, server, cache, monkeypatch):
    cached = server.serve("/cached.npz", Answer())
    path = fetch(cached)
    monkeypatch.setenv("KERAS_VIT_OFFLINE", value)
    assert fetch(cached) == path
    address = server.serve("/vit.npz", Answer())
    place = os.path.join(os.path.dirname(path), "vit.npz")
    message = f"{address} could not.* not at {place!r}.*KERAS_VIT_OFFLINE forbids"
    with pytest.raises(ConnectionError, match=message):
        fetch(address)
    shutil.copy(path, place)
    assert fetch(address) == place
    assert len(server.requests) == 1


@pytest.mark.parametrize("value", ["", "0", "false", "no"])
def test_the_network_is_allowed(value, server, monkeypatch):
    monkeypatch.setenv("KERAS_VIT_OFFLINE", value)
    assert fetch(server.serve("/vit.npz", Answer()))


# The Hugging Face Hub.


def git(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def hub(server, monkeypatch):
    """Serves files as the hub does: large ones with their sha256, others with Git's."""
    from huggingface_hub import constants

    def serve(files, **differences):
        for name, content in files.items():
            large = name.endswith((".safetensors", ".bin"))
            etag = f'"{sha256(content) if large else git(content)}"'
            headers = {"X-Repo-Commit": COMMIT, "ETag": etag}
            if large:
                headers["ETag"] = '"of-the-store"'
                headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(len(content))}
            answers = differences.get(name.partition(".")[0], [Answer(content)])
            answers = [dataclasses.replace(answer, headers=headers) for answer in answers]
            for revision in ("main", COMMIT):
                server.serve(f"/owner/name/resolve/{revision}/{name}", *answers)

    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        server.address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    server.serve_hub = serve
    return server


REPOSITORY = {
    "config.json": b"{}",
    "README.md": b"#",
    WEIGHTS: CONTENT,
    "pytorch_model.bin": OTHER,
}


def test_the_checkpoint_of_a_repository(hub, cache):
    hub.serve_hub({**REPOSITORY, "preprocessor_config.json": b"[]"})
    folder = fetch("hf://owner/name")
    snapshots = cache / "huggingface/models--owner--name/snapshots"
    assert Path(folder) == snapshots / COMMIT
    assert sorted(os.listdir(folder)) == [
        "config.json",
        WEIGHTS,
        "preprocessor_config.json",
    ]
    assert (Path(folder) / WEIGHTS).read_bytes() == CONTENT
    count = len(hub.requests)
    for address in (
        "hf://owner/name@main",
        f"hf://owner/name@{COMMIT}",
        "https://huggingface.co/owner/name",
        "https://huggingface.co/owner/name/",
        "https://huggingface.co/owner/name/tree/main?library=keras",
    ):
        assert fetch(address) == folder
    assert fetch(f"hf://owner/name/{WEIGHTS}") == os.path.join(folder, WEIGHTS)
    assert len(hub.requests) == count


def test_a_repository_without_a_configuration(hub):
    hub.serve_hub({"pytorch_model.bin": OTHER})
    folder = fetch("hf://owner/name")
    assert os.listdir(folder) == ["pytorch_model.bin"]
    count = len(hub.requests)
    assert fetch("hf://owner/name") == folder
    assert len(hub.requests) == count  # The library remembers what there is not.


def test_a_push_in_between(hub):
    """All files are of the commit of the weights."""
    hub.serve_hub(REPOSITORY)
    pushed = {"X-Repo-Commit": COMMIT[::-1], "ETag": f'"{git(b"[]")}"'}
    hub.serve("/owner/name/resolve/main/config.json", Answer(b"[]", pushed))
    assert (Path(fetch("hf://owner/name")) / "config.json").read_bytes() == b"{}"


def index(*names):
    return json.dumps(
        {"weight_map": {str(i): name for i, name in enumerate(names)}}
    ).encode()


def test_a_checkpoint_in_shards(hub, monkeypatch):
    shards = {f"model-0000{i}-of-00002.safetensors": bytes([i]) * 1000 for i in (1, 2)}
    hub.serve_hub({INDEX: index(*shards, *shards), **shards, "config.json": b"{}"})
    folder = fetch("hf://owner/name")
    assert sorted(os.listdir(folder)) == sorted([INDEX, *shards, "config.json"])
    monkeypatch.setenv("KERAS_VIT_OFFLINE", "1")
    assert fetch("hf://owner/name") == folder
    os.remove(os.path.join(folder, next(iter(shards))))
    with pytest.raises(ConnectionError, match="there is no model-00001.*KERAS_VIT_OFFLINE"):
        fetch("hf://owner/name")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (index("../model.safetensors"), r"Received: '../model.safetensors'"),
        (index("run.sh"), "Received: 'run.sh'"),
        (index(7), "Received: 7"),
        (b"[]", "must be the index of a sharded checkpoint"),
        (b"{", "must be the index of a sharded checkpoint"),
    ],
)
def test_an_index_that_is_none(content, message, hub):
    hub.serve_hub({INDEX: content})
    with pytest.raises(ValueError, match=message):
        fetch("hf://owner/name")


def test_one_file_of_a_repository(hub, cache):
    hub.serve_hub({"onnx/vit.bin": CONTENT})
    path = fetch("hf://owner/name@main/onnx/vit.bin")
    assert Path(path).read_bytes() == CONTENT
    assert fetch("https://huggingface.co/owner/name/blob/main/onnx/vit.bin") == path
    with pytest.raises(ConnectionError, match="there is no vit.npz in the repository"):
        fetch("hf://owner/name/vit.npz")


def test_a_repository_without_weights(hub):
    hub.serve_hub({"config.json": b"{}"})
    message = (
        f"there is no {WEIGHTS}, {INDEX}, pytorch_model.bin in the repository .*'main'"
    )
    with pytest.raises(ConnectionError, match=message):
        fetch("hf://owner/name")
    hub.serve_hub({WEIGHTS: CONTENT})
    assert fetch("hf://owner/name")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((401, "RepoNotFound"), (401, "GatedRepo"), (403, "GatedRepo"), (403, None)),
        (404, "RevisionNotFound"),
    ],
)
def test_a_repository_that_is_refused(status, code, hub, pauses):
    refusal = Answer(status=status, headers={"X-Error-Code": code} if code else {})
    hub.serve(f"/owner/name/resolve/main/{WEIGHTS}", refusal)
    with pytest.raises(
        ConnectionError, match=rf"(?s)hf://owner/name could not be downloaded: .*{status}"
    ) as caught:
        fetch("hf://owner/name")
    assert pauses == []
    # Only where a license or a token may help.
    accept = (
        rf"(?s)license: sign in at {hub.address}/owner/name .*HF_TOKEN.*/settings/tokens"
    )
    assert bool(re.search(accept, str(caught.value))) == (status in (401, 403))


def test_a_damaged_file_of_the_hub(hub, cache):
    damaged = Answer(CONTENT[:-1] + b"?")
    hub.serve_hub(REPOSITORY, model=[Answer(), damaged, Answer(), Answer()])
    assert (Path(fetch("hf://owner/name")) / WEIGHTS).read_bytes() == CONTENT
    shutil.rmtree(cache)
    hub.serve_hub(REPOSITORY, model=[damaged])
    message = f"{WEIGHTS}: its sha256 is {sha256(damaged.content)}, where the hub says {sha256(CONTENT)}"
    with pytest.raises(ConnectionError, match=message):
        fetch("hf://owner/name")
    assert files(cache / "huggingface/models--owner--name/snapshots") == []
    assert files(cache / "huggingface/models--owner--name/blobs") == []


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_file_of_the_hub_that_changed(name, hub):
    hub.serve_hub(REPOSITORY)
    path = os.path.realpath(os.path.join(fetch("hf://owner/name"), name))
    count = len(hub.requests)
    with open(path, "ab") as file:
        file.write(b"!")
    digest = os.path.basename(path)
    with pytest.raises(
        ValueError, match=f"{path}' is damaged.*the hub says {digest}.*Delete it"
    ):
        fetch("hf://owner/name")
    assert len(hub.requests) == count
    os.remove(path)
    fetch("hf://owner/name")
    assert (
        git(Path(path).read_bytes()) == digest or sha256(Path(path).read_bytes()) == digest
    )


def test_a_hub_that_makes_no_links(hub, monkeypatch):
    """As on Windows, where the library has files without blobs."""
    monkeypatch.setattr(
        "huggingface_hub.file_download.are_symlinks_supported", lambda *a: False
    )
    hub.serve_hub(REPOSITORY)
    path = Path(fetch("hf://owner/name")) / WEIGHTS
    assert not path.is_symlink()
    path.write_bytes(OTHER)
    with pytest.raises(ValueError, match=f"{path}.sha256"):
        fetch("hf://owner/name")


def test_the_hub_is_forbidden(hub, monkeypatch):
    hub.serve_hub(REPOSITORY)
    monkeypatch.setenv("KERAS_VIT_OFFLINE", "1")
    with pytest.raises(
        ConnectionError,
        match=r"hf://owner/name could.*huggingface' at revision 'main'.*KERAS_VIT_OFFLINE",
    ):
        fetch("hf://owner/name")
    monkeypatch.setenv("KERAS_VIT_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=f"no {WEIGHTS}.*HF_HUB_OFFLINE forbids"):
        fetch("hf://owner/name")
    assert hub.requests == []


def test_a_hub_that_is_away(hub):
    hub.serve_hub(REPOSITORY)
    folder = fetch("hf://owner/name")
    hub.shutdown()
    hub.server_close()
    assert fetch("hf://owner/name") == folder
    with pytest.raises(ConnectionError, match=f"{WEIGHTS}: .*refused"):
        fetch("hf://owner/other")


def test_a_hub_that_stumbles(hub, pauses):
    hub.serve_hub(REPOSITORY, model=[Answer(), Answer(status=500), Answer()])
    assert (Path(fetch("hf://owner/name")) / WEIGHTS).read_bytes() == CONTENT
    assert len(pauses) == 1


def test_the_settings_of_the_hub_are_honoured(hub):
    hub.serve_hub(REPOSITORY)
    process = start("hf://owner/name", HF_ENDPOINT=hub.address, HF_TOKEN="hf_secret")
    output, errors = process.communicate("\n", timeout=20)
    assert process.returncode == 0, errors
    assert os.path.basename(output.strip()) == COMMIT
    assert set(hub.asked("authorization")) == {"Bearer hf_secret"}
