"""Denoisers of the Hub: a small Hub on this computer, and every way that it can fail.

``huggingface_hub`` reads its settings when it is imported, so what talks to the small Hub is
a process of its own, which loads what it is asked for and answers in JSON.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import denograd
from denograd import DenoGrad, DenoiserFileError, WienerDenoiser, load_denoiser, save_denoiser
from denograd.denoisers import read_card, resolve_denoiser, shipped_denoisers
from denograd.denoisers.hub import HubAddress

CARD = {"training": {"seed": 3}, "figures": {}, "not_for": "Anything but this test."}
NUMBERS = itertools.count()
WORKER = """
import json, sys
import denograd
from denograd.denoisers import load_denoiser, read_card, resolve_denoiser
for line in sys.stdin:
    what, spec = json.loads(line)
    try:
        if what == "card":
            answer = read_card(spec)
        else:
            denoiser = (load_denoiser if what == "load" else resolve_denoiser)(spec)
            answer = {k: v.tolist() for k, v in denoiser.state_dict().items()}
    except denograd.DenoiserFileError as error:
        answer = {"refused": str(error)}
    print(json.dumps(answer), flush=True)
"""


# ------------------------------------------------------------------------ a small Hub


@dataclass
class SmallHub:
    """Answers what `hf_hub_download` asks: ``/OWNER/NAME/resolve/REVISION/FILE``."""

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """Repository -> revision -> file -> content."""
    asked: list[str] = field(default_factory=list)
    """``METHOD FILE`` of every request."""
    ill: bool = False
    """Whether every answer is an error that says nothing about the file."""
    on_request: Callable[[str], None] = lambda _: None

    def commit(self, repository: str, files: dict[str, bytes], *revisions: str) -> str:
        """Push files; returns the commit, which the named revisions then point to."""
        stamp = repr((repository, sorted(files.items()), revisions)).encode()
        commit = hashlib.sha1(stamp, usedforsecurity=False).hexdigest()
        for revision in (commit, *revisions):
            self.repositories.setdefault(repository, {})[revision] = files
        return commit

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        assert match, f"the Hub was asked for {path}"
        repository, revision, file = (unquote(part) for part in match.groups())
        self.on_request(file)
        if repository not in self.repositories:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        revisions = self.repositories[repository]
        if revision not in revisions:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = revisions[revision]
        commit = next(r for r, held in revisions.items() if held is files and len(r) == 40)
        headers = {"X-Repo-Commit": commit}
        if self.ill:
            return 403, headers | {"X-Error-Message": "not today"}, b""
        if file not in files:
            return 404, headers | {"X-Error-Code": "EntryNotFound"}, b""
        etag = hashlib.sha256(files[file]).hexdigest()
        return 200, headers | {"ETag": f'"{etag}"'}, files[file]

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve on a free port; yields the address."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                status, headers, content = hub.answer(self.path)
                hub.asked.append(f"{self.command} {unquote(self.path).rpartition('/')[2]}")
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            do_GET = do_HEAD

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class Client:
    """A process with settings of its own that loads denoisers."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.errors = (home / "stderr.txt").open("w+")
        root = str(Path(denograd.__file__).parent.parent)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        paths = os.pathsep.join(filter(None, [root, kept.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=kept
            | {"PYTHONPATH": paths, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
            | settings,
        )

    def ask(self, what: str, spec: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([what, spec]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, Path(self.errors.name).read_text()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def refusal(self, spec: str) -> str:
        answer = self.ask("load", spec)
        assert list(answer) == ["refused"], f"{spec} was loaded"
        return str(answer["refused"])

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()
        self.errors.close()


@contextmanager
def client(home: Path, **settings: str) -> Iterator[Client]:
    pytest.importorskip("huggingface_hub")
    home.mkdir(parents=True, exist_ok=True)
    started = Client(home, **settings)
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="module")
def hub() -> SmallHub:
    return SmallHub()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub") / "home"


@pytest.fixture(scope="module")
def online(hub: SmallHub, home: Path) -> Iterator[Client]:
    """A process for which the small Hub is the Hub."""
    with hub.serving() as address, client(home, HF_ENDPOINT=address) as started:
        yield started


@pytest.fixture
def repository(hub: SmallHub) -> str:
    """The name of a repository that no other test has; nothing was asked of the Hub so far."""
    hub.asked.clear()
    return f"tests/number_{next(NUMBERS)}"


def _pair(folder: Path, seed: int = 0) -> dict[str, bytes]:
    """The two files of a denoiser with random weights, as `save_denoiser` writes them."""
    torch.manual_seed(seed)
    path = folder / f"pair{seed}" / "denoiser.safetensors"
    save_denoiser(WienerDenoiser(hidden=4), path, CARD)
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def _weights(folder: Path, seed: int = 0) -> dict[str, Any]:
    """What is in the weights of `_pair`, read from the local file."""
    state = load_denoiser(folder / f"pair{seed}" / "denoiser.safetensors").state_dict()
    return {name: tensor.tolist() for name, tensor in state.items()}


# ---------------------------------------------------------------- what the Hub has


def test_a_repository_is_loaded_and_only_its_two_files_are_asked_for(
    hub: SmallHub, online: Client, repository: str, tmp_path: Path
) -> None:
    others = {"pytorch_model.bin": pickle.dumps(1), "weights.pt": b"PK", "README.md": b"hello"}
    hub.commit(repository, _pair(tmp_path) | others, "main")
    for how in ("load", "resolve"):
        assert online.ask(how, f"hf://{repository}") == _weights(tmp_path)
    files = {line.partition(" ")[2] for line in hub.asked}
    assert files == {"denoiser.json", "denoiser.safetensors"}
    downloads = [line for line in hub.asked if line.startswith("GET")]
    assert sorted(downloads) == ["GET denoiser.json", "GET denoiser.safetensors"], "not cached"
    assert online.ask("load", f"hf://models/{repository}") == _weights(tmp_path)


def test_the_card_alone_is_fetched_to_be_shown(
    hub: SmallHub, online: Client, repository: str, tmp_path: Path
) -> None:
    pair = _pair(tmp_path)
    hub.commit(repository, pair, "main")
    for spec in (f"hf://{repository}", f"hf://{repository}/denoiser.json"):
        assert online.ask("card", spec) == json.loads(pair["denoiser.json"])
    assert {line.partition(" ")[2] for line in hub.asked} == {"denoiser.json"}


def test_revisions_and_files_of_other_names(
    hub: SmallHub, online: Client, repository: str, tmp_path: Path
) -> None:
    first, second, third = (_pair(tmp_path, seed) for seed in range(3))
    commit = hub.commit(repository, first, "main", "v1")
    moved = {f"nets/wide.1{Path(name).suffix}": content for name, content in third.items()}
    hub.commit(repository, second | moved, "main", "feature/x", "refs/pr/3")
    wanted = {"": 1, "@v1": 0, f"@{commit}": 0, "@feature%2Fx": 1, "@refs/pr/3": 1}
    for revision, seed in wanted.items():
        spec = f"hf://{repository}{revision}"
        assert online.ask("load", spec) == _weights(tmp_path, seed), spec
        assert online.ask("load", f"{spec}/denoiser.safetensors") == _weights(tmp_path, seed)
    spec = f"hf://{repository}@feature%2Fx/nets/wide.1.safetensors"
    assert online.ask("load", spec) == _weights(tmp_path, 2)


def test_a_branch_that_moves_is_followed_and_a_commit_needs_no_hub(
    hub: SmallHub, online: Client, repository: str, tmp_path: Path
) -> None:
    commit = hub.commit(repository, _pair(tmp_path), "main")
    assert online.ask("load", f"hf://{repository}") == _weights(tmp_path)
    hub.commit(repository, _pair(tmp_path, 1), "main")
    assert online.ask("load", f"hf://{repository}") == _weights(tmp_path, 1)
    hub.asked.clear()
    assert online.ask("load", f"hf://{repository}@{commit}") == _weights(tmp_path)
    assert not hub.asked


def test_a_push_between_the_two_files_does_not_mix_them(
    hub: SmallHub, online: Client, repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit(repository, _pair(tmp_path), "main")
    later = _pair(tmp_path, 1)

    def push(file: str) -> None:
        if file == "denoiser.safetensors":
            hub.commit(repository, later, "main")

    monkeypatch.setattr(hub, "on_request", push)
    assert online.ask("load", f"hf://{repository}") == _weights(tmp_path)
    assert online.ask("load", f"hf://{repository}") == _weights(tmp_path, 1)


# ---------------------------------------------------------------- what is refused


def _changed_bit(files: dict[str, bytes]) -> None:
    weights = files["denoiser.safetensors"]
    files["denoiser.safetensors"] = weights[:-1] + bytes([weights[-1] ^ 1])


def _other_schema(files: dict[str, bytes]) -> None:
    card = json.loads(files["denoiser.json"]) | {"schema": 99}
    files["denoiser.json"] = json.dumps(card).encode()


def _other_shapes(files: dict[str, bytes]) -> None:
    card = json.loads(files["denoiser.json"])
    card["config"]["hidden"] = 5
    files["denoiser.json"] = json.dumps(card).encode()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_changed_bit, "its sha256 differs"),
        (_other_schema, "the card has schema 99"),
        (_other_shapes, "do not fit its config"),
        (
            lambda files: files.update({"denoiser.safetensors": pickle.dumps({"w": 1})}),
            "pickles are never loaded",
        ),
        (lambda files: files.update({"denoiser.json": b"no card"}), "the card is not JSON"),
    ],
    ids=["bit", "schema", "shapes", "pickle", "card"],
)
def test_what_fails_a_check_is_refused_by_repository_and_commit(
    hub: SmallHub,
    online: Client,
    repository: str,
    tmp_path: Path,
    damage: Callable[[dict[str, bytes]], None],
    words: str,
) -> None:
    files = _pair(tmp_path)
    damage(files)
    commit = hub.commit(repository, files, "main")
    refusal = online.refusal(f"hf://{repository}")
    assert refusal.startswith(f"hf://{repository}@main/denoiser.safetensors, commit {commit}: ")
    assert words in refusal
    assert "tell its owner" in refusal
    fetched_weights = any("safetensors" in line for line in hub.asked)
    assert fetched_weights == ("the card" not in words), "a bad card is enough to stop"


def test_a_cached_file_that_was_changed_is_refused(
    hub: SmallHub, online: Client, home: Path, repository: str, tmp_path: Path
) -> None:
    files = _pair(tmp_path)
    commit = hub.commit(repository, files, "main")
    assert online.ask("load", f"hf://{repository}@{commit}") == _weights(tmp_path)
    (cached,) = home.glob(f"hub/models--*{repository[6:]}/snapshots/{commit}/*.safetensors")
    _changed_bit(files)
    cached.resolve().write_bytes(files["denoiser.safetensors"])
    refusal = online.refusal(f"hf://{repository}@{commit}")
    assert "its sha256 differs" in refusal
    assert f"hf cache rm model/{repository}" in refusal


def test_what_is_not_there_is_named(
    hub: SmallHub, online: Client, repository: str, tmp_path: Path
) -> None:
    files = _pair(tmp_path)
    hub.commit(repository, files, "main")
    hub.commit(f"{repository}_bare", {"denoiser.json": files["denoiser.json"]}, "main")
    for spec, words in {
        f"hf://{repository}_gone": f"no model repository {repository}_gone, or it is private",
        f"hf://{repository}@v9": "the repository has no revision 'v9'; give a branch",
        f"hf://{repository}/other.safetensors": "no file other.json; it has to hold other.safe",
        f"hf://{repository}_bare": "no file denoiser.safetensors; it has to hold denoiser.safe",
        "hf://tests/two--dashes": "the Hub has no such names",
    }.items():
        refusal = online.refusal(spec)
        assert refusal.startswith(spec.removesuffix("/other.safetensors"))
        assert words in refusal


def test_a_hub_that_is_ill_harms_only_who_has_nothing_in_the_cache(
    hub: SmallHub, online: Client, repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (repository, f"{repository}_new"):
        hub.commit(name, _pair(tmp_path), "main")
    online.ask("load", f"hf://{repository}")
    monkeypatch.setattr(hub, "ill", True)
    assert online.ask("load", f"hf://{repository}") == _weights(tmp_path)
    refusal = online.refusal(f"hf://{repository}_new")
    assert "denoiser.json is not in the cache" in refusal
    assert "not today" in refusal, "what the Hub said is lost"
    assert "\n" not in refusal


# ---------------------------------------------------------------- without a Hub


def test_offline_what_is_cached_and_what_is_shipped_can_be_used(
    hub: SmallHub, online: Client, home: Path, repository: str, tmp_path: Path
) -> None:
    commit = hub.commit(repository, _pair(tmp_path), "main")
    online.ask("load", f"hf://{repository}")
    shutil.copytree(home / "hub", tmp_path / "home" / "hub", symlinks=True)
    hub.asked.clear()
    with client(tmp_path / "home", HF_HUB_OFFLINE="1") as offline:
        for spec in (f"hf://{repository}", f"hf://{repository}@{commit}"):
            assert offline.ask("load", spec) == _weights(tmp_path)
        shipped = offline.ask("resolve", "default")
        assert shipped.keys() == resolve_denoiser("default").state_dict().keys()  # type: ignore[attr-defined]
        refusal = offline.refusal("hf://owner/name")
    assert refusal.startswith("hf://owner/name@main/denoiser.safetensors: denoiser.json is not in")
    assert "HF_HUB_OFFLINE" in refusal
    assert "use a shipped denoiser ('default', " in refusal
    assert not hub.asked


@pytest.mark.slow
def test_a_hub_that_is_down_is_as_good_as_offline(tmp_path: Path) -> None:
    """The client waits and tries again before it gives up, which takes most of a minute."""
    hub = SmallHub()
    hub.commit("owner/name", _pair(tmp_path), "main")
    with ExitStack() as stack:
        with hub.serving() as address:
            worker = stack.enter_context(client(tmp_path / "home", HF_ENDPOINT=address))
            assert worker.ask("load", "hf://owner/name") == _weights(tmp_path)
        assert worker.ask("load", "hf://owner/name") == _weights(tmp_path)
        assert "the Hub can't be reached" in worker.refusal("hf://owner/other")


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for use in (load_denoiser, resolve_denoiser, read_card):
        with pytest.raises(DenoiserFileError) as caught:
            use("hf://owner/name")
        message = str(caught.value)
        assert "pip install 'denograd-optim[hub]'" in message
        assert all(repr(name) in message for name in shipped_denoisers())
    assert isinstance(resolve_denoiser("default"), WienerDenoiser)


# ------------------------------------------------- in this process, with a download at hand


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Downloads come from a folder laid out like the cache; returns where its commit lies."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    snapshot = tmp_path / "snapshots" / ("c" * 40)

    def download(repository: str, file: str, *, revision: str) -> str:
        assert repository == "owner/name"
        assert revision in ("main", snapshot.name)
        return str(snapshot / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return snapshot


def test_the_optimizer_takes_an_address(downloads: Path) -> None:
    denoiser = WienerDenoiser(hidden=4)
    save_denoiser(denoiser, downloads / "denoiser.safetensors", CARD)
    parameter = torch.nn.Parameter(torch.ones(3))
    for spec in ("hf://owner/name", Path("hf://owner/name")):
        optimizer = DenoGrad(torch.optim.SGD([parameter], lr=0.1), spec)
        parameter.grad = torch.ones(3)
        optimizer.step()
    assert read_card(Path("hf://owner/name"))["not_for"] == CARD["not_for"]


def test_whatever_the_client_raises_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    for error in (OSError(28, "No space left"), RuntimeError("xet broke"), ValueError("odd")):

        def fail(*_: Any, error: Exception = error, **__: Any) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
        with pytest.raises(DenoiserFileError, match=re.escape(str(error))) as caught:
            load_denoiser("hf://owner/name")
        assert caught.value.__cause__ is error
        assert "or use a shipped denoiser" in str(caught.value)


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hf://", "not an address on the Hub; write hf://OWNER/NAME"),
        ("hf://name", "not an address"),
        ("hf:///name", "not an address"),
        ("hf://owner/-name", "not an address"),
        ("hf://owner/name@", "not an address"),
        ("hf://owner/name/", "an empty part"),
        ("hf://owner/name@v1//a.safetensors", "an empty part"),
        ("hf://owner/name/../../a.safetensors", "'..'"),
        ("hf://owner/name@../a.safetensors", "'..'"),
        ("hf://owner/name@..%2F..%2Fa/b.safetensors", "'..'"),
        ("hf://owner/name/a\\b.safetensors", "a backslash"),
        ("hf://owner/name@a%00/b.safetensors", "control"),
        ("hf://owner/name/small", "write hf://owner/name@main/small/denoiser.safetensors if"),
        ("hf://datasets/owner/name", "'name' is not a .safetensors file"),
        ("hf://owner/name/weights.pt", "pickles are never loaded"),
        ("hf://owner/name/weights.PKL", "pickles are never loaded"),
        ("hf://owner/name/weights.bin", "not a .safetensors file"),
    ],
)
def test_other_addresses_are_refused_before_anything_is_fetched(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for use in (load_denoiser, resolve_denoiser, read_card):
        with pytest.raises(DenoiserFileError, match=re.escape(words)) as caught:
            use(text)
        assert str(caught.value).startswith(text)


def test_a_card_is_no_denoiser() -> None:
    with pytest.raises(DenoiserFileError, match="the card alone"):
        load_denoiser("hf://owner/name/denoiser.json")


NAME = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,8}[A-Za-z0-9])?", fullmatch=True)
REVISION = st.from_regex(
    r"refs/pr/[0-9]{1,3}|[A-Za-z0-9_-]{1,9}(/[a-z0-9.]{0,5}[a-z])?", fullmatch=True
)


@given(owner=NAME, name=NAME, revision=REVISION, folders=st.lists(NAME, max_size=3))
def test_an_address_is_taken_apart_into_what_it_was_made_of(
    owner: str, name: str, revision: str, folders: list[str]
) -> None:
    written = revision if revision.startswith("refs/") else revision.replace("/", "%2F")
    file = "/".join([*folders, "net.v1.safetensors"])
    address = HubAddress.parse(f"hf://{owner}/{name}@{written}/{file}")
    assert address == HubAddress(f"{owner}/{name}", revision, file)
    assert HubAddress.parse(str(address)) == address
    assert address.card == file.replace(".safetensors", ".json")


@given(text=st.text(max_size=40))
def test_junk_is_an_address_or_refused(text: str) -> None:
    try:
        address = HubAddress.parse(f"hf://{text}")
    except DenoiserFileError:
        return
    assert address.repository.count("/") == 1
    assert ".." not in Path(address.file).parts
    assert address.file.endswith((".safetensors", ".json"))
