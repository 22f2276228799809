"""Who this node is: a UUID made once, and the highest epoch that it has obeyed."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from controlplane.kit.private import replace_private
from nodeagent.supervision import record

if TYPE_CHECKING:
    from pathlib import Path


class Identity:
    """Kept in `node.json` in the agent's state folder."""

    def __init__(self, state_dir: Path) -> None:
        """Read it, or make it. ValueError when the file is there but cannot be read."""
        self._path = state_dir / "node.json"
        try:
            document = json.loads(self._path.read_text())
            self.uuid = str(uuid.UUID(document["uuid"]))
            self.epoch_seen = int(document["epoch_seen"])
        except FileNotFoundError:
            self.uuid, self.epoch_seen = str(uuid.uuid4()), 0
            self._write()
        except record.DAMAGE as error:
            raise ValueError(
                f"{self._path}: is damaged ({error}); restore it, or remove it to join anew"
            ) from error

    def obey(self, epoch: int) -> bool:
        """Whether a control plane of this epoch may give orders; remembers the highest."""
        if epoch < self.epoch_seen:
            return False
        if epoch > self.epoch_seen:
            self.epoch_seen = epoch
            self._write()
        return True

    def _write(self) -> None:
        document = {"uuid": self.uuid, "epoch_seen": self.epoch_seen}
        replace_private(self._path, json.dumps(document))
