"""A download is taken up where it broke off, is recorded the first time and must be the same ever after."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from pipeline_lib.runtime.errors import DataError, PipelineError, UnreachableError, refuse_again
from pipeline_lib.runtime.fetch import CHECKSUMS, fetch_published, read_checksums

CONTENT = np.random.default_rng(0).bytes(100_000)


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT under any name but `missing`, from the byte that is asked for; may break off."""

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        if self.path == "/missing":
            return self.send_error(404)
        first = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if first >= len(server.content):
            return self.send_error(416)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(server.content) - first))
        self.end_headers()
        return self.wfile.write(server.content[first : server.breaks_at])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.content, server.breaks_at = [], CONTENT, None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def address(server, name="weights.pth"):
    return f"http://127.0.0.1:{server.server_address[1]}/{name}"


def test_a_file_is_fetched_once_and_its_checksum_recorded(server, tmp_path):
    file = tmp_path / "pretrained/weights.pth"
    fetch_published(url=address(server), file=file)
    assert file.read_bytes() == CONTENT
    assert read_checksums(file.parent) == {"weights.pth": hashlib.sha256(CONTENT).hexdigest()}
    fetch_published(url=address(server), file=file)
    assert len(server.asked) == 1
    assert sorted(path.name for path in file.parent.iterdir()) == [CHECKSUMS, "weights.pth"]


def test_a_file_that_is_there_is_never_fetched(server, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"mine")
    fetch_published(url=address(server), file=tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == b"mine"
    assert server.asked == []


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    file = tmp_path / "weights.pth"
    server.breaks_at = 40_000
    with pytest.raises(DataError, match="could not be downloaded"):
        fetch_published(url=address(server), file=file)
    assert not file.exists()
    kept = (tmp_path / "weights.pth.part").stat().st_size
    server.breaks_at = None
    fetch_published(url=address(server), file=file)
    assert file.read_bytes() == CONTENT
    assert server.asked[-1] == ("/weights.pth", f"bytes={kept}-" if kept else None)


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(bytes(len(CONTENT) + 1))
    fetch_published(url=address(server), file=tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


def test_other_bytes_than_the_first_time_are_refused(server, tmp_path):
    file = tmp_path / "weights.pth"
    fetch_published(url=address(server), file=file)
    file.unlink()
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(DataError, match="has changed since the first download"):
        fetch_published(url=address(server), file=file)
    assert not file.exists()
    server.content = CONTENT
    fetch_published(url=address(server), file=file)
    assert file.read_bytes() == CONTENT


def fetch_as_a_job(server, file, attempt):
    with refuse_again(file.with_name("log.refused"), attempt):
        fetch_published(url=address(server), file=file)


def test_a_wrong_checksum_is_not_tried_again(server, tmp_path):
    (tmp_path / CHECKSUMS).write_text(f"{'0' * 64}  weights.pth\n")
    with pytest.raises(DataError, match="has changed since the first download"):
        fetch_as_a_job(server, tmp_path / "weights.pth", attempt=1)
    with pytest.raises(
        PipelineError, match=r"not retried, because it would fail again: .* has changed since the first download"
    ):
        fetch_as_a_job(server, tmp_path / "weights.pth", attempt=2)
    assert len(server.asked) == 1


def test_a_failure_of_the_network_is_tried_again(server, tmp_path):
    server.breaks_at = 40_000
    with pytest.raises(UnreachableError, match="could not be downloaded"):
        fetch_as_a_job(server, tmp_path / "weights.pth", attempt=1)
    server.breaks_at = None
    fetch_as_a_job(server, tmp_path / "weights.pth", attempt=2)
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


def test_a_server_that_cannot_be_reached_is_named(tmp_path):
    url = "http://127.0.0.1:9/weights.pth"
    with pytest.raises(UnreachableError, match=f"{url} could not be downloaded .*try again, or save it there"):
        fetch_published(url=url, file=tmp_path / "weights.pth")
    assert not (tmp_path / "weights.pth").exists()


def test_a_file_that_the_server_has_not_is_not_asked_for_again(server, tmp_path):
    with (
        pytest.raises(DataError, match=r"missing is not there .*404.*; correct the URL") as refused,
        refuse_again(tmp_path / "log.refused", attempt=1),
    ):
        fetch_published(url=address(server, "missing"), file=tmp_path / "weights.pth")
    assert not isinstance(refused.value, UnreachableError)
    with pytest.raises(PipelineError, match="not retried"), refuse_again(tmp_path / "log.refused", attempt=2):
        pass
    assert list(tmp_path.glob("weights*")) == []
