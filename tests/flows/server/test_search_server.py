"""`vireid serve` as a process: its page in Chromium, four clients at once, and a stop that answers every request."""

import io
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from pipeline.config.cclnet import CclnetConfig
from pipeline.inference.feedback import COLUMNS, read_marks
from pipeline.runs.open import run_path
from tests.browser import Browser, chromium, needs_chromium
from tests.flows.command_line import Call, vireid_command
from tests.flows.plain_runs import ROOT

PATIENCE = 300
"""Seconds; less would make a busy machine a defect."""

CLIENTS, SEARCHES = 4, 60
MEGABYTE = 2**20


@dataclass(frozen=True, slots=True)
class Served:
    """A running `vireid serve`."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[Served]:
    """Start the command in a folder and wait for its address; the block ends it, or it is ended here."""
    out, log = folder / "serve.out", folder / "serve.err"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    with out.open("wb") as output, log.open("wb") as errors:
        command = vireid_command("serve", *arguments, "--port", "0", "--device", "cpu")
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=errors, cwd=folder)
    try:
        while "ready" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield Served(process, out.read_text().split()[0], log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)


@pytest.fixture
def site(smoke_data: Path, tmp_path: Path) -> Path:
    """A manifest of the visible images of people 1 to 6, with cameras and times."""
    rows = ["path,modality,camera,split,time"]
    images = sorted(path for camera in (1, 2) for path in smoke_data.glob(f"cam{camera}/000[1-6]/*"))
    for number, path in enumerate(images):
        camera = path.parts[-3].removeprefix("cam")
        rows.append(f"{path.relative_to(smoke_data)},visible,{camera},train,2026-11-28T{number % 24:02}:00:00")
    (tmp_path / "site.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "site.csv"


@pytest.fixture
def arguments(finished_run: CclnetConfig, site: Path, smoke_data: Path) -> tuple[str, ...]:
    run = str(run_path(finished_run))
    return run, "--gallery", str(site), "--root", str(smoke_data), "--direction", "infrared_to_visible"


@pytest.fixture
def queries(smoke_data: Path) -> list[Path]:
    return sorted(smoke_data.glob("cam3/*/*"))[:4]


def choose(page: Browser, files: list[Path]) -> None:
    """Choose files as the dialog of the operating system does."""
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    field = page.call("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=field, files=[str(file) for file in files])


def drop(page: Browser, file: Path) -> None:
    """Drop a file on the page."""
    page.run(
        f"""(() => {{
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array({json.dumps(list(file.read_bytes()))})], {json.dumps(file.name)}));
            document.getElementById('drop').dispatchEvent(
                new DragEvent('drop', {{bubbles: true, cancelable: true, dataTransfer: data}}));
        }})()"""
    )


def shown(page: Browser) -> list[str]:
    """The facts of each hit."""
    return list(page.run("[...document.querySelectorAll('.hit')].map(one => one.innerText)"))


@pytest.mark.slow
def test_a_person_is_forgotten_once_the_server_has_ended_even_by_a_kill(
    arguments: tuple[str, ...], site: Path, smoke_data: Path, tmp_path: Path, vireid: Call
) -> None:
    one = next(smoke_data.glob("cam1/0001/*"))
    folders = ("--runs", str(tmp_path / "no"), "--indexes", str(tmp_path / "indexes"))
    forget = ("forget", str(one), *folders, "--yes")
    with serving(tmp_path, *arguments) as server:
        code, out, err = vireid(*forget)
        assert code == 1 and "found nowhere" not in out, (out, err)
        assert "in use by a running server" in " ".join(out.split()) and "stop `vireid serve`" in " ".join(out.split())
        assert httpx.get(f"{server.address}/api/images/0").status_code == 200
        server.process.kill()
        server.process.wait(PATIENCE)
    code, out, err = vireid(*forget)
    assert code == 0 and "found nowhere in" in out, (out, err)


@pytest.mark.slow
@needs_chromium
def test_a_person_drops_images_searches_filters_opens_and_marks(
    arguments: tuple[str, ...], queries: list[Path], tmp_path: Path
) -> None:
    with serving(tmp_path, *arguments) as served, chromium(tmp_path / "profile") as page:
        page.open(served.address)
        page.wait_for_text("Synthetic people, not photographs: encoder, gallery")
        assert page.run("document.getElementById('search').disabled")
        drop(page, queries[0])
        choose(page, [queries[1]])
        page.wait("document.querySelectorAll('#chosen img').length === 2")
        page.click("#search")
        page.wait("document.querySelectorAll('.hit').length === 20")
        page.wait("[...document.querySelectorAll('.hit img')].slice(0, 5).every(one => one.naturalWidth > 0)")
        assert page.run("[...document.querySelectorAll('#chosen img, .hit img')].every(one => one.alt)")
        assert any("camera 1" in one for one in shown(page)) and any("camera 2" in one for one in shown(page))
        page.click("input[name='camera'][value='2']")
        page.run("document.getElementById('until').value = '2026-11-28T12:00'")
        page.click("#search")
        page.wait("![...document.querySelectorAll('.hit')].some(one => one.innerText.includes('camera 1'))")
        hits = shown(page)
        assert hits and all("camera 2" in one and "2026-11-28 " in one for one in hits)
        assert max(one.partition("2026-11-28 ")[2][:2] for one in hits) <= "12"
        page.click(".hit:first-child .open")
        page.wait("document.getElementById('large').naturalWidth > 0")
        for key, code in (("ArrowRight", 39), ("w", 87), ("ArrowLeft", 37), ("r", 82), ("Escape", 27)):
            for kind in ("keyDown", "keyUp"):
                page.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)
            expected = {"w": ".hit:nth-child(2).wrong", "r": ".hit:nth-child(1).right"}.get(key)
            if expected:
                page.wait(f"document.querySelector('{expected}')")
        page.wait("!document.getElementById('viewer').open")
        page.click(".hit:nth-child(2) [data-mark='wrong']")  # again: withdrawn
        page.wait_for_text("The mark on hit 2 is withdrawn.")
        assert page.outside() == []
    marks = read_marks(tmp_path / "feedback.csv")
    assert [(one.rank, one.mark) for one in marks] == [(2, "wrong"), (1, "right"), (2, "withdrawn")]
    assert all(len(one.digests) == 2 and queries[0].name in one.query for one in marks)


@pytest.mark.slow
@needs_chromium
def test_files_dropped_before_the_gallery_is_known_wait_for_it_and_conversions_are_shown(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    photo = tmp_path / "deep.png"
    Image.fromarray(np.arange(0, 60_000, 100, dtype=np.uint16).reshape(30, 20)).save(photo)
    with serving(tmp_path, *arguments) as served, chromium(tmp_path / "profile") as page:
        late = """
            window.sent = window.fetch;
            window.late = new Promise((resolve) => { window.answer = resolve; });
            window.fetch = (path, options) => (
                path === '/api/gallery' ? window.late.then(() => sent(path, options)) : sent(path, options));
        """
        page.call("Page.addScriptToEvaluateOnNewDocument", source=late)
        page.open(served.address)
        page.wait("document.readyState === 'complete' && window.answer && window.element")
        drop(page, photo)
        choose(page, [photo])
        assert page.run("document.querySelectorAll('#chosen li').length") == 0
        page.run("window.answer()")
        page.wait("document.querySelectorAll('#chosen li').length === 2")
        page.click("#search:not(:disabled)")
        page.wait_for_text("deep.png: more than 8 bits a channel")
        assert page.run("document.querySelectorAll('#conversions li').length") == 2


@pytest.mark.slow
@needs_chromium
def test_the_page_takes_the_token_and_shows_why_a_file_is_refused(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("correct-horse-battery-staple\n")
    (tmp_path / "notes.png").write_text("no image")
    with (
        serving(tmp_path, *arguments, "--token-file", str(tmp_path / "token")) as served,
        chromium(tmp_path / "profile") as page,
    ):
        page.open(served.address)
        page.wait("document.querySelector('#login[open]')")
        page.type("#token", "wrong")
        page.click("#login-form button")
        page.wait_for_text("the token is wrong")
        page.run("document.getElementById('token').value = ''")
        page.type("#token", "correct-horse-battery-staple")
        page.click("#login-form button")
        page.wait_for_text("visible images")
        choose(page, [tmp_path / "notes.png"])
        page.click("#search:not(:disabled)")
        page.wait_for_text("notes.png: no image, but a text")
        assert not [one for one in page.requests if "correct-horse" in one]
    assert "correct-horse" not in served.log.read_text()


@pytest.mark.slow
def test_scores_are_those_of_the_command_and_four_clients_are_answered_in_bounded_memory(
    arguments: tuple[str, ...], queries: list[Path], tmp_path: Path, vireid: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listed = tmp_path / "queries.txt"
    listed.write_text("".join(f"{file}\n" for file in queries))
    code, out, err = vireid(
        "search", *arguments, "--query", str(listed), "--json", "--device", "cpu", "--batch-size", "1"
    )
    assert code == 0, err
    expected = {one["path"]: one["hits"] for one in json.loads(out)["queries"]}
    with serving(tmp_path, *arguments) as served:

        def ask(client: httpx.Client, file: Path) -> Any:
            while (
                answer := client.post("/api/search", params={"k": 10}, content=file.read_bytes())
            ).status_code == 503:
                time.sleep(float(answer.headers["retry-after"]) / 10)
            assert answer.status_code == 200, answer.text
            return answer.json()["hits"]

        def work(number: int) -> None:
            with httpx.Client(base_url=served.address, timeout=PATIENCE, trust_env=False) as client:
                for _ in range(SEARCHES // CLIENTS):
                    found = ask(client, queries[number])
                    hits = expected[str(queries[number])]
                    wrong.extend(
                        (one, other)
                        for one, other in zip(found, hits, strict=True)
                        if one["path"] != other["path"] or abs(one["score"] - other["score"]) > 1e-6
                    )
                    client.get("/api/images/0").raise_for_status()
                finished.append(number)

        wrong: list[Any] = []
        finished: list[int] = []
        work(0)  # memory that the first searches take stays
        before = psutil.Process(served.process.pid).memory_info().rss
        clients = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
        for one in clients:
            one.start()
        for one in clients:
            one.join(PATIENCE)
        grown = psutil.Process(served.process.pid).memory_info().rss - before
        assert (wrong, sorted(finished)) == ([], [0, 0, 1, 2, 3])
        assert grown < 64 * MEGABYTE


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_server_and_every_request_has_an_answer(
    number: int, arguments: tuple[str, ...], queries: list[Path], tmp_path: Path
) -> None:
    with serving(tmp_path, *arguments) as served, ExitStack() as opened:
        answers: list[int] = []
        idle, *connections = (
            opened.enter_context(httpx.Client(base_url=served.address, timeout=PATIENCE, trust_env=False))
            for _ in range(7)
        )

        def ask(connection: httpx.Client) -> None:
            answers.append(connection.post("/api/search", content=queries[0].read_bytes()).status_code)

        for connection in (idle, *connections):  # connected before the signal; an open connection keeps no server
            connection.get("/health")
        clients = [threading.Thread(target=ask, args=(connection,)) for connection in connections]
        for one in clients:
            one.start()
        while not answers:
            time.sleep(0.001)
        served.process.send_signal(number)
        for one in clients:
            one.join(PATIENCE)
        assert served.process.wait(PATIENCE) == 0
        assert len(answers) == 6 and answers[0] == 200 and set(answers) <= {200, 503}
        assert "Traceback" not in served.log.read_text()


@pytest.mark.slow
def test_a_stop_among_huge_images_finishes_one_search_and_answers_the_others_at_once(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    shades = np.random.default_rng(0).random((4_000, 4_000), dtype=np.float32)
    buffer = io.BytesIO()
    Image.fromarray(np.round(shades, 1)).save(buffer, "TIFF", compression="tiff_adobe_deflate")
    files = [("image", (f"{number}.tif", buffer.getvalue())) for number in range(4)]
    with serving(tmp_path, *arguments, "--most-megabytes", "256") as served:
        answers: list[int] = []

        def ask() -> None:
            answer = httpx.post(f"{served.address}/api/search", files=files, timeout=PATIENCE)
            answers.append(answer.status_code)

        clients = [threading.Thread(target=ask) for _ in range(3)]
        before = psutil.Process(served.process.pid).cpu_times().user
        for one in clients:
            one.start()
        while psutil.Process(served.process.pid).cpu_times().user < before + 1:  # it decodes
            time.sleep(0.01)
        served.process.send_signal(signal.SIGTERM)
        for one in clients:
            one.join(PATIENCE)
        assert served.process.wait(PATIENCE) == 0
    assert answers == [503, 503, 200]  # in the order of their ends
    log = served.log.read_text()
    assert "Traceback" not in log and "4 of 4 images have more than 8 bits a channel" in log


def test_a_server_for_others_needs_an_address_and_a_gallery_with_a_modality(
    vireid: Call, smoke_data: Path, finished_run: CclnetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, gallery = str(run_path(finished_run)), str(smoke_data / "cam1")
    (tmp_path / "feedback.csv").write_text("notes\n")
    edited = f"{','.join(COLUMNS)}\n2026-11-28,a.jpg sha256:{'0' * 64},infrared,b.jpg,1,0.5,yes,run,index\n"
    (tmp_path / "edited.csv").write_text(edited)
    for options, reason in (
        ((), "may be visible or infrared"),
        (("--direction", "up"), "--direction 'up' does not exist"),
        (("--direction", "infrared_to_visible", "--host", "no.such.host.invalid"), "cannot be used"),
        (("--direction", "infrared_to_visible", "--token-file", "absent"), "there is no token file"),
        (("--direction", "infrared_to_visible", "--feedback", "feedback.csv"), "is not replaced"),
        (("--direction", "infrared_to_visible", "--feedback", "edited.csv"), "line 2: mark 'yes', not right, wrong"),
    ):
        feedback = () if "--feedback" in options else ("--feedback", "marks.csv")
        code, _, err = vireid("serve", run, "--gallery", gallery, "--port", "0", *options, *feedback)
        assert code == 1 and reason in err, err
    assert (tmp_path / "feedback.csv").read_text() == "notes\n"
    assert (tmp_path / "edited.csv").read_text() == edited
