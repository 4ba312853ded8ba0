"""The server behind the page: who is answered, what is reached, and that its answers are the library's."""

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from fastmlp.language_model import LanguageModel
from fastmlp.web import server, shelf
from fastmlp.web.bundle import bundle
from fastmlp.web.training import Training
from tests.runs import lines_in, wait_for
from tests.web.conftest import HOST, TOKEN

API = f"/{TOKEN}/api"
LONG = {"text": "story.txt", "minutes": 5}


def ask(client: TestClient, name: str, **question: Any) -> dict[str, Any]:
    """The answer to a question."""
    answer = client.post(f"{API}/{name}", json=question)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(client: TestClient, status: int, name: str, **question: Any) -> str:
    """The sentence of a question that is refused."""
    answer = client.post(f"{API}/{name}", json=question)
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


# ----------------------------------------------------------------------------------------------------- who is answered


@pytest.mark.parametrize("path", ["/", "/api/overview", "/wrong/", "/wrong/api/overview", f"/{TOKEN}x/", f"//{TOKEN}/"])
def test_promise_21_nobody_is_answered_without_the_token(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, set(answer.json())) == (403, {"error"})


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example", "origin": f"http://{HOST}"},
        {"host": "127.0.0.1:1"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": f"https://{HOST}"},
    ],
)
def test_promise_21_a_page_elsewhere_is_not_answered(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get(f"/{TOKEN}/", headers=headers).status_code == 403


def test_promise_21_the_page_is_allowed_to_load_nothing_from_elsewhere(client: TestClient) -> None:
    for name in ("", "page.css", "page.js"):
        answer = client.get(f"/{TOKEN}/{name}", headers={"origin": f"http://{HOST}"})
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not any(header.startswith("access-control") for header in answer.headers)
        assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "")


def test_the_page_is_small() -> None:
    assert (
        sum(len(server.page_file(name).encode()) for name in ("page.html", "page.css")) + len(bundle("page")) < 300_000
    )


@pytest.mark.parametrize("path", ["../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "runs/whole/config.toml"])
def test_promise_21_no_path_leads_to_a_file(client: TestClient, path: str) -> None:
    assert client.get(f"/{TOKEN}/{path}").status_code in (403, 404)


NAMES = ["../runs/whole", "..", ".", "", "whole/", "/etc", "whole/../whole", "nothing", "whole\x00"]


@pytest.mark.parametrize("name", NAMES)
def test_promise_21_only_what_is_listed_is_reached(client: TestClient, name: str) -> None:
    assert refused(client, 404, "facts", run=name) == f"there is no run {name!r} here"
    refused(client, 404, "history", run=name)
    refused(client, 404, "train", resume=name)
    assert "there is no text" in refused(client, 404, "train", text=f"{name}x")
    assert "there is no text" in refused(client, 404, "train", text="../secret.txt")


def test_hidden_files_are_no_texts(client: TestClient, folder: Path) -> None:
    (folder / "texts" / ".hidden").write_text("hidden", encoding="utf-8")
    assert [text["name"] for text in client.get(f"{API}/overview").json()["texts"]] == ["story.txt"]


# ------------------------------------------------------------------------------------------------------- bad questions


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ({}, "run: missing"),
        ({"run": "whole"}, "text: missing"),
        ({"run": 1, "text": ""}, "run: expected a text, got 1"),
        ({"run": "whole", "text": "", "x": 1}, "x: no such field"),
        ({"run": "whole", "text": "", "count": 0}, "count: expected a whole number from 1 to 1000, got 0"),
        ({"run": "whole", "text": "", "temperature": -1}, "temperature: expected"),
        ({"run": "whole", "text": "", "temperature": "hot"}, "temperature: expected"),
        ({"run": "whole", "text": "", "top_p": 2}, "top_p: expected"),
        ({"run": "whole", "text": "", "top_k": [1]}, "top_k: expected"),
        ({"run": "whole", "text": "", "predictors": "network"}, "predictors: expected a list"),
    ],
)
def test_promise_21_a_bad_question_gets_a_sentence(client: TestClient, question: dict[str, Any], why: str) -> None:
    assert refused(client, 400, "next", **question).startswith(why)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"[" * 100_000, b"null"])
