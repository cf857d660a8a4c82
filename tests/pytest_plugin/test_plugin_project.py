"""The plugin in another project: `python -m pytest` in a folder of its own, and the outcomes of its tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from junitparser import JUnitXml
from runner import sink
from servers import Tls

INI = "[pytest]\naddopts = --strict-markers --strict-config\nfilterwarnings = error\n"


class Project:
    """A folder with tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "pytest.ini").write_text(INI)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(text))

    def run(self, *options: str, **env: str) -> dict[str, str]:
        """Return test → `passed` or its failure; and the output and exit code of pytest as `output` and `code`."""
        report = self.folder / "report.xml"
        report.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junit-xml={report}", *options]
        done = subprocess.run(
            argv, cwd=self.folder, capture_output=True, text=True, timeout=120, env={**os.environ, **env}, check=False
        )
        found = {"output": done.stdout + done.stderr, "code": str(done.returncode)}
        for suite in JUnitXml.fromfile(str(report)) if report.exists() else ():
            for case in suite:
                found[case.name] = "\n".join(one.message + "\n" + one.text for one in case.result) or "passed"
        return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


SENDING = '''
    """Code that sends mail, and its tests."""
    import smtplib
    import ssl

    import pytest

    pytestmark = pytest.mark.smtpbench_sink(name="mx.mine.example")


    def send(sink, *, to="c@d.example", tls=None, login=None):
        with smtplib.SMTP("localhost", sink.port) as client:
            if tls:
                client.starttls(context=ssl.create_default_context(cafile=tls))
            if login:
                client.login(*login)
            client.sendmail("a@b.example", [to, "e@d.example"], "Subject: =?utf-8?q?caf=C3=A9?=\\r\\n\\r\\n.dot\\r\\n")


    def test_mail(smtpbench_sink):
        send(smtpbench_sink)
        send(smtpbench_sink, to="z@d.example")
        one, other = smtpbench_sink.wait_for(2)
        assert (one.sender, one.recipients) == ("a@b.example", ("c@d.example", "e@d.example"))
        assert other.recipients[0] == "z@d.example"
        assert one.message["Subject"] == "café" and one.message.get_content() == ".dot\\r\\n"
        assert one.content.endswith(b"\\r\\n\\r\\n.dot\\r\\n")
        assert not one.tls and not one.authenticated
        assert smtpbench_sink.url == f"smtp://127.0.0.1:{smtpbench_sink.port}"
        assert smtpbench_sink.counts["messages"] == {"accepted": 2, "rejected": 0}
        smtpbench_sink.clear()
        assert smtpbench_sink.mails == []


    @pytest.mark.smtpbench_sink(self_signed=True, require_tls=True, user="u", password="secret", require_auth=True)
    def test_tls(smtpbench_sink):
        send(smtpbench_sink, tls=smtpbench_sink.certificate, login=("u", "secret"))
        assert smtpbench_sink.mails[0].tls and smtpbench_sink.mails[0].authenticated
        with pytest.raises(smtplib.SMTPSenderRefused):
            send(smtpbench_sink)


    @pytest.mark.smtpbench_sink(reject="RCPT=100%")
    class TestRefused:
        def test_marker_of_the_class(self, smtpbench_sink):
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                send(smtpbench_sink)
            assert smtpbench_sink.mails == []

        @pytest.mark.smtpbench_sink(reject=(), on=["message=452 4.2.2 full"])
        def test_nearest_marker_wins(self, smtpbench_sink):
            with smtplib.SMTP("localhost", smtpbench_sink.port) as client:
                assert b"mx.mine.example" in client.ehlo()[1]
            with pytest.raises(smtplib.SMTPDataError, match="full"):
                send(smtpbench_sink)


    def test_several_sinks(smtpbench_sink_factory):
        first, second = smtpbench_sink_factory(), smtpbench_sink_factory(keep_messages=1)
        for to in ("one@d.example", "two@d.example"):
            send(second, to=to)
        assert first.mails == []
        assert [mail.recipients[0] for mail in second.wait_for(2)] == ["two@d.example"]
        assert second.forgotten == 1


    def test_no_message_comes(smtpbench_sink):
        smtpbench_sink.wait_for(1, timeout=0)


    @pytest.mark.smtpbench_sink(dleay="RCPT=20ms")
    def test_unknown_option(smtpbench_sink):
        pass


    @pytest.mark.smtpbench_sink(delay="RCPT")
    def test_invalid_value(smtpbench_sink):
        pass
'''


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_sent_messages_arrive_in_the_sink(project: Project, options: tuple[str, ...]) -> None:
    project.write("test_sending.py", SENDING)
    found = project.run(*options)
    passed = {name for name, outcome in found.items() if outcome == "passed"}
    assert passed == {
        "test_mail", "test_tls", "test_marker_of_the_class", "test_nearest_marker_wins", "test_several_sinks",
    }, found["output"]  # fmt: skip
    assert "0 messages came within 0 s, 1 expected; the sink had 0 connections" in found["test_no_message_comes"]
    assert "a sink has no option 'dleay'; allowed are delay, drop" in found["test_unknown_option"]
    assert "write VERB=VALUE" in found["test_invalid_value"]


