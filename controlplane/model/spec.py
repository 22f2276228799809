"""The door to everything about job.json: what it means, how it is checked, written and described.

One table (`specfields`) makes the validator, the JSON Schema and the reference, so that they agree.
The same check runs in `ccctl` and in the control plane.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from controlplane.model.specdocs import json_schema, reference_markdown
from controlplane.model.specedit import apply_overrides
from controlplane.model.specfaults import Faults, InvalidSpec, SpecFault
from controlplane.model.specfields import JOB
from controlplane.model.specpieces import VERSION, canonical_text, made
from controlplane.model.specvalues import (
    Archive,
    DeviceVisibility,
    JobSpec,
    Launcher,
    NodePath,
    OnDisconnect,
    Resources,
    Ship,
    WarningSignal,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Archive",
    "DeviceVisibility",
    "InvalidSpec",
    "JobSpec",
    "Launcher",
    "NodePath",
    "OnDisconnect",
    "Resources",
    "Ship",
    "SpecFault",
    "WarningSignal",
    "apply_overrides",
    "canonical",
    "canonical_json",
    "json_schema",
    "parse_spec",
    "reference_markdown",
    "spec_sha256",
]

SPECS_REMEMBERED: Final = 256
"""Of so many specs what was made last is kept: jobs that are submitted together are often alike."""


def parse_spec(document: Mapping[str, object], *, allow_ship: bool = False) -> JobSpec:
    """Check a decoded job.json and give it as a value.

    `allow_ship` lets `working_dir` name a folder to ship, and `pass_env` variables to take: for the
    client, before it does both.
    Raises `InvalidSpec` with every fault at once, and nothing else whatever `document` holds.
    """
    faults = Faults()
    found = JOB.read(document, "", faults)
    if found and isinstance(found.get("working_dir"), Ship) and not allow_ship:
        faults.add(
            "working_dir",
            document["working_dir"],
            "only ccctl can ship a folder; use ccctl submit, or upload an archive "
            'and give {"sha256": "…", "size": bytes}',
        )
    passed = document.get("pass_env") if found else None
    if passed and isinstance(passed, list | tuple) and not allow_ship:
        faults.add(
            "pass_env",
            passed,
            "only ccctl can take variables from your environment; use ccctl submit, or put their "
            "values into env",
        )
    faults.raise_if_any()
    return made(found or {})


def canonical(spec: JobSpec) -> dict[str, object]:
    """Give the document that says all of `spec`, defaults filled in; it parses to the same spec."""
    return {**JOB.write(spec), "version": VERSION}


@lru_cache(SPECS_REMEMBERED)
def canonical_json(spec: JobSpec) -> str:
    """Give the canonical document as compact JSON with sorted keys: equal specs give equal text."""
    return canonical_text(spec)


def spec_sha256(spec: JobSpec) -> str:
    """Give the SHA-256 of the canonical JSON, in lower-case hex."""
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()
