"""Ask a Prometheus every query of the dashboards, and fail if one finds nothing.

python docker/grafana/check.py http://localhost:9090
"""

from __future__ import annotations

import json
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

DASHBOARDS = Path(__file__).parent / "dashboards"


def main(prometheus: str) -> int:
    """Ask every query and print the number of its series; return the exit code."""
    found = [(title, query, n_series(prometheus, query)) for title, query in queries()]
    for title, query, n in found:
        print(f"{n:>4} series  {title}: {query}")
    n_empty = sum(n == 0 for _, _, n in found)
    print(f"{len(found)} queries, {n_empty} without data")
    return 1 if n_empty or not found else 0


def queries() -> Iterator[tuple[str, str]]:
    """Yield the panel title and PromQL of every query of every dashboard."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield panel["title"], target["expr"]


def n_series(prometheus: str, query: str) -> int:
    """Return the number of series that a query finds now with a value."""
    encoded = urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query?{encoded}", timeout=10) as answer:
        found = json.load(answer)["data"]["result"]
    return sum(series["value"][1] != "NaN" for series in found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].rstrip("/")))
