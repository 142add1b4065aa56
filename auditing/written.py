"""The files of an audit: audit.json, audit.xml, records.csv and audit.html."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from attackers import metrics
from auditing.page import write_page
from auditing.result import Audit
from core.files import write

SCHEMA = 1  # version of what audit.schema.json describes: raise it where a reader would fail
JSON, XML, RECORDS, PAGE = "audit.json", "audit.xml", "records.csv", "audit.html"
NAMED = {"named_at_0.01": 0.01, "named_at_0.001": 0.001}


def write_audit(audit: Audit, out: Path) -> list[Path]:
    """Write all files into a folder, each whole or not at all; returns their paths."""
    write(out / JSON, json.dumps(as_json(audit), indent=1, allow_nan=False).encode())
    write(out / XML, as_junit(audit))
    write(out / RECORDS, as_csv(audit))
    write_page(audit, out)
    return [out / name for name in (PAGE, JSON, XML, RECORDS)]


def as_json(audit: Audit) -> dict:
    """All of an audit but what is known of each record, which is in records.csv."""
    fields = {name: value for name, value in vars(audit).items() if name != "records"}
    attacks = [
        {"name": one.name, "about": one.about, "release": one.release, "measures": one.measures}
        for one in audit.attacks
    ]
    plain = asdict(Audit(**fields | {"attacks": [], "records": None}))
    del plain["records"]
    return {"schema": SCHEMA} | plain | {"attacks": attacks}


def as_junit(audit: Audit) -> bytes:
    """A test case for each gate, for tools that show tests.

    A gate that fails is a failure, one that is inconclusive an error: `skipped` would be shown as
    fine, while the exit status says that it is not.
    """
    count = {kind: sum(one.outcome == kind for one in audit.gates) for kind in _ELEMENTS}
    suite = ElementTree.Element(
        "testsuite",
        name="audit",
        tests=str(len(audit.gates)),
        failures=str(count["fail"]),
        errors=str(count["inconclusive"]),
        skipped="0",
        timestamp=audit.made,
    )
    for gate in audit.gates:
        case = ElementTree.SubElement(
            suite, "testcase", classname=audit.subject.title, name=gate.condition
        )
        element = _ELEMENTS.get(gate.outcome)
        if element is not None:
            problem = ElementTree.SubElement(case, element, type=gate.outcome, message=gate.reason)
            problem.text = "\n".join(f"add: {one}" for one in gate.add)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


_ELEMENTS = {"fail": "failure", "inconclusive": "error"}


def as_csv(audit: Audit) -> bytes:
    """A row a target, by the score of the strongest attack, the largest first; cells are empty where
    nothing is known."""
    records = audit.records
    n = len(records.member)
    columns: dict[str, Iterable] = {
        "record": records.record_ids,
        "class": records.labels,
        "group": _cells(records.group, n),
        "member": records.member.astype(int),
    }
    order = np.arange(n)
    if audit.strongest is None:
        columns |= dict.fromkeys(("score", *NAMED), _cells(None, n))
    else:
        one = audit.attacks[audit.strongest]
        order = np.argsort(-one.scores, kind="stable")
        columns["score"] = one.scores
        for name, limit in NAMED.items():
            told = one.measures[f"tpr_at_{limit:g}"] is not None
            named = metrics.named_records(one.scores, records.member, limit=limit).astype(int)
            columns[name] = _cells(named if told else None, n)
    columns["memorisation"] = _cells(records.memorisation, n)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    rows = list(zip(*(np.asarray(column).tolist() for column in columns.values())))
    writer.writerows(rows[index] for index in order)
    return text.getvalue().encode()


def _cells(values: np.ndarray | None, n: int) -> Iterable:
    if values is None:
        return [""] * n
    if values.dtype.kind == "f":
        return ["" if np.isnan(value) else repr(value) for value in values.tolist()]
    return values
