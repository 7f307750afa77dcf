"""Numbers arrive where they are said to: read back from the files, or from what a terminal was sent."""

import io
import json

import pytest

from jaxdiff import training

RECORD = {"step": 7, "position": 70, "loss": 0.25, "examples_per_second": 1234.5, "seconds_left": 3725.0}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines():
    out = io.StringIO()
    sink = training.progress(100, unit="images", stream=out)
    sink.start(0)
    sink.write({"step": 1, "position": 10, "loss": 2.0})
    sink.write(RECORD)
    sink.write({"step": 7, "position": 70, "score": 2.0})
    sink.close()
    assert out.getvalue().splitlines() == [
        "step 1/100  loss 2",
        "step 7/100  loss 0.25  1234 images/s  1:02:05 left",
        "step 7/100",
    ]


def test_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    out = Terminal()
    sink = training.progress(100, unit="images", stream=out)
    sink.start(0)
    sink.write(RECORD)
    sink.close()
    assert "step 7/100  loss 0.25  1234 images/s  1:02:05 left" in out.getvalue()
    assert "\x1b[" in out.getvalue()


def test_jsonl_forgets_what_a_killed_run_wrote_too_far(tmp_path):
    path = tmp_path / "deep" / "log.jsonl"
    sink = training.jsonl(path)
    sink.start(0)
    for step in (1, 5, 10):
        sink.write({**RECORD, "step": step})
    sink.close()
    with path.open("a") as file:
        file.write('{"step": 15, "lo')
    sink.start(5)
    sink.write({**RECORD, "step": 9})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 5, 9]
    sink.close()
    assert json.loads(path.read_text().splitlines()[-1]) == {**RECORD, "step": 9}


def test_tensorboard_events_read_back(tmp_path):
    sink = training.tensorboard(tmp_path)
    sink.start(0)
    sink.write(RECORD)
    sink.close()
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    (path,) = tmp_path.iterdir()
    content, values = path.read_bytes(), {}
    while content:
        size = int.from_bytes(content[:8], "little")
        assert int.from_bytes(content[8:12], "little") == masked_crc32c(content[:8])
        event = Event.FromString(content[12 : 12 + size])
        values |= {value.tag: (event.step, value.simple_value) for value in event.summary.value}
        content = content[16 + size :]
    assert values["loss"] == (7, 0.25)
    assert values["seconds_left"] == (7, pytest.approx(3725))
