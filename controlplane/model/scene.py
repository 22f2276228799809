"""A view and a policy as one file: everything that a decision depends on, so that it can be made
again elsewhere, with no daemon."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from controlplane.model.document import BadDocument, from_document, to_document
from controlplane.model.policy import Policy
from controlplane.model.view import Running, Shape, View, Waiting

FORMAT = "controlplane-view"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that a decision depends on."""

    view: View
    """What it may know."""
    policy: Policy
    """What the site wishes."""


def write_scene(scene: Scene) -> str:
    """One JSON document, without a space; equal scenes give equal text. Shapes are written once and
    named by their place."""
    view = scene.view
    shapes: dict[Shape, int] = {}
    for shape in (*(w.shape for w in view.waiting), *(r.shape for r in view.running)):
        shapes.setdefault(shape, len(shapes))
    document = {
        "format": FORMAT,
        "version": VERSION,
        "policy": to_document(scene.policy),
        "shapes": [to_document(shape) for shape in shapes],
        "view": to_document(replace(view, waiting=(), running=())),
        "waiting": [_numbered(w, shapes) for w in view.waiting],
        "running": [_numbered(r, shapes) for r in view.running],
    }
    return _compact(document)


def read_scene(text: str) -> Scene:
    """What `write_scene` wrote. BadDocument, with the path, for anything else."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BadDocument(f"is no JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BadDocument(f'is no view: "format" must be "{FORMAT}"')
    if document.get("version") != VERSION:
        words = f"version {document.get('version')!r} is not known here; this reads {VERSION}"
        raise BadDocument(words)
    shapes = from_document(tuple[Shape, ...], document.get("shapes", []), "shapes")
    view = from_document(View, document.get("view"), "view")
    return Scene(
        view=replace(
            view,
            waiting=tuple(_shaped(Waiting, document, "waiting", shapes)),
            running=tuple(_shaped(Running, document, "running", shapes)),
        ),
        policy=from_document(Policy, document.get("policy", {}), "policy"),
    )


def digest(text: str) -> str:
    """SHA-256 of a document, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def _numbered(entry: Waiting | Running, shapes: dict[Shape, int]) -> dict[str, Any]:
    number = shapes[entry.shape]
    document: dict[str, Any] = to_document(replace(entry, shape=None))  # type: ignore[arg-type]
    return {**document, "shape": number}


def _shaped(kind: Any, document: dict[str, Any], name: str, shapes: tuple[Shape, ...]) -> list[Any]:
    entries = document.get(name, [])
    if not isinstance(entries, list):
        raise BadDocument(f"{name}: must be a list")
    made = []
    for i, entry in enumerate(entries):
        path = f"{name}[{i}]"
        number = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(number, int) or not 0 <= number < len(shapes):
            raise BadDocument(f"{path}.shape: must be the place of one of shapes")
        made.append(from_document(kind, {**entry, "shape": shapes[number]}, path))
    return made


def _compact(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
