"""What workers report of their progress: read beside their output, and handed over to the control
plane.

Each rank may append JSON lines to a file of its own, `CC_REPORT`, in the lease's folder for
temporary files. The file is its job's, and so may be anything: what is no regular file of the
job's owner is not read, of a flood only the end is, and the lines are checked
(`controlplane.model.progressline`).

What is handed over is written down first, with up to where the files were read, in the lease's
control folder. So an agent that is started anew sends it once more as it was, and goes on behind
it: no checkpoint is lost, and no point is told twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError

from controlplane.model.lease import LeasePhase
from controlplane.model.progress import (
    LONGEST_FAULT,
    MOST_FAULTS,
    MOST_POINTS,
    Checkpoint,
    LeaseProgress,
    Point,
    added,
)
from controlplane.model.progressline import LONGEST_LINE, parse_line
from controlplane.v1 import agent_service_pb2 as pb
from controlplane.wire.progress import lease_progress_message, lease_progress_value
from nodeagent.supervision import record

if TYPE_CHECKING:
    from pathlib import Path

    from controlplane.kit.clock import Clock
    from nodeagent.folders import LeaseKey
    from nodeagent.leases import Leases

log = logging.getLogger(__name__)

REPORT_FILE = ".cc-report"
"""Name of a report in the folder for temporary files; a dot and the rank follow."""
JOURNAL = "progress.json"
"""In the lease's control folder: what is handed over, and up to where it was read."""
PERIOD_US = 2_000_000
"""A lease that runs hands over so often at most."""
READ_BYTES = 64 << 10
MOST_LINES = 2000
"""Read of one report at a time: the agent has other things to do."""
FLOOD_BYTES = 1 << 20
"""What a report has grown by since the last look; of more only the last `READ_BYTES` are read."""
MOST_SEEN = 64
"""Faults of a lease that are known when they come again."""
LOOKS = 8
"""At a lease's end its reports are read so often in a row; what still grows then, another time."""
MOST_LEASES = 500
"""Leases in one call."""

Ship = Callable[[pb.ShipProgressRequest], Awaitable[pb.ShipProgressResponse]]


@dataclass(slots=True)
class Place:
    """Up to where a rank's report was read."""

    inode: int = 0
    """Which file; 0 for none yet."""
    at: int = 0
    """Bytes read of it."""
    line: int = 0
    """Lines read of it; -1 when they are not counted any more."""
    torn: bool = False
    """Whether what comes next, up to its end, is the rest of a line that is passed over."""
    flooded: int = 0
    """Bytes that were passed over in all."""


