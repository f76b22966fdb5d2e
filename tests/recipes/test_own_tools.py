"""Each recipe works as printed, in an environment that has its tool alone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rankmill.settings import CHECKOUT
from tests.recipes.conftest import Search

# Each installs a tool first.
pytestmark = [pytest.mark.recipes, pytest.mark.timeout(900)]
Tool = Callable[..., Path]

RUN_DAG = "import airflow_dag; assert airflow_dag.nightly.test().state == 'success'"
RUN_ASSET = (
    "import dagster, dagster_asset as a; assert dagster.materialize([a.scored]).success, 'failed'"
)
ASK = (
    "import {module} as recipe\n"
    "retriever = recipe.{make}('candidates.parquet', 'scored', k=3)\n"
    "import json\n"
    "print(json.dumps([{fields} for each in retriever.{ask}({query!r})]))"
)


def run(command: list[object], folder: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def assert_scored(folder: Path) -> None:
    assert (folder / "_SUCCESS").exists()
    assert pq.read_table(folder)["rank"].to_pylist() == [*range(1, 11)] * 3


def best(search: Search) -> tuple[str, list[str]]:
    """Return the first query and its three best documents."""
    rows = pq.read_table(search.folder / "scored").slice(0, 3).to_pylist()
    texts = pq.read_table(search.folder / "candidates.parquet").to_pylist()
    (query,) = {each["query"] for each in texts if each["query_id"] == rows[0]["query_id"]}
    return query, [row["doc_id"] for row in rows]


def test_airflow(search: Search, cluster: dict[str, str], tool: Tool) -> None:
    programs = tool("apache-airflow")
    search.file("Airflow", "airflow_dag.py")
    home = search.folder / "airflow"
    env = {
        **cluster,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(search.folder),
        "AIRFLOW_CONN_FS_DEFAULT": '{"conn_type": "fs", "extra": {"path": "/"}}',
    }
    run([programs / "airflow", "db", "migrate"], search.folder, env)
    run([programs / "python", "-c", RUN_DAG], search.folder, env)
    (done,) = (search.folder / "scored").glob("*/_SUCCESS")
    assert_scored(done.parent)


def test_dagster(search: Search, cluster: dict[str, str], tool: Tool) -> None:
    programs = tool("dagster", str(CHECKOUT))
    search.file("Dagster", "dagster_asset.py")
    run([programs / "python", "-c", RUN_ASSET], search.folder, cluster)
    assert_scored(search.folder / "scored")


def test_prefect(search: Search, cluster: dict[str, str], tool: Tool) -> None:
    programs = tool("prefect", str(CHECKOUT))
    file = search.file("Prefect", "prefect_flow.py")
    env = {
        **cluster,
        "PREFECT_HOME": str(search.folder / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "350",
    }
    run([programs / "python", file], search.folder, env)
    assert_scored(search.folder / "scored")


def test_dbt(scored: Search, tool: Tool) -> None:
    programs = tool("dbt-core<1.12", "dbt-duckdb")  # 1.12 loads a part of itself from GitHub
    for title in ("models/sources.yml", "models/top_documents.sql"):
        scored.file("dbt", title)
    (scored.folder / "dbt_project.yml").write_text(
        "name: search\nversion: 1.0.0\nprofile: search\n"
    )
    (scored.folder / "profiles.yml").write_text(
        "search:\n  target: dev\n  outputs:\n    dev: {type: duckdb, path: search.duckdb}\n"
    )
    run([programs / "dbt", "build", "--profiles-dir", "."], scored.folder)
    count = "import duckdb; print(len(duckdb.connect('search.duckdb').table('top_documents')))"
    assert run([programs / "python", "-c", count], scored.folder) == "9\n"


@pytest.mark.parametrize(
    ("heading", "package", "make", "fields", "ask"),
    [
        ("LangChain", "langchain-core", "load", "each.metadata['doc_id']", "invoke"),
        ("LlamaIndex", "llama-index-core", "Reranked", "each.node.id_", "retrieve"),
    ],
)
def test_a_retriever_gives_the_documents_in_our_order(
    scored: Search, tool: Tool, heading: str, package: str, make: str, fields: str, ask: str
) -> None:
    programs = tool(package, "pyarrow")
    module = f"{heading.lower()}_retriever"
    scored.file(heading, f"{module}.py")
    query, documents = best(scored)
    script = ASK.format(module=module, make=make, fields=fields, ask=ask, query=query)
    shown = run([programs / "python", "-c", script], scored.folder)
    assert shown.splitlines()[-1] == str(documents).replace("'", '"')