MEASURING = '''
    """Runs and checks as tests."""
    import pytest


    @pytest.mark.smtpbench(thresholds=["message.p99 < 30s"])
    class TestRuns:
        @pytest.mark.smtpbench(thresholds=["failed < 1%"])
        def test_holds(self, smtpbench_run, smtpbench_target):
            run = smtpbench_run("relay", messages=20, connections=2, thresholds=["accepted == 20"])
            assert run.messages["accepted"] == 20
            assert run.result["target"]["url"] == smtpbench_target
            assert [one["threshold"] for one in run.result["thresholds"]] == [
                "message.p99 < 30s", "failed < 1%", "accepted == 20",
            ]
            assert run.value("message.p99") > 0 and run.value("failed") == 0
            assert (run.folder / "histograms.hlog").exists()

        @pytest.mark.smtpbench_sink(delay="message=20ms")
        def test_too_slow(self, smtpbench_run):
            smtpbench_run("relay", messages=5, connections=1, thresholds=["message.p50 < 10ms", "message.p50 < 30s"])

        def test_no_run(self):
            pass


    @pytest.mark.smtpbench_sink(self_signed=True, implicit_tls=True)
    def test_trusts_the_sinks_certificate(smtpbench_run, smtpbench_sink):
        assert smtpbench_run("relay", messages=5).messages["accepted"] == 5
        assert len(smtpbench_sink.mails) == 5


    def test_no_scenario(smtpbench_run):
        smtpbench_run("nowhere", messages=5)


    def test_no_threshold(smtpbench_run):
        smtpbench_run("relay", messages=5, thresholds=["fast"])


    @pytest.mark.smtpbench("message.p99 < 1s")
    def test_invalid_marker(smtpbench_run):
        smtpbench_run("relay", messages=5)


    def test_another_machine(smtpbench_run):
        smtpbench_run("relay", messages=5, target="smtp://192.0.2.1:25")


    def test_rules(smtpbench_check):
        result = smtpbench_check("eod-lf-lf", "eod-lf-crlf")
        assert result["rules"]["eod-lf-lf"]["verdict"] == "pass"


    @pytest.mark.smtpbench_sink(mutant="eod-lf-lf")
    def test_violated_rule(smtpbench_check):
        smtpbench_check("eod-lf-lf", known=["eod-lf-lf"])
        smtpbench_check("eod-lf-lf")
'''


def test_failed_thresholds_and_violations_fail_tests(project: Project) -> None:
    project.write("test_measuring.py", MEASURING)
    found = project.run("--smtpbench-target", "sink")
    passed = {name for name, outcome in found.items() if outcome == "passed"}
    assert passed == {"test_holds", "test_trusts_the_sinks_certificate", "test_rules"}, found["output"]
    slow = found["test_too_slow"]
    assert re.search(r"threshold failed: message.p50 < 10ms is \d", slow)
    assert "beyond the limit" in slow
    folder = re.search("^the run is in (.*)$", slow, re.MULTILINE)
    assert folder
    assert (Path(folder[1]) / "result.json").exists()
    assert "30s" not in slow
    assert "did not call smtpbench_run" in found["test_no_run"]
    assert "unknown scenario 'nowhere'" in found["test_no_scenario"]
    assert "'fast' is not a threshold" in found["test_no_threshold"]
    assert "takes thresholds=" in found["test_invalid_marker"]
    assert "use --smtpbench-authorized if you may test this host" in found["test_another_machine"]
    assert "violation of eod-lf-lf (RFC 5321" in found["test_violated_rule"]
    assert "to repeat: smtpbench check --target" in found["test_violated_rule"]


