"""Messages that really arrive: a webhook and a mail server on loopback."""

import json
import logging
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import prefect.main  # noqa: F401  # sets up its logging, which would take caplog's handler away in mid-test
import pytest

from tasks.notification import notify, useless_addresses

SECRET = "s3cr3t-t0ken"


class Hook(BaseHTTPRequestHandler):
    """Keeps what it is sent; answers with the server's status."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_arguments):
        pass


class Mailbox(socketserver.StreamRequestHandler):
    """As much of SMTP as takes one message."""

    def handle(self):
        self.say("220 here")
        while line := self.rfile.readline().decode().strip():
            if line.upper() == "DATA":
                self.say("354 go on")
                while (text := self.rfile.readline().decode()) != ".\r\n":
                    self.server.got.append(text.rstrip())
            self.say("250 well")
            if line.upper() == "QUIT":
                return

    def say(self, line):
        self.wfile.write(f"{line}\r\n".encode())


@pytest.fixture
def listening(request):
    """A server of the class that the test names, on a port of its own."""
    server_class, handler = request.param
    with server_class(("127.0.0.1", 0), handler) as server:
        server.got, server.status = [], 200
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


hook = pytest.mark.parametrize("listening", [(ThreadingHTTPServer, Hook)], indirect=True)
mailbox = pytest.mark.parametrize("listening", [(socketserver.ThreadingTCPServer, Mailbox)], indirect=True)


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(logging.getLogger("prefect"), "propagate", True)


def told(monkeypatch, address, events="[failure, verdict, promotion]"):
    monkeypatch.setenv("WHERE", address)
    Path("operation.yaml").write_text(f"notifications: [{{url_env: WHERE, events: {events}}}]\n")


@hook
def test_a_webhook_gets_title_and_text(listening, monkeypatch, caplog):
    told(monkeypatch, f"json://127.0.0.1:{listening.server_address[1]}/{SECRET}")
    notify("promotion", "models:/amopo/2 is champion now", "better by 0.3")
    [(path, message)] = listening.got

    assert path == f"/{SECRET}"
    assert (message["title"], message["message"]) == ("models:/amopo/2 is champion now", "better by 0.3")
    assert "told WHERE of this promotion" in caplog.text
    assert SECRET not in caplog.text


@mailbox
def test_a_mail_arrives(listening, monkeypatch):
    port = listening.server_address[1]
    told(monkeypatch, f"mailto://127.0.0.1:{port}?from=amopo@example.org&to=me@example.org&mode=insecure&format=text")
    notify("failure", "The retraining failed", "the disk is full")
    mail = "\n".join(listening.got)

    assert "Subject: The retraining failed" in mail
    assert "the disk is full" in mail


@hook
@pytest.mark.parametrize(
    ("events", "event", "messages"),
    [
        ("[failure]", "verdict", 0),
        ("[verdict]", "promotion", 1),
        ("[promotion]", "verdict", 0),
        ("[failure]", "failure", 1),
    ],
)
def test_only_who_wants_to_know_is_told(listening, monkeypatch, events, event, messages):
    told(monkeypatch, f"json://127.0.0.1:{listening.server_address[1]}", events)
    notify(event, "title", "text")

    assert len(listening.got) == messages


@hook
def test_a_service_that_refuses_is_a_warning_without_the_address(listening, monkeypatch, caplog):
    listening.status = 500
    told(monkeypatch, f"json://me:{SECRET}@127.0.0.1:{listening.server_address[1]}/{SECRET}")
    notify("failure", "title", "text")

    assert "WHERE was not told of this failure: the service did not take the message" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (f"json://127.0.0.1:1/{SECRET}", "the service did not take the message"),
        (f"{SECRET}", "it holds no address that apprise knows"),
        ("", "WHERE was not told of this failure: it is not set"),
    ],
)
def test_what_cannot_be_sent_raises_nothing(monkeypatch, caplog, address, said):
    told(monkeypatch, address)
    notify("failure", "title", "text")

    assert said in caplog.text
    assert SECRET not in caplog.text


def test_a_mistake_in_the_settings_is_a_warning(caplog):
    Path("operation.yaml").write_text("notification: []\n")
    notify("failure", "title", "text")

    assert "nobody is told of this failure" in caplog.text


def test_without_settings_nothing_happens(caplog):
    notify("failure", "title", "text")

    assert caplog.text == ""


def test_addresses_that_are_not_set_or_are_none_are_named(monkeypatch):
    told(monkeypatch, "json://here")
    assert useless_addresses() == []
    monkeypatch.setenv("WHERE", f"nosuch://{SECRET}")
    [said] = useless_addresses()
    assert said.startswith("WHERE holds no address that apprise knows")
    assert SECRET not in said
    monkeypatch.delenv("WHERE")
    assert useless_addresses() == ["WHERE is not set: nobody will be told there"]