def test_promise_21_what_is_no_question_gets_a_sentence(client: TestClient, body: bytes) -> None:
    answer = client.post(f"{API}/next", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("expected")


def test_other_ways_of_asking_get_a_sentence(client: TestClient) -> None:
    for answer, status in ((client.get(f"{API}/next"), 405), (client.get(f"{API}/nothing"), 404)):
        assert (answer.status_code, set(answer.json())) == (status, {"error"})


def test_predictors_that_the_model_lacks_get_a_sentence(client: TestClient) -> None:
    for name in ("next", "surprise"):
        question = {"run": "whole", "text": "anna"}
        assert refused(client, 404, name, **question, predictors=["stars"]).startswith("this model has no stars")
        assert refused(client, 404, name, **question, predictors=["cache"]).startswith("a cache alone")


def test_promise_21_a_body_is_bounded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LARGEST_QUESTION", 1_000)
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        for _ in range(10_000):
            read += 100
            yield b" " * 100

    answer = client.post(f"{API}/next", content=endless())
    assert (answer.status_code, "more than" in answer.json()["error"]) == (413, True)


# ---------------------------------------------------------------------------------------------------- the model's words


def test_the_next_words_are_the_librarys(client: TestClient, folder: Path) -> None:
    model = LanguageModel.load(folder / "runs" / "whole")
    found = ask(client, "next", run="whole", text="boris sells", count=5)
    want = model.next_word("boris sells", 5)
    assert [word["word"] for word in found["words"]] == [word for word, _ in want]
    np.testing.assert_allclose([word["probability"] for word in found["words"]], [p for _, p in want], rtol=1e-5)
    by_predictor = dict(model.next_word_by_predictor("boris sells", 5))
    for word in found["words"]:
        assert sum(word["shares"].values()) == pytest.approx(1)
        for name, share in word["shares"].items():
            assert share * word["probability"] == pytest.approx(by_predictor[word["word"]][name], rel=1e-4, abs=1e-9)
    assert found["unknown"] == []
    assert ask(client, "next", run="whole", text="zebra Boris")["unknown"] == ["zebra"]


def test_the_bars_are_what_generate_draws_with(client: TestClient, folder: Path) -> None:
    model = LanguageModel.load(folder / "runs" / "whole")
    of_network = np.array([p for _, p in model.next_word("the old", None, mixture=False)])
    colder = of_network**2 / (of_network**2).sum()
    limits = {"predictors": ["network"], "temperature": 0.5, "top_k": 3}
    found = [w["probability"] for w in ask(client, "next", run="whole", text="the old", **limits)["words"]]
    np.testing.assert_allclose(found, colder[:3] / colder[:3].sum(), rtol=1e-4)
    coldest = ask(client, "next", run="whole", text="the old", temperature=0)
    assert [word["probability"] for word in coldest["words"]] == [1]
    assert coldest["drawn"] == coldest["words"][0]["piece"]
    assert coldest["drawn"].startswith(" ")


def test_forth_and_back_gives_the_same_as_from_the_beginning(client: TestClient) -> None:
    text, seen = "anna paints", {}
    for _ in range(6):
        seen[text] = ask(client, "next", run="whole", text=text)["words"]
        text += ask(client, "next", run="whole", text=text, temperature=0)["drawn"]
    for before, words in reversed(seen.items()):
        assert ask(client, "next", run="whole", text=before)["words"] == words
    place = ask(client, "next", run="whole", text=f"{text} and on", place=3)["words"]
    assert place == seen[" ".join(text.split()[:3])]


def test_another_last_word_is_another_place(client: TestClient, folder: Path) -> None:
    model = LanguageModel.load(folder / "runs" / "whole")
    for text in ("david writes", "david paints", "david feeds", "david writes long"):
        found = ask(client, "next", run="whole", text=text, count=3)["words"]
        want = model.next_word(text, 3)
        np.testing.assert_allclose([word["probability"] for word in found], [p for _, p in want], rtol=1e-5)


def test_surprise_is_evaluates(client: TestClient, folder: Path) -> None:
    text = "Anna paints a red zebra. Boris sells bread."
    model = LanguageModel.load(folder / "runs" / "whole")
    found = ask(client, "surprise", run="whole", text=text)
    assert found["perplexity"] == pytest.approx(model.perplexity(text), rel=1e-5)
    assert "".join(piece for piece, _, _ in found["words"]) == "anna paints a red zebra. boris sells bread."
    assert [piece.strip() for piece, _, known in found["words"] if not known] == ["zebra"]
    bits = [bits for _, bits, known in found["words"] if known]
    assert 2 ** np.mean(bits) == pytest.approx(found["perplexity"], rel=0.01)
    assert ask(client, "surprise", run="whole", text="zebra")["perplexity"] is None
    alone = ask(client, "surprise", run="whole", text=text, predictors=["network"])["perplexity"]
    assert alone == pytest.approx(model.perplexity(text, mixture=False), rel=1e-5)


def test_map_and_neighbors(client: TestClient, folder: Path) -> None:
    model = LanguageModel.load(folder / "runs" / "whole")
    found = ask(client, "map", run="whole", count=12)
    assert len(found["words"]) == len(found["points"]) == 12
    assert np.abs(found["points"]).max() == 1
    near = ask(client, "neighbors", run="whole", word="anna", count=3)["neighbors"]
    assert [word for word, _ in near] == [word for word, _ in model.neighbors("anna", 3)]
    assert "not in the vocabulary" in refused(client, 400, "neighbors", run="whole", word="zebra")


def test_ten_clients_at_once_get_the_same_answers(client: TestClient) -> None:
    texts = [f"{name} {verb}" for name in ("anna", "boris", "clara", "david", "elena") for verb in ("a", "the")]
    alone = [ask(client, "next", run="whole", text=text)["words"] for text in texts]
    with ThreadPoolExecutor(10) as pool:
        together = list(pool.map(lambda text: ask(client, "next", run="begun", text=text)["words"], texts))
        again = list(pool.map(lambda text: ask(client, "next", run="whole", text=text)["words"], texts))
    assert again == alone
    assert together == [ask(client, "next", run="begun", text=text)["words"] for text in texts]


def test_a_run_that_vanishes_is_missed_in_a_sentence(client: TestClient, folder: Path) -> None:
    ask(client, "next", run="whole", text="anna")
    (folder / "runs" / "whole" / "model.safetensors").unlink()
    (folder / "runs" / "whole" / "last.safetensors").unlink()
    assert "nothing of this run is saved" in refused(client, 404, "next", run="whole", text="anna")
    shutil.rmtree(folder / "runs" / "whole")
    assert refused(client, 404, "next", run="whole", text="anna") == "there is no run 'whole' here"
    assert [run["name"] for run in client.get(f"{API}/overview").json()["runs"]] == ["begun"]
    shutil.rmtree(folder / "runs")
    assert client.get(f"{API}/overview").json()["runs"] == []


def test_a_model_that_was_trained_further_is_loaded_anew(client: TestClient, folder: Path) -> None:
    before = ask(client, "next", run="begun", text="anna")["words"]
    for name in ("model", "mixture"):
        if (folder / "runs" / "whole" / f"{name}.safetensors").exists():
            shutil.copy(folder / "runs" / "whole" / f"{name}.safetensors", folder / "runs" / "begun")
    assert ask(client, "next", run="begun", text="anna")["words"] != before


# ---------------------------------------------------------------------------------------------------- texts, training


@pytest.mark.parametrize("wrong", ["files = 3", "hidden = true", "files = [1", "embed = {}"])
def test_options_that_are_none_do_not_hide_the_other_runs(client: TestClient, folder: Path, wrong: str) -> None:
    (folder / "runs" / "begun" / "config.toml").write_text(wrong, encoding="utf-8")
    assert {run["name"] for run in client.get(f"{API}/overview").json()["runs"]} == {"whole", "begun"}


def test_what_the_runs_have_reached(client: TestClient) -> None:
    overview = client.get(f"{API}/overview").json()
    runs = {run["name"]: run for run in overview["runs"]}
    assert {name: run["finished"] for name, run in runs.items()} == {"whole": True, "begun": False}
    assert runs["whole"]["steps"] == 200
    assert runs["whole"]["text"] == "story.txt"
    lines = ask(client, "history", run="whole")["metrics"]
    assert runs["whole"]["mixed_perplexity"] == lines[-1]["mixture"]["network+counts+cache"]
    assert "step 200" in ask(client, "history", run="whole")["samples"]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("new.txt", "new.txt"),
        ("story.txt", "story-2.txt"),
        ("../../up.txt", "up.txt"),
        ("", "text.txt"),
        ("..", "text.txt"),
        (".a<b>.txt", "a-b-.txt"),
    ],
)
def test_promise_21_a_text_is_taken_into_texts_and_replaces_none(
    client: TestClient, folder: Path, name: str, kept: str
) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    answer = client.put(f"{API}/texts", params={"name": name}, content=b"some words")
    assert answer.json() == {"name": kept}
    assert (folder / "texts" / kept).read_bytes() == b"some words"
    (folder / "texts" / kept).unlink()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_promise_21_a_text_that_is_too_large_leaves_nothing(
    client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "LARGEST_TEXT", 1_000)
    assert client.put(f"{API}/texts?name=a.txt", content=b"x" * 1_001).status_code == 413
    assert client.put(f"{API}/texts?name=b.txt", content=b"x" * 1_000).status_code == 200
    assert sorted(path.name for path in (folder / "texts").iterdir()) == ["b.txt", "story.txt"]