@dataclass(slots=True)
class LeaseReports:
    """The reports of one lease's workers."""

    key: LeaseKey
    folder: Path
    """Where the reports lie."""
    control: Path
    """Where the journal lies."""
    ranks: tuple[int, ...]
    """Whose."""
    uid: int
    """Whose the files must be."""
    places: dict[int, Place] = field(default_factory=dict)
    rank: int | None = None
    points: tuple[Point, ...] = ()
    checkpoint: Checkpoint | None = None
    faults: list[str] = field(default_factory=list)
    seen: set[tuple[int, str]] = field(default_factory=set)
    more_faults: int = 0
    told_faults: tuple[str, ...] = ()
    last_us: int = 0
    due_boot_us: int = 0
    sent: LeaseProgress | None = None
    refused: bool = False
    """The control plane does not know the lease: nothing is wanted of it."""

    # Reading

    def look(self, now_us: int, *, whole: bool) -> bool:
        """Read what is new; whether there was anything. `whole`: the workers have ended, so that a
        last line without an end is one."""
        news = False
        with contextlib.suppress(OSError):
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for rank in self.ranks:
                    news = self._look(folder, rank, now_us, whole) or news
            finally:
                os.close(folder)
        return news

    def _look(self, folder: int, rank: int, now_us: int, whole: bool) -> bool:
        name = f"{REPORT_FILE}.{rank}"
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return False
        place = self.places.get(rank, Place())
        if not self._is_readable(found):
            self._fault(rank, "is no regular file of the job's own, and is not read")
            return False
        if place.inode == found.st_ino and place.at == found.st_size:
            return False
        try:
            fd = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
            )
        except OSError:
            return False
        try:
            found = os.fstat(fd)
            if not self._is_readable(found):
                return False
            return self._read(fd, rank, self._placed(place, found), found.st_size, now_us, whole)
        finally:
            os.close(fd)

    def _is_readable(self, found: os.stat_result) -> bool:
        return stat.S_ISREG(found.st_mode) and found.st_uid == self.uid and found.st_nlink == 1

    def _placed(self, place: Place, found: os.stat_result) -> Place:
        if place.inode != found.st_ino or found.st_size < place.at:
            return Place(inode=found.st_ino, flooded=place.flooded)  # replaced, or cut short
        return place

    def _read(self, fd: int, rank: int, place: Place, size: int, now_us: int, whole: bool) -> bool:
        self.places[rank] = place
        if size - place.at > FLOOD_BYTES:
            passed = size - READ_BYTES - place.at
            place.at, place.line, place.torn = place.at + passed, -1, True
            place.flooded += passed
            self._flooded(rank, place.flooded)
        data = os.pread(fd, READ_BYTES, place.at)
        *lines, rest = data.split(b"\n", MOST_LINES)
        for line in lines:
            place.at += len(line) + 1
            place.line += place.line >= 0
            if not place.torn:
                self._take(rank, place, line, now_us)
            place.torn = False
        if len(lines) == MOST_LINES:
            return True
        if len(rest) > LONGEST_LINE or (whole and rest and place.at + len(rest) >= size):
            place.at += len(rest)
            place.line += place.line >= 0 and not place.torn
            if not place.torn:
                self._take(rank, place, rest, now_us)
            place.torn = True
        return bool(data)

    def _take(self, rank: int, place: Place, data: bytes, now_us: int) -> None:
        if not data.strip():
            return
        line = parse_line(data)
        for words in line.faults:
            where = f"line {place.line}: " if place.line >= 0 else ""
            self._fault(rank, words, where)
        self.last_us = max(now_us, self.last_us + 1)
        if line.checkpoint is not None:
            self.checkpoint = Checkpoint(
                time_us=self.last_us,
                rank=rank,
                path=line.checkpoint.path,
                step=line.checkpoint.step,
            )
        if not line.says_something or (self.rank is not None and rank > self.rank):
            return
        if rank != self.rank:
            self.rank, self.points = rank, ()
        point = Point(
            time_us=self.last_us, step=line.step, fraction=line.fraction, metrics=line.metrics
        )
        self.points = added(self.points, point, MOST_POINTS)

    def _fault(self, rank: int, words: str, where: str = "") -> None:
        if (rank, words) in self.seen:
            return  # the same on another line
        if len(self.seen) < MOST_SEEN:
            self.seen.add((rank, words))
        text = f"rank {rank}'s report: {where}{words}"[:LONGEST_FAULT]
        text = text.encode(errors="replace").decode()
        if len(self.faults) < MOST_FAULTS - 1:
            self.faults.append(text)
        else:
            self.more_faults += 1

    def _flooded(self, rank: int, count: int) -> None:
        begin = f"rank {rank}'s report: grows faster than it is read: "
        self.faults = [words for words in self.faults if not words.startswith(begin)]
        self.faults.insert(0, f"{begin}{count} bytes were passed over")
        del self.faults[MOST_FAULTS - 1 :]

    @property
    def all_faults(self) -> tuple[str, ...]:
        """What is told of them."""
        more = [f"and {self.more_faults} more faults"] if self.more_faults else []
        return (*self.faults, *more)

    # Handing over

    def due(self, boot_us: int, *, ended: bool) -> LeaseProgress | None:
        """What is to be handed over now: what was sent and not answered, or else what has come
        since, not too often on boot time. OSError when it cannot be written down."""
        if self.sent is not None:
            return self.sent
        faults = self.all_faults
        news = self.points or self.checkpoint is not None or faults != self.told_faults
        if not news or (boot_us < self.due_boot_us and not ended):
            return None
        told = LeaseProgress(
            lease_id=self.key.lease_id,
            token=self.key.token,
            rank=self.rank if self.points else None,
            points=self.points,
            checkpoint=self.checkpoint,
            faults=faults,
        )
        self._write(told)
        self.sent, self.points, self.checkpoint = told, (), None
        self.due_boot_us, self.told_faults = boot_us + PERIOD_US, faults
        return told

    def _write(self, told: LeaseProgress) -> None:
        kept = {
            "places": {rank: asdict(place) for rank, place in self.places.items()},
            "rank": self.rank,
            "faults": self.faults,
            "more_faults": self.more_faults,
            "last_us": self.last_us,
            "sent": lease_progress_message(told).SerializeToString().hex(),
        }
        fresh = self.control / f"{JOURNAL}.new"
        fresh.write_text(json.dumps(kept, separators=(",", ":")))
        os.replace(fresh, self.control / JOURNAL)

    def resume(self) -> LeaseReports:
        """Go on where an earlier agent stopped, if it has written that down."""
        try:
            kept = json.loads((self.control / JOURNAL).read_bytes())
            message = pb.LeaseProgress.FromString(bytes.fromhex(kept["sent"]))
            sent = lease_progress_value(message)
            places = {int(rank): Place(**place) for rank, place in kept["places"].items()}
            rank, last_us = kept["rank"], int(kept["last_us"])
            faults, more_faults = list(map(str, kept["faults"])), int(kept["more_faults"])
        except (OSError, DecodeError, *record.DAMAGE):
            return self  # there is none, or it is damaged: all is read once more
        self.sent, self.places, self.told_faults = sent, places, sent.faults
        self.rank, self.last_us = rank, last_us
        self.faults, self.more_faults = faults, more_faults
        return self

    def is_done(self, now_us: int) -> bool:
        """Whether all that ended workers reported has been handed over."""
        if self.refused:
            return True
        for _ in range(LOOKS):
            if not self.look(now_us, whole=True):
                return self.due(0, ended=True) is None
        return False


async def report_once(leases: Leases, node_uuid: str, ship: Ship, clock: Clock) -> None:
    """Read all reports, and hand over what is due."""
    now_us, boot_us = clock.now_us(), clock.boot_us()
    request = pb.ShipProgressRequest(node_uuid=node_uuid)
    asked: list[LeaseReports] = []
    for held in list(leases.held.values()):
        reports = held.reports
        if reports is None or reports.refused:
            continue
        ended = held.status.phase is LeasePhase.ENDED
        if reports.look(now_us, whole=ended):
            await asyncio.sleep(0)  # others want to be heard between two of them
        try:
            told = reports.due(boot_us, ended=ended)
        except OSError:
            continue  # no room to write it down: it is tried again
        if told is not None and len(asked) < MOST_LEASES:
            asked.append(reports)
            request.leases.append(lease_progress_message(told))
    if not asked:
        return
    try:
        answer = await ship(request)
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED):
            raise
        log.error("the control plane does not take progress: %s", error.details())
        for reports in asked:  # it would not take it the next time, either
            reports.sent = None
        return
    for reports, known in zip(asked, answer.known, strict=True):
        reports.sent, reports.refused = None, not known
