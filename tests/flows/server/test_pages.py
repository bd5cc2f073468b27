"""Pages of Prefect and MLflow in a browser: password, form, run, rounds; no request to another host."""

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.runs.open import run_path
from tests.browser import chromium, needs_chromium
from tests.flows.command_line import vireid_command
from tests.flows.server.test_operations import PATIENCE, Servers, serving, smoke, the_flow_run, wait_until

CLOUD = ("Prefect Cloud", "Upgrade", "V2 UI")
"""Words of advertising."""


@needs_chromium
@pytest.mark.slow
def test_a_run_with_another_preset_is_started_from_the_form_and_shows_what_it_is(
    smoke_data: Path, tmp_path: Path
) -> None:
    with serving(tmp_path) as servers, chromium(tmp_path / "profile") as browser:
        deploy = vireid_command("deploy", "unsupervised/demo")
        subprocess.run(deploy, env=servers.environment, check=True, capture_output=True, cwd=tmp_path)
        address = servers.api.removesuffix("/api")
        browser.open(address)
        browser.wait("document.querySelector('input[type=password]')")
        assert "Authentication failed" not in browser.text
        browser.type("input[type=password]", servers.environment["PREFECT_API_AUTH_STRING"])
        browser.click("button[type=submit]", "Login")
        browser.wait_for_text("Dashboard")
        assert not [word for word in CLOUD if word in browser.text]

        deployment = deployed(servers)
        browser.open(f"{address}/deployments/deployment/{deployment['id']}/run")
        browser.wait_for_text("Clustering, visible")
        for text in ("cclnet-regdb", "Gallery rules", "Data (Optional)"):
            assert text in browser.text

        # What the form sends: every value of preset `demo`, another preset, and what the user has changed.
        config = smoke(smoke_data, tmp_path / "runs").model_copy(update={"name": "smoke"})
        changes = config.model_dump(mode="json", exclude_unset=True)
        form = {name: value | changes.get(name, {}) if isinstance(value, dict) else value
                for name, value in deployment["parameters"]["config"].items()}  # fmt: skip
        parameters = {"preset": "smoke", "config": form}
        servers.answer(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
        wait_until(lambda: the_flow_run(servers)["state_type"] in ("COMPLETED", "FAILED", "CRASHED"))
        run = the_flow_run(servers)
        assert run["state_type"] == "COMPLETED", run["state"]["message"]
        folder = tmp_path / "runs" / run["name"]
        assert folder.is_dir() and folder.name.startswith("smoke-s1-"), run_path(config)

        browser.open(f"{address}/runs/flow-run/{run['id']}")
        browser.wait_for_text(folder.name)
        browser.click("button, a, li, .p-tab", "Artifacts")
        browser.wait_for_text(f"result-{folder.name}")
        assert f"rounds-{folder.name}" in browser.text and f"mlflow-run-{folder.name}" in browser.text
        assert not [word for word in CLOUD if word in browser.text]

        (link,) = servers.answer("/artifacts/filter", {"artifacts": {"key": {"like_": "mlflow-rounds-"}}})
        browser.open(link["data"].rpartition("(")[2].rstrip(")"))
        browser.wait(r"document.body && /Metrics:\s*rank1/.test(document.body.innerText)")  # the first number
        assert browser.outside() == [] and len(browser.requests) > 10


def deployed(servers: Servers) -> dict[str, Any]:
    """The deployment `unsupervised/demo`."""
    auth = tuple(servers.environment["PREFECT_API_AUTH_STRING"].split(":"))
    answer = httpx.get(f"{servers.api}/deployments/name/unsupervised/demo", auth=auth, timeout=PATIENCE)
    return dict(answer.json())