def events_of(client: TestClient) -> list[dict[str, Any]]:
    """All events of the last training, to its end."""
    return [json.loads(line) for line in client.get(f"{API}/events").text.splitlines() if line]


def test_train_on_a_text_to_the_end_and_watch(client: TestClient, folder: Path) -> None:
    assert client.get(f"{API}/events").status_code == 404
    assert ask(client, "train", text="story.txt", minutes=0.02) == {"run": "story"}
    events = events_of(client)
    assert [event for event in events if event["event"] == "Failed"] == []
    assert events[-2]["event"] == "Finished"
    assert events_of(client) == events  # for a page that is opened later
    runs = {run["name"]: run for run in client.get(f"{API}/overview").json()["runs"]}
    assert runs["story"]["finished"]
    assert ask(client, "next", run="story", text="anna")["words"]


def test_one_training_at_a_time_stopped_and_resumed(client: TestClient, folder: Path) -> None:
    ask(client, "train", **LONG)
    assert refused(client, 409, "train", **LONG) == "story is being trained; stop it first"
    wait_for(lambda: lines_in(folder / "runs" / "story") > 2)
    assert client.get(f"{API}/overview").json()["training"] == {"run": "story", "running": True}
    ask(client, "stop")
    events = events_of(client)
    assert "Stopped" in [event["event"] for event in events]
    assert refused(client, 404, "stop") == "nothing is being trained"
    step = next(event["step"] for event in events if event["event"] == "Stopped")
    ask(client, "train", resume="story")
    wait_for(lambda: lines_in(folder / "runs" / "story") > 4)
    ask(client, "stop")
    assert {"event": "Resumed", "step": step} in events_of(client)


