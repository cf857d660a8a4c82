"""`result.json`: its content, its schema, and where it is saved."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import full_disk
from figures import MS, busy_recorder, result_of, sample
from jsonschema import Draft202012Validator

from smtpbench.errors import UsageError
from smtpbench.measure import result as results
from smtpbench.measure.health import Health
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import Interval, Recorder
from smtpbench.measure.saved import load
from smtpbench.measure.schema import schema_text

SCHEMA = json.loads(schema_text("result"))
TIMES = ("count", "min_ms", "mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99_9_ms", "max_ms")


def without_additional_keys(schema: Any) -> Any:
    """Return the schema without additional keys, so that every key of a result must be described."""
    if isinstance(schema, list):
        return [without_additional_keys(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: without_additional_keys(value) for name, value in schema.items()}
    return {"additionalProperties": False, **found} if "properties" in found else found


def schema_errors(result: dict[str, Any], schema: Any = SCHEMA) -> list[str]:
    return [error.message for error in Draft202012Validator(schema).iter_errors(json.loads(json.dumps(result)))]


# -- content ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["open", "closed"])
@pytest.mark.parametrize(
    "totals", [Interval(), busy_recorder(late_us=900).drain()], ids=["nothing", "something of everything"]
)
def test_result_is_valid_by_its_schema(model: str, totals: Interval) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert schema_errors(result_of(totals, model=model), without_additional_keys(SCHEMA)) == []
    domains = results.domains_section({"x.example": totals}, 30.0)
    assert schema_errors(result_of(totals, model=model) | {"domains": domains}, without_additional_keys(SCHEMA)) == []


def change_key(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(result: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        for name in parents:
            result = result[name]
        if value is None:
            del result[last]
        else:
            result[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        change_key("schema", "smtpbench-result/2"),
        change_key("messages/dropped", None),
        change_key("messages/accepted", -1),
        change_key("messages/accepted", 1.5),
        change_key("latency/message/response", None),
        change_key("latency/message/service/p99_9_ms", None),
        change_key("latency/message/service/p99_ms", "8 ms"),
        change_key("replies/MAIL/99", 4),
        change_key("enhanced/MAIL/250 9.1.0", 4),
        change_key("generator/limited", None),
        change_key("load/model", "half-open"),
        change_key("target/url", None),
    ],
)
def test_schema_refuses_an_invalid_result(change: Callable[[dict[str, Any]], None]) -> None:
    result = copy.deepcopy(result_of(busy_recorder().drain()))
    assert schema_errors(result) == []
    change(result)
    assert len(schema_errors(result)) == 1


def test_schema_accepts_additional_keys() -> None:
    result = result_of(busy_recorder().drain())
    result["generator"]["temperature_c"] = 40
    assert schema_errors(result) == []
    assert schema_errors(result, without_additional_keys(SCHEMA)) != []


def test_keys_that_other_programs_rely_on() -> None:
    result = result_of(busy_recorder().drain())
    for metric in ("banner", "EHLO", "MAIL", "RCPT", "DATA", "message", "connect", "tls", "transaction", "session"):
        for kind in ("service", "response"):
            assert result["latency"][metric][kind].keys() >= set(TIMES)
    assert result["latency_failed"].keys() == {"RCPT", "message", "transaction"}
    assert result["replies"]["RCPT"].keys() == {"250", "550"}
    assert result["enhanced"]["RCPT"].keys() == {"250 2.1.5", "550 5.1.1"}
    assert result["replies"]["RSET"].keys() == {"250"}
    assert "RSET" not in result["latency"]
    assert result["errors"].keys() == {"reset", "timeout"}
    assert result["generator"].keys() >= {"cpu_s", "limited", "late_p99_ms", "peak_rss_bytes", "connections_peak"}
    assert result["versions"].keys() >= {"smtpbench", "python", "trio", "hdrhistogram", "os", "openssl"}


def test_attempted_is_the_sum_of_the_outcomes() -> None:
    totals = busy_recorder().drain()
    messages = result_of(totals)["messages"]
    assert messages["attempted"] == 2000 == sum(messages.values()) - messages["attempted"]
    assert all(messages[name] == totals.messages[name] > 0 for name in messages if name != "attempted")


def test_values_have_the_units_of_their_keys() -> None:
    recorder = Recorder()
    recorder.samples("message", "message", b"250 2.0.0 Ok\r\n", True).extend(
        [sample(2 * MS), sample(4 * MS, late_us=10_000)]
    )
    recorder.accepted = 2
    health = Health(cpu_user_s=1.0, cpu_system_s=2.0, late=Histogram.of([3 * MS]))
    result = result_of(recorder.drain(), health=health, window_s=4.0)
    assert result["throughput"] == {"messages_per_s": 0.5, "messages": 2}
    service, response = (result["latency"]["message"][kind] for kind in ("service", "response"))
    assert [service[name] for name in ("count", "min_ms", "mean_ms", "max_ms")] == [2, 2.0, 3.0, 4.0]
    assert [response[name] for name in ("count", "min_ms", "mean_ms", "max_ms")] == [2, 2.0, 8.0, 14.0]
    assert service["p50_ms"] == pytest.approx(2.0, rel=1e-3)
    assert result["generator"]["cpu_s"] == 3.0
    assert result["generator"]["cpu_share_of_window"] == 0.75
    assert result["generator"]["late_p99_ms"] == 3.0


def test_replies_are_counted_by_code_and_those_without_code_as_malformed() -> None:
    recorder = Recorder()
    for raw, ok in ((b"250 2.1.0 Ok\r\n", True), (b"250 2.1.5 Ok\r\n", False), (b"250 Ok\r\n", True), (b"what?\r\n", False)):
        recorder.samples("RCPT", "RCPT", raw, ok).append(MS)
    result = result_of(recorder.drain())
    assert result["replies"] == {"RCPT": {"250": 3, "malformed": 1}}
    assert result["enhanced"] == {"RCPT": {"250 2.1.0": 1, "250 2.1.5": 1}}
    assert schema_errors(result) == []


def test_generator_that_was_the_bottleneck() -> None:
    generator = result_of(Interval(), health=Health(busiest_share=0.97))["generator"]
    assert generator["limited"] is True
    assert generator["limited_reasons"] == ["the busiest worker used 97% of its core"]
    assert result_of(Interval(), health=Health())["generator"]["limited"] is False


def test_run_of_no_length_has_no_throughput() -> None:
    assert result_of(Interval(), window_s=0.0)["throughput"]["messages_per_s"] == 0.0


# -- saving --------------------------------------------------------------------------------------------------


@pytest.fixture
def temporary_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which temporary folders are created."""
    folder = tmp_path / "temporary_root"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_saved_result_is_read_back(tmp_path: Path) -> None:
    result = result_of(busy_recorder().drain())
    saved = results.save(result, tmp_path / "new" / "run")
    assert saved == tmp_path / "new" / "run" / "result.json"
    assert [path.name for path in saved.parent.iterdir()] == ["result.json"]
    assert load(saved).result == load(saved.parent).result == json.loads(json.dumps(result))


