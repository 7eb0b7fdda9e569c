"""The fixture that comes with the package, in a pytest run of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_sse import stream_sync
from llm_sse.testing import FakeServer

_ROOT = Path(__file__).parent.parent
#: Code that knows nothing of tests.
_CODE = """
    import anthropic, openai
    from llm_sse import stream_sync

    def ours(provider):
        return stream_sync("Hi", provider=provider, model="m").text()

    def theirs():
        with openai.OpenAI() as client:
            answer = client.chat.completions.create(
                model="any", messages=[{"role": "user", "content": "Hi"}]
            )
        return answer.choices[0].message.content

    def also_theirs():
        with anthropic.Anthropic() as client:
            answer = client.messages.create(
                model="any", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
            )
        return answer.content[0].text
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Where a pytest can be run whose only plugin is ours, and every warning an error."""
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    for name in list(os.environ):
        if name.startswith("COV"):  # a run that measures this one has a file of its own
            monkeypatch.delenv(name)
    return pytester


def outcomes(run: pytest.Pytester, *arguments: str) -> dict[str, int]:
    """Run pytest in a fresh process; return how many tests ended how."""
    given = ("-p", "pytest_llm_sse", "--strict-markers", "-W", "error", *arguments)
    return run.runpytest_subprocess(*given, timeout=50).parseoutcomes()


class TestFakeLLM:
    def test_code_under_test_needs_no_change(
        self, run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every provider's key and address lead to the fake, whatever the environment was."""
        monkeypatch.setenv("OPENAI_API_KEY", "sk-real")
        monkeypatch.setenv("GOOGLE_API_KEY", "real")
        monkeypatch.setenv("OPENAI_MODEL", "gpt-real")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        run.makepyfile(code_under_test=_CODE)
        run.makepyfile(
            """
            import os
            import pytest
            from code_under_test import ours
            from llm_sse.providers import PROVIDERS
            from llm_sse.testing import cut, say
            from llm_sse.errors import ConnectionLost

            @pytest.mark.parametrize("provider", list(PROVIDERS))
            def test_it_answers(fake_llm, provider):
                fake_llm.script(say("Hello."))
                assert ours(provider) == "Hello."
                (asked,) = fake_llm.requests
                assert "real" not in str(asked.headers) + str(asked.body)
                assert "GOOGLE_API_KEY" not in os.environ

            def test_it_breaks(fake_llm):
                fake_llm.script(say("Hel"), cut())
                with pytest.raises(ConnectionLost):
                    ours("anthropic")

            def test_the_environment_is_as_it_was():
                assert os.environ["OPENAI_API_KEY"] == "sk-real"
                assert os.environ["HTTP_PROXY"] == "http://127.0.0.1:1"
                assert "ANTHROPIC_BASE_URL" not in os.environ
            """
        )
        found = outcomes(run)
        assert set(found) == {"passed"}
        assert found["passed"] >= 7

    def test_the_vendors_packages_find_it_as_well(self, run: pytest.Pytester) -> None:
        """Clients that read the environment by themselves end up at the fake, too."""
        run.makepyfile(code_under_test=_CODE)
        run.makepyfile(
            """
            import code_under_test
            from llm_sse.testing import say

            def test_it_answers(fake_llm):
                fake_llm.script(say("Hello."))
                assert code_under_test.theirs() == "Hello."
                assert code_under_test.also_theirs() == "Hello."
                names = [asked.provider for asked in fake_llm.requests]
                assert names == ["openai", "anthropic"]
            """
        )
        # What those packages warn of is their own affair.
        assert outcomes(run, "-W", "default") == {"passed": 1}

    def test_a_marker_gives_it_settings(self, run: pytest.Pytester) -> None:
        """What FakeServer takes, the marker takes; it may stand on a class, and needs names."""
        run.makepyfile(
            """
            import pytest
            from llm_sse import stream_sync

            @pytest.mark.fake_llm(text="Hello.", ttft_s=0.1)
            class TestIt:
                def test_it_answers(self, fake_llm):
                    stream = stream_sync("Hi")
                    assert stream.text() == "Hello."
                    assert stream.metrics.ttft_ms >= 100

            @pytest.mark.fake_llm("Hello.")
            def test_it_complains(fake_llm):
                pass

            @pytest.mark.fake_llm(jitter=7)
            def test_it_complains_as_well(fake_llm):
                pass
            """
        )
        result = run.runpytest_subprocess("-p", "pytest_llm_sse", timeout=50)
        result.assert_outcomes(passed=1, errors=2)
        result.stdout.fnmatch_lines_random(
            ["*fake_llm's settings need names*", "*ConfigurationError: jitter must be between 0*"]
        )

    def test_rows_from_outside_lead_to_it_as_well(
        self, run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither an installed row nor one that the test registers is asked with its real key."""
        monkeypatch.setenv("ACME_API_KEY", "real-key-of-acme")
        monkeypatch.setenv("MINE_API_KEY", "real-key-of-mine")
        info = run.mkdir("acme_llm-1.2.dist-info")
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-llm\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(
            "[llm_sse.providers]\nacme = acme_rows:ROW\nbroken = no_such_module:ROW\n"
        )
        run.makepyfile(
            acme_rows="""
            from llm_sse.providers import OpenAI
            ROW = OpenAI("acme", base_url="http://127.0.0.1:1", model="m")
            """
        )
        run.makepyfile(
            """
            import os
            import pytest
            from llm_sse import register_provider, stream_sync
            from llm_sse.providers import Anthropic, OpenAI
            from llm_sse.testing import say

            def ask(fake_llm, name):
                fake_llm.script(say("Hello."))
                assert stream_sync("Hi", provider=name).text() == "Hello."
                asked = fake_llm.requests[-1]
                assert asked.provider == name
                assert "real" not in str(asked.headers)

            def test_installed(fake_llm):
                assert os.environ["ACME_API_KEY"] == "fake-key"
                ask(fake_llm, "acme")

            def test_registered(fake_llm, monkeypatch):
                row = OpenAI("mine", base_url="http://127.0.0.1:1", model="m")
                register_provider(row)
                ask(fake_llm, "mine")
                row = Anthropic("mine", base_url="http://127.0.0.1:1", model="m", key_env="OTHER")
                register_provider(row, replace=True)
                monkeypatch.setenv("OTHER", "the-tests-own")
                ask(fake_llm, "mine")
                assert fake_llm.requests[-1].headers["x-api-key"] == "the-tests-own"

            def test_the_environment_is_as_it_was():
                assert os.environ["ACME_API_KEY"] == "real-key-of-acme"
                assert os.environ["MINE_API_KEY"] == "real-key-of-mine"
                assert "MINE_BASE_URL" not in os.environ
            """
        )
        run.syspathinsert()
        monkeypatch.setenv("PYTHONPATH", f"{run.path}{os.pathsep}{_ROOT}")
        assert outcomes(run) == {"passed": 3}

    def test_other_credentials_are_out_of_the_environment(
        self, run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No token and no switch leads a vendor's SDK past the fake."""
        others = ("ANTHROPIC_AUTH_TOKEN", "GOOGLE_GENAI_USE_VERTEXAI", "AZURE_OPENAI_AD_TOKEN")
        for name in others:
            monkeypatch.setenv(name, "true")
        run.makepyfile(
            f"""
            import os

            def test_they_are_gone(fake_llm):
                assert not {set(others)!r} & set(os.environ)

            def test_they_are_back():
                assert {set(others)!r} < set(os.environ)
            """
        )
        assert outcomes(run) == {"passed": 2}

    def test_markers_add_up(self, run: pytest.Pytester) -> None:
        """The settings of all markers count; of two that say the same the closest one does."""
        run.makepyfile(
            """
            import pytest
            from llm_sse import stream_sync

            pytestmark = pytest.mark.fake_llm(replay="nowhere.jsonl", close_after=True)

            @pytest.mark.fake_llm(text="Of the class.")
            class TestIt:
                @pytest.mark.fake_llm(ttft_s=0.0)
                def test_pace(self, fake_llm):
                    assert stream_sync("Hi").text() == "Of the class."
                    assert fake_llm.close_after

                @pytest.mark.fake_llm(text="Of the test.", close_after=False)
                def test_text(self, fake_llm):
                    assert stream_sync("Hi").text() == "Of the test."
                    assert not fake_llm.close_after
            """
        )
        assert outcomes(run) == {"passed": 2}

    def test_a_recording_is_found_beside_the_test(self, run: pytest.Pytester) -> None:
        """From whichever folder pytest is started, a relative path is one from the test's file."""
        folder = run.mkdir("below")
        with FakeServer("As recorded.") as server:
            url = server.base_url("openai")
            record = folder / "answer.jsonl"
            stream_sync("Hi", base_url=url, api_key="any", record=record).text()
        (folder / "test_replay.py").write_text(
            """
import pytest
from llm_sse import stream_sync

@pytest.mark.fake_llm(replay="answer.jsonl", replay_speed=None)
def test_one(fake_llm):
    assert stream_sync("Hi").text() == "As recorded."

@pytest.mark.fake_llm(replay=["answer.jsonl"], replay_speed=None)
def test_several(fake_llm):
    assert stream_sync("Hi").text() == "As recorded."
"""
        )
        assert outcomes(run) == {"passed": 2}


class TestEverybodyElse:
    def test_who_does_not_use_it_does_not_notice_it(self, run: pytest.Pytester) -> None:
        """Nothing of the package is imported, and nobody is warned, before the fixture is used."""
        run.makepyfile(
            """
            import sys

            def test_it_is_not_there():
                ours = [name for name in sys.modules if name.partition(".")[0] == "llm_sse"]
                assert ours == []
                assert not {"requests", "urllib3", "msgspec"} & set(sys.modules)
            """
        )
        assert outcomes(run) == {"passed": 1}

    def test_the_plugin_imports_next_to_nothing(self) -> None:
        """Beside pytest, which is there already, one module is what a run pays for it."""
        program = (
            "import sys, pytest; before = set(sys.modules); import pytest_llm_sse; "
            "print(*set(sys.modules) - before)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
        )
        assert done.stdout.split() == ["pytest_llm_sse"]

    def test_coverage_sees_the_package_from_its_first_line(self, run: pytest.Pytester) -> None:
        """Who measures the package's coverage misses no line that an import runs."""
        run.makepyfile(
            """
            def test_it_answers(fake_llm):
                from llm_sse import complete_sync
                assert complete_sync("Hi").text
            """
        )
        result = run.runpytest_subprocess(
            *("-p", "pytest_llm_sse", "-p", "pytest_cov", "--cov=llm_sse", "--cov-report=term"),
            timeout=50,
        )
        result.assert_outcomes(passed=1)
        assert not result.stderr.str()
        (line,) = [line for line in result.outlines if "llm_sse/_version.py" in line]
        assert line.endswith("100%")