UNTARGETED = """
    import pytest


    def test_run(smtpbench_run):
        smtpbench_run("relay", messages=3)


    def test_rules(smtpbench_check):
        smtpbench_check("eod-lf-lf")


    def test_own_client(smtpbench_target):
        pass


    @pytest.mark.smtpbench(thresholds=["failed < 1%"])
    def test_thresholds(smtpbench_run):
        smtpbench_run("relay", messages=3)


    def test_sink_is_named(smtpbench_run, smtpbench_sink):
        smtpbench_run("relay", messages=3)
        assert len(smtpbench_sink.mails) == 3


    @pytest.mark.smtpbench_sink(name="mx.mine.example")
    def test_sink_is_marked(smtpbench_check):
        smtpbench_check("eod-lf-lf")
"""


def test_tests_without_a_target_are_skipped_unless_they_ask_for_the_sink(project: Project) -> None:
    project.write("test_untargeted.py", UNTARGETED)
    found = project.run()
    assert found["code"] == "0"
    assert {name for name, outcome in found.items() if outcome == "passed"} == {"test_sink_is_named", "test_sink_is_marked"}
    for name in ("test_run", "test_rules", "test_own_client", "test_thresholds"):
        assert found[name].startswith("no server to test: give --smtpbench-target URL"), found["output"]
    asked = project.run("--smtpbench-target", "sink")
    assert [asked[name] for name in ("test_run", "test_rules", "test_own_client", "test_thresholds")] == ["passed"] * 4


TARGET = """
    def test_run(smtpbench_run, smtpbench_target):
        print(smtpbench_target)
        assert smtpbench_run("submission" if "@" in smtpbench_target else "relay", messages=3).messages["accepted"] == 3
"""


def test_target_of_the_configuration_and_of_the_command_line(project: Project, tmp_path: Path) -> None:
    project.write("test_target.py", TARGET)
    with sink() as (port, counts):
        project.write("pytest.ini", INI + f"smtpbench_target = smtp://127.0.0.1:{port}\n")
        assert project.run()["test_run"] == "passed"
        refused = project.run("--smtpbench-target", "smtp://192.0.2.1:25")
        assert "use --smtpbench-authorized if you may test this host" in refused["test_run"]
    assert counts["messages"]["accepted"] == 3


def test_target_with_tls_and_a_login(project: Project, tls: Tls, tmp_path: Path) -> None:
    project.write("test_target.py", TARGET)
    (tmp_path / "password").write_text("secret\n")
    options = ("--tls-cert", str(tls.cert), "--tls-key", str(tls.key), "--require-tls")
    with sink(*options, "--user", "u", "--require-auth", SMTPBENCH_SINK_PASSWORD="secret") as (port, counts):
        reached = ("--smtpbench-target", f"smtp://u@localhost:{port}", "--smtpbench-ca", str(tls.ca))
        found = project.run(*reached, "--smtpbench-password-file", str(tmp_path / "password"))
        assert found["test_run"] == "passed", found["output"]
    assert counts["messages"]["accepted"] == 3


LAZY = """
    import sys

    def test_nothing_was_imported(pytestconfig):
        assert pytestconfig.pluginmanager.hasplugin("smtpbench.pytest_plugin")
        heavy = {"trio", "hypothesis", "pydantic", "typer", "rich", "yaml", "hdrh", "markupsafe", "prometheus_client", "ssl"}
        assert heavy & set(sys.modules) == set()
        assert {name for name in sys.modules if name.startswith("smtpbench")} == {"smtpbench", "smtpbench.pytest_plugin"}
"""


def test_project_without_its_fixtures_imports_nothing_else(project: Project) -> None:
    project.write("test_lazy.py", LAZY)
    found = project.run("-p", "smtpbench.pytest_plugin", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert found["test_nothing_was_imported"] == "passed", found["output"]


def test_plugin_needs_no_other_plugin(project: Project) -> None:
    project.write("test_sending.py", SENDING)
    found = project.run("-p", "smtpbench.pytest_plugin", "-k", "test_mail", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert found["test_mail"] == "passed", found["output"]


def test_markers_are_listed(project: Project) -> None:
    output = project.run("--markers")["output"]
    assert "@pytest.mark.smtpbench_sink(**options): options" in output
    assert "@pytest.mark.smtpbench(thresholds=[...]): thresholds" in output
