"""Passwords do not appear in text: addresses, queries, fields, headers, values of the environment."""

import logging

import pytest

from pipeline.errors import TrackingError
from pipeline.secrets import MaskingFilter, clickable, mask_handlers, masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://alice:s3cr3t@host:5000/x?page=2, again", "at http://***@host:5000/x?page=2, again"),
        ("https://alice@host/", "https://***@host/"),
        ("postgresql+psycopg2://alice:p@s/w?#d@host/db", "postgresql+psycopg2://***@host/db"),
        ("mysql+pymysql://alice:s3cr3t@host:3306/db", "mysql+pymysql://***@host:3306/db"),
        ("s3://KEY:s3/cr+3t@bucket/a", "s3://***@bucket/a"),
        ("http://host/?a=1&token=s3cr3t&b=2", "http://host/?a=1&token=***&b=2"),
        ("https://host/?X-Amz-Security-Token=s3cr3t&sig=s3cr3t", "https://host/?X-Amz-Security-Token=***&sig=***"),
        (
            "mssql+pyodbc:///?odbc_connect=UID%3Dsa%3BPWD%3Ds3cr3t%3B",
            "mssql+pyodbc:///?odbc_connect=UID%3Dsa%3BPWD%3D***%3B",
        ),
        ("host=h user=u password='s3 cr3t' port=1", "host=h user=u password=*** port=1"),
        ("{'Authorization': 'Basic YWxpY2U6czNjcjN0'}", "{'Authorization': 'Basic ***'}"),
        ("{'password': 's3cr3t', 'user': 'u'}", "{'password': '***', 'user': 'u'}"),
    ],
)
def test_secrets_in_text_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert masked(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/a@b/mlflow.db",
        "http://127.0.0.1:5000/a@b",
        "http://[::1]:5000/#/compare-runs?runs=%5B%22a%22%5D",
        "models:/vireid-smoke@best",
        "--set prompts.context_tokens=4 --set prompts.token=4",
        "basic training of 12 rounds, at 5:30 a.m. by me@home",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert masked(text) == text


def test_values_of_secret_variables_are_masked_wherever_they_appear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter22")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:letmein")
    monkeypatch.setenv("https_proxy", "alice:pr0xypw@proxy:3128")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://alice:p%40ss1@host")
    monkeypatch.setenv("PREFECT_API_URL", "http://bob:it's <my> pass@host:4200/api")
    monkeypatch.setenv("VIREID_MLFLOW_UI", "http://host:5000/a@b")
    monkeypatch.setenv("SOME_TOKEN", "true")  # a switch
    monkeypatch.setenv("PWD", "/home/alice")
    assert masked("hunter22 admin:letmein letmein pr0xypw p@ss1 p%40ss1") == "*** *** *** *** *** ***"
    assert masked("at http://bob:it's <my> pass@host:4200/api") == "at http://***@host:4200/api"
    assert masked("true /home/alice http://host:5000/a@b") == "true /home/alice http://host:5000/a@b"


def test_links_have_no_user() -> None:
    assert clickable("http://alice:s3cr3t@host:5000/a") == "http://host:5000/a"


def test_errors_are_masked() -> None:
    error = TrackingError("http://a:s3cr3t@host is away", hint="correct http://a:s3cr3t@host")
    assert (str(error), error.hint) == ("http://***@host is away", "correct http://***@host")


def test_log_lines_and_their_traces_are_masked(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("masked-logger")
    stream: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            stream.append(self.format(record))

    logger.addHandler(Kept())
    mask_handlers("masked-logger.child")
    mask_handlers("masked-logger.child")
    assert [type(one) for one in logger.handlers[0].filters] == [MaskingFilter]
    try:
        raise OSError("http://alice:s3cr3t@host refuses")
    except OSError as error:
        logging.getLogger("masked-logger.child").exception("at %s: %s", "http://a:s3cr3t@host", error)
    assert "at http://***@host: http://***@host refuses" in stream[0] and "Traceback" in stream[0]
    assert "s3cr3t" not in stream[0]
