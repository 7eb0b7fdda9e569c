from __future__ import annotations

import pytest

from benchmarks import web_servers
from benchmarks.web_measure import Pace
from benchmarks.web_processes import SERVERS
from benchmarks.web_servers import Figures, Row, rows


@pytest.fixture(autouse=True)
def _one_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure one server, without nginx."""
    name = "flask-werkzeug"
    monkeypatch.setattr(web_servers, "SERVERS", {name: SERVERS[name]})
    monkeypatch.setattr(web_servers, "nginx_binary", lambda: None)


class TestWebServers:
    def test_measures_a_server_as_its_visitors_do(self, capsys: pytest.CaptureFixture[str]) -> None:
        """One line for the server; the exit status says whether leaving was noticed in time."""
        status = web_servers.main(["--runs", "1", "--heartbeat-s", "0.4"])
        said = capsys.readouterr().out
        (line,) = [line for line in said.splitlines() if line.startswith("| flask-werkzeug |")]
        units = [cell.split()[-1] for cell in line.split("|")[2:-1]]
        assert units == ["ms", "ms", "ms", "s", "s", "s"]
        assert "inf" not in line
        assert status == ("Not noticed within one heartbeat" in said)

    def test_fails_where_a_provider_learns_it_late(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A median above the heartbeat is told, and is an exit status for scripts."""
        figures = Figures()
        figures.paces.append(Pace(1.0, 1.0))
        for seconds in figures.left():
            seconds.append(0.1)
        figures.before_the_status[:] = [100.0]
        monkeypatch.setattr(
            web_servers, "measure", lambda *_: {Row("flask-werkzeug", None): figures}
        )
        assert web_servers.main(["--runs", "1"]) == 1
        assert "heartbeat: flask-werkzeug" in capsys.readouterr().out

    def test_a_server_without_http_is_measured_behind_nginx(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A browser cannot ask it; nginx asks it in its own protocol."""
        monkeypatch.setattr(web_servers, "SERVERS", SERVERS)
        assert Row("flask-uwsgi-socket", "uwsgi") in rows(nginx=True)
        assert not any(row.server == "flask-uwsgi-socket" for row in rows(nginx=False))