def test_result_of_a_folder_that_cannot_be_written_is_in_a_temporary_folder(tmp_path: Path, temporary_root: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    saved = results.save(result_of(Interval()), tmp_path / "file" / "run")
    assert saved.parent.parent == temporary_root
    assert load(saved).result["seed"] == 7


@pytest.mark.usefixtures("temporary_root")
def test_full_disk_does_not_change_the_existing_result(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("the last one")
    with full_disk(100), pytest.raises(OSError, match="File too large"):
        results.save(result_of(Interval()), tmp_path)
    assert (tmp_path / "result.json").read_text() == "the last one"
    assert not (tmp_path / ".result.json.partial").exists()


def test_text_that_is_not_unicode_is_saved(tmp_path: Path) -> None:
    scenario = {"name": "relay", "file": "caf\udce9.yaml", "sha256": "0" * 64, "text": "é → 日本"}
    saved = results.save(result_of(Interval(), scenario=scenario), tmp_path)
    assert load(saved).result["scenario"] == scenario
    assert "é → 日本" in saved.read_text(encoding="utf-8")


# -- loading -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"schema": "smtpbench-result/1"', "not JSON"),
        (b"[1, 2]", "not a result of smtpbench"),
        (b"{}", "not a result of smtpbench"),
        (b'{"schema": 1}', "not a result of smtpbench"),
        (b'{"schema": "another/1"}', "not a result of smtpbench"),
        (
            b'{"schema": "smtpbench-result/2"}',
            "unknown version smtpbench-result/2; this version of smtpbench reads smtpbench-result/1",
        ),
        (b'{"schema": "smtpbench-result/\\u001b[2J"}', r"unknown version smtpbench-result/\x1b[2J"),
        (b'{"schema": "smtpbench-result/1", "messages": []}', "incomplete; missing: outcome, scenario,"),
    ],
)
def test_file_that_is_not_a_result_is_refused_in_one_line(tmp_path: Path, content: bytes, complaint: str) -> None:
    file = tmp_path / "result.json"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert complaint in message
    assert message.isprintable()


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such file or directory"):
        load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"result\.json: no such file or directory"):
        load(tmp_path)
