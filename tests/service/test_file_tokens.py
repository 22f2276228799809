"""Tokens that are made on the control plane's host without it: each is written down once, by
whoever finds it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from controlplane.daemon import filetokens
from controlplane.model.identity import Role
from controlplane.service.auth import TokenFile
from tests.support.centre import Centre, centre

if TYPE_CHECKING:
    from pathlib import Path


def told(made: Centre) -> list[tuple[str, object, object]]:
    return [
        (event.kind, event.changed["principal"], event.changed.get("made_by"))
        for event in made.events("fileTokens")
    ]


def test_what_comes_and_goes_in_the_tokens_file_is_an_event(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    file = TokenFile(path)
    with centre(tmp_path) as made:
        look = filetokens.duty(file, made.registry).run
        look()
        assert told(made) == []
        secret = file.add("admin", Role.ADMIN, "root")
        file.add("eve", Role.USER)
        look()
        look()
        found = [
            ("file_token.found", "admin", "root"),
            ("file_token.found", "eve", None),
        ]
        assert told(made) == found
        assert secret not in str(made.events())
        # Another start of the control plane.
        look = filetokens.duty(TokenFile(path), made.registry).run
        look()
        assert told(made) == found
        entries = json.loads(path.read_text())["tokens"]
        path.write_text(json.dumps({"tokens": entries[:1]}))
        look()
        found.append(("file_token.gone", "eve", None))
        assert told(made) == found
        path.write_text("{")
        look()
        path.write_text(json.dumps({"tokens": entries}))
        filetokens.duty(TokenFile(path), made.registry).run()
        found.append(("file_token.found", "eve", None))
        assert told(made) == found