def test_a_text_that_cannot_be_used_says_why(client: TestClient, folder: Path) -> None:
    (folder / "texts" / "empty.txt").write_text("...", encoding="utf-8")
    ask(client, "train", text="empty.txt")
    [failed] = [event for event in events_of(client) if event["event"] == "Failed"]
    assert "no words" in failed["text"]
    assert "\n" not in failed["text"]


def test_a_run_that_vanishes_while_it_is_trained_fails_in_a_sentence(client: TestClient, folder: Path) -> None:
    ask(client, "train", **LONG)
    wait_for(lambda: lines_in(folder / "runs" / "story") > 2)
    (folder / "runs" / "story").rename(folder / "gone")  # all at once, whatever is being written
    ask(client, "stop")
    events = events_of(client)
    [failed] = [event for event in events if event["event"] == "Failed"]
    assert "\n" not in failed["text"]
    ask(client, "train", text="story.txt", minutes=0.01)  # another one can begin
    assert "Finished" in [event["event"] for event in events_of(client)]


def test_what_is_no_text_says_why(client: TestClient, folder: Path) -> None:
    name = client.put(f"{API}/texts?name=picture.txt", content=b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" * 50).json()["name"]
    ask(client, "train", text=name)
    [failed] = [event for event in events_of(client) if event["event"] == "Failed"]
    assert "picture.txt" in failed["text"]
    assert not (folder / "runs" / "picture").exists()


def test_the_server_ends_with_its_training_saved(folder: Path) -> None:
    app = server.make_app(shelf.Shelf(folder), TOKEN, HOST)
    with TestClient(app, base_url=f"http://{HOST}") as client:
        ask(client, "train", **LONG)
        wait_for(lambda: lines_in(folder / "runs" / "story") > 2)
    assert (folder / "runs" / "story" / "last.safetensors").exists()


def test_promise_21_a_client_that_leaves_in_mid_stream_costs_nothing(client: TestClient, folder: Path) -> None:
    ask(client, "train", **LONG)
    wait_for(lambda: lines_in(folder / "runs" / "story") > 2)
    threads = threading.active_count()
    for _ in range(3):
        leave_early(client)
    wait_for(lambda: threading.active_count() <= threads)  # none waits for news that nobody reads
    ask(client, "stop")
    assert "Stopped" in [event["event"] for event in events_of(client)]


def test_while_no_event_comes_the_stream_says_so(folder: Path) -> None:
    training = Training(folder, "story", ["texts/story.txt", "--out", "runs/story", "--minutes", "0.01"])
    events = list(training.events(0.01))
    assert events.count(None) > 3
    assert {"Started", "Finished"} <= {event["event"] for event in events if event is not None}


def test_a_training_that_ends_at_once_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast it is: here the threads that listen to it are done before the next line of ours."""
    start = threading.Thread.start

    def start_and_wait(thread: threading.Thread) -> None:
        start(thread)
        thread.join(30)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start_and_wait)
        training = Training(tmp_path, "story", ["--no-such-option"])
    assert not training.running
    [failed] = training.events(0.01)
    assert failed is not None
    assert "--no-such-option" in failed["text"]


def test_a_training_that_is_killed_in_the_middle_of_a_line_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "killed"
    program.write_text(
        '#!/bin/sh\necho \'{"event": "Started"}\'\nprintf \'{"event": "Sam\'\nkill -9 $$\n', encoding="utf-8"
    )
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    training = Training(tmp_path, "story", [])
    wait_for(lambda: not training.running)
    events = [event for event in training.events(0.01) if event is not None]
    assert [event["event"] for event in events] == ["Started", "Failed"]


def test_a_stream_without_news_has_empty_lines() -> None:
    class Idle:
        def events(self, patience: float) -> Iterator[dict[str, Any] | None]:
            yield from ({"event": "Started"}, None)

    assert list(server.as_lines(Idle())) == ['{"event": "Started"}\n', "\n"]  # type: ignore[arg-type]


def leave_early(client: TestClient) -> None:
    """Ask for the events and go away after the first."""
    import anyio

    sent: list[Any] = []

    async def conversation() -> None:
        gone = anyio.Event()
        asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Any:
            for message in asked:
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "http.response.body":
                gone.set()

        headers = [(b"host", HOST.encode())]
        path = f"{API}/events"
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
        scope |= {
            "headers": headers,
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "asgi": {"version": "3.0"},
        }
        with anyio.fail_after(20):
            await client.app(scope, receive, send)

    anyio.run(conversation)
    assert sent[0]["status"] == 200
