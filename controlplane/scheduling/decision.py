"""One decision, from the order of all that wait to the plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from controlplane.model.plan import Holds, Place, Plan, Preempt
from controlplane.model.policy import Backfill, FairShare
from controlplane.model.view import Promise, Reserved
from controlplane.scheduling.backfill import Reservation, closed, reserve
from controlplane.scheduling.columns import FOREVER_US, Ints, Names
from controlplane.scheduling.drf import Dominance, FairLines
from controlplane.scheduling.leases import Held, Leases
from controlplane.scheduling.lines import Lines, highest_first
from controlplane.scheduling.placement import place, would_fit
from controlplane.scheduling.preemption import cost, make_room, victims
from controlplane.scheduling.quotas import Quotas
from controlplane.scheduling.ranking import Ranking
from controlplane.scheduling.reasons import explain
from controlplane.scheduling.room import Room

if TYPE_CHECKING:
    from controlplane.model.policy import Policy
    from controlplane.model.view import Running, Shape, View, Waiting
    from controlplane.scheduling.ask import Ask
    from controlplane.scheduling.board import Board

PLACED = -1
SECOND_US = 1_000_000
PREEMPTORS = 32
"""For so many gangs at most a decision looks for victims."""


class Decision:
    """What is decided so far. Used once."""

    def __init__(self, board: Board, view: View, policy: Policy) -> None:
        """`board`: nodes, and what waits and runs; `view`: all else."""
        self.board, self.view, self.policy = board, view, policy
        self._now = view.now_us
        self._tasks = board.tasks
        self.running = tuple(board.running.values())
        self._quotas = Quotas(view.accounts, view.members, self.running)
        self._dominance = (
            Dominance(board.nodes, view.accounts, self.running)
            if policy.fair_share is FairShare.DRF
            else None
        )
        self._queues = {queue.name: queue for queue in view.queues}
        self._before = {(r.job_id, r.task_index): r for r in view.reserved}
        self._promised = {(p.job_id, p.task_index): p.start_us for p in view.promises}
        self.ranking = Ranking(board, view, policy)
        self.room = Room(board.nodes)
        self._windows = {w: closed(w, board.nodes) for w in view.windows if w.end_us > self._now}
        for window in self._windows.values():
            self.room.reserve(window)
        self.fabric = board.fabric(policy.fabric)
        self._leases: Leases | None = None
        self._words: Names[str] = Names("")
        self._why: Ints = np.zeros(len(self._tasks), np.int64)
        self._places: list[Place] = []
        self._ends: list[int] = []
        self._asks: dict[tuple[int, str, str], Ask] = {}
        self._reserved: dict[object, Reservation] = {}
        self._wanting: list[tuple[Waiting, Ask, int]] = []

    def plan(self) -> Plan:
        """Decide."""
        lines = self._lines()
        self._walk(lines)
        preempts = self._preempt() if self.policy.preemption else ()
        waits = np.flatnonzero(self._why != PLACED)
        holds = Holds(
            self._tasks.job[waits],  # type: ignore[arg-type]
            self._tasks.task[waits],  # type: ignore[arg-type]
            self._why[waits],  # type: ignore[arg-type]
            self._words.values,
        )
        return Plan(
            seq=self.view.seq,
            places=tuple(self._places),
            preempts=preempts,
            holds=holds,
            promises=self._promises(),
            reserved=self._kept(),
        )

    def _tell(self, said: Ints) -> None:
        """Say why tasks wait; `said`: numbers of their words, 0 where there are none."""
        rows = np.flatnonzero(said)
        numbers, which = np.unique(said[rows], return_inverse=True)
        words = [self._words.number(self._tasks.words.values[n]) for n in numbers.tolist()]
        self._why[rows] = np.array(words, np.int64)[which]

    # --- who goes first --------------------------------------------------------------------------

    def _lines(self) -> Lines | FairLines:
        tasks = self._tasks
        may = tasks.held == 0
        self._tell(tasks.held)
        early = may & (tasks.not_before > self._now)
        self._tell(np.where(early, tasks.not_yet, 0))
        backs_off = early & (tasks.not_yet == 0)
        for when in np.unique(tasks.not_before[backs_off]).tolist():
            wait_s = -(-(when - self._now) // SECOND_US)
            words = f"backs off after a fault: the next attempt may start in {wait_s} s"
            self._why[backs_off & (tasks.not_before == when)] = self._words.number(words)
        may &= ~early
        for queue in self._queues.values():
            if queue.closed:
                shut = np.array([s.queue == queue.name for s in tasks.shapes.values], np.bool_)
                shut = shut[tasks.shape] & may
                self._why[shut] = self._words.number(queue.closed)
                may &= ~shut
        rows = np.flatnonzero(may)
        self._scores = self.ranking.scores()
        self.ordered = rows[highest_first(self._scores[rows])]
        rows = self.ordered
        self._want(rows)
        if self._dominance is not None:
            return FairLines(rows, self._line(rows), tasks, self._dominance)
        return Lines(rows, self._line(rows), tasks.limit[rows])

    def _want(self, rows: Ints) -> None:
        """Tell quotas what accounts wait for, and could have."""
        if not self._quotas.accounts:
            return
        tasks = self._tasks
        could = np.array([not self._never(shape) for shape in tasks.shapes.values], np.bool_)
        rows = rows[could[tasks.shape[rows]]]
        wanted = np.bincount(tasks.account[rows], tasks.gpus[rows], len(tasks.accounts))
        for name, gpus in zip(tasks.accounts.values, wanted.astype(np.int64).tolist(), strict=True):
            self._quotas.want(name, gpus)

    def _never(self, shape: Shape) -> bool:
        ask = self.board.ask(shape, "", self._queues.get(shape.queue))
        return self.board.impossible(ask, "") is not None

    def score(self, row: int) -> int:
        """The priority of a task: the higher goes first."""
        return int(self._scores[row])

    def _line(self, rows: Ints) -> Ints:
        """Numbers of the lines: by shape, and by account and owner where those matter."""
        tasks = self._tasks
        accounts, owners = set(self._quotas.accounts), set(self._quotas.users)
        for window in self._windows:
            accounts |= window.accounts
            owners |= window.users
        choosy = bool(self.board.nodes.owned.any())
        line = tasks.shape[rows]
        for column, names, special, every in (
            (tasks.account, tasks.accounts, accounts, False),
            (tasks.owner, tasks.owners, owners, choosy),
        ):
            if special or every:
                flags = [every or name in special for name in names.values]
                number = (column + 1) * np.array(flags, np.int64)[column]
                line = line * (len(names) + 1) + number[rows]
        if accounts or owners or choosy:
            _, line = np.unique(line, return_inverse=True)
        return line

    # --- the walk --------------------------------------------------------------------------------

    def _walk(self, lines: Lines | FairLines) -> None:
        refused: dict[object, tuple[int, int]] = {}
        for row, line, _ in lines:
            limit = int(self._tasks.limit[row])
            known = refused.get(line)
            if known is not None and limit >= known[0]:
                self._hold(lines.shorten(known[0]), known[1])
                continue
            entry: Waiting = self._tasks.entries[row]
            gpus = int(self._tasks.gpus[row])
            ask = self.ask(entry, int(self._tasks.shape[row]))
            words, passable = self._place_all(row, entry, ask, gpus, limit)
            if not words:
                lines.advance()
                continue
            why = self._words.number(words)
            self._why[row] = why
            if not passable:
                self._hold(lines.drop(), why)
                continue
            if self.policy.backfill is Backfill.NONE:
                lines.drop()
                behind = f"waits its turn: job {entry.job_id} comes first, and {words}"
                self._hold(lines.rest(), self._words.number(behind))
                self._why[row] = why
                return
            self._wanting.append((entry, ask, row))
            # Where backfill is conservative each of those behind may get a time of its own.
            each = self.policy.backfill is Backfill.CONSERVATIVE
            if self._reserve(entry, ask, limit) and each:
                lines.advance()
            elif would_fit(self.room, ask, self.fabric):
                behind = self._behind(words)
                self._why[row] = self._words.number(behind)
                refused[line] = (limit, self._words.number(behind))
                self._hold(lines.shorten(limit), refused[line][1])
            else:
                self._hold(lines.drop(), why)

    def _hold(self, rows: Ints, why: int) -> None:
        self._why[rows] = why

    def _place_all(
        self, row: int, entry: Waiting, ask: Ask, gpus: int, limit: int
    ) -> tuple[str, bool]:
        """Place as many of a row's tasks as can be. Why the first of those that can't waits, or
        nothing; and whether it may be passed by others, as what lacks room may."""
        quotas, end_us = self._quotas, self._now + limit
        bound = entry.account in quotas.accounts or entry.owner in quotas.users
        for index in (entry.task_index, *entry.coming):
            if bound and (words := self.objection(entry)):
                return words, False
            parts = place(self.room, ask, self.fabric, end_us)
            if parts is None:
                never = self.board.impossible(ask, entry.owner)
                if never is not None and self.board.nodes.views:
                    return f"can never run because {never}", False
                return explain(self.room, ask, entry.owner), True
            self._places.append(Place(job_id=entry.job_id, task_index=index, parts=parts))
            self._ends.append(end_us)
            quotas.take(entry.account, entry.owner, gpus)
            quotas.want(entry.account, -gpus)
            if self._dominance is not None:
                self._dominance.take(entry.account, entry.shape)
            if self._leases is not None:
                for part in parts:
                    self._leases.add(part, end_us)
        self._why[row] = self._words.number(entry.limited) if entry.limited else PLACED
        return "", True

    def ask(self, entry: Waiting, shape: int = -1) -> Ask:
        """What a task asks of nodes, ready to be looked for. `shape`: its shape's number, where it
        is one of those that wait."""
        exempt = frozenset(
            reservation
            for window, reservation in self._windows.items()
            if entry.account in window.accounts or entry.owner in window.users
        )
        owner = entry.owner if self.board.nodes.owned.any() else ""
        key = (shape, owner, "") if not exempt else (shape, entry.owner, entry.account)
        found = self._asks.get(key)
        if found is None or shape < 0:
            queue = self._queues.get(entry.shape.queue)
            found = self.board.ask(entry.shape, owner, queue, exempt)
            if shape >= 0:
                self._asks[key] = found
        return found

    # --- what was decided, for explanations ------------------------------------------------------

    def reason(self, row: int) -> str:
        """Why a task waits; empty when it is placed."""
        why = int(self._why[row])
        return "" if why == PLACED else self._words.values[why]

    def reservation(self, entry: Waiting) -> Reservation | None:
        """What is reserved for a task."""
        who = (entry.job_id, entry.task_index)
        made = self._reserved.values()
        return next((r for r in made if (r.job_id, r.task_index) == who), None)

    def unbound(self, entry: Waiting, ask: Ask) -> Ask:
        """What is asked for a task, not bound by what is reserved for itself."""
        own = self.reservation(entry)
        return ask if own is None else replace(ask, exempt=ask.exempt | {own})

    def promised(self, entry: Waiting) -> int | None:
        """By when a task's start is promised."""
        who = (entry.job_id, entry.task_index)
        made = self._promises()
        return next((p.start_us for p in made if (p.job_id, p.task_index) == who), None)

    def objection(self, entry: Waiting) -> str | None:
        """Which quota a task would run into."""
        gpus = entry.shape.workers * entry.shape.resources.gpus
        return self._quotas.objection(
            entry.account, entry.owner, gpus, preemptible=entry.preemptible
        )

    def accounts_of(self, user: str) -> list[str]:
        """Accounts that a user is a member of."""
        return sorted({m.account for m in self.view.members if m.user == user})

    @property
    def queue_nodes_differ(self) -> bool:
        """Whether some queue is for some nodes only."""
        return any(queue.selector for queue in self._queues.values())

    # --- who waits for when ----------------------------------------------------------------------

    def leases(self) -> Leases:
        """What runs, and what this decision places, by when it ends."""
        if self._leases is None:
            self._leases = Leases(self.board.nodes, self.board.held.rows(self._now))
            for placed, end_us in zip(self._places, self._ends, strict=True):
                for part in placed.parts:
                    self._leases.add(part, end_us)
        return self._leases

    def _reserve(self, entry: Waiting, ask: Ask, limit: int) -> bool:
        """Promise a time to a gang, where it is one of those that get one."""
        shape = entry.shape
        if self.policy.backfill is Backfill.CONSERVATIVE:
            key: object = (entry.job_id, entry.task_index)
            if len(self._reserved) >= self.policy.backfill_depth:
                return False
        elif self.policy.backfill is Backfill.EASY:
            # Of each kind of nodes the first: one that wants other nodes is in nobody's way.
            key = (shape.queue, shape.selector, shape.resources.gpu_model)
            if key in self._reserved:
                return False
        else:
            return False
        who = (entry.job_id, entry.task_index)
        before = self._before.get(who)
        made = reserve(self.room, self.leases(), self.fabric, ask, who, limit, before)
        if made is None:
            return False
        self._reserved[key] = made
        self.room.reserve(made)
        return True

    def _behind(self, words: str) -> str:
        first = min(self._reserved.values(), key=lambda r: r.start_us, default=None)
        if first is None:
            return words
        return (
            f"waits its turn: it would fit now, but would run into what is promised to job"
            f" {first.job_id}"
        )

    def _kept(self) -> tuple[Reserved, ...]:
        views = self.board.nodes.views
        made = []
        for r in self._reserved.values():
            pairs = zip(r.rows.tolist(), r.workers.tolist(), strict=True)
            nodes = tuple((views[row].uuid, workers) for row, workers in pairs)
            made.append(
                Reserved(job_id=r.job_id, task_index=r.task_index, start_us=r.start_us, nodes=nodes)
            )
        return tuple(sorted(made, key=lambda r: (r.job_id, r.task_index)))

    def _promises(self) -> tuple[Promise, ...]:
        made = []
        for reservation in self._reserved.values():
            who = (reservation.job_id, reservation.task_index)
            if reservation.start_us - self._now < FOREVER_US // 2:
                start_us = min(reservation.start_us, self._promised.get(who, reservation.start_us))
                made.append(Promise(job_id=who[0], task_index=who[1], start_us=start_us))
        return tuple(sorted(made, key=lambda p: (p.job_id, p.task_index)))

    # --- at whose cost ---------------------------------------------------------------------------

    def _preempt(self) -> tuple[Preempt, ...]:
        wanting = [each for each in self._wanting if each[0].preempts]
        if not self.running or not wanting:
            return ()
        quotas = self._quotas
        lent = {name for name in {t.account for t in self.running} if quotas.borrows(name)}
        most = max(entry.priority for entry, *_ in wanting)
        some = [t for t in self.running if t.priority < most or t.preemptible or t.account in lent]
        if not some:
            return ()
        some.sort(key=lambda task: cost(task, self._now))
        ended: set[tuple[int, int]] = set()
        preempts: list[Preempt] = []
        stopping = {(t.job_id, t.task_index): t for t in self.running if t.stopping}
        ending = Leases(self.board.nodes, Held(self.board.nodes, stopping).rows(self._now))
        places = {id(task): self.ranking.of_running(task) for task in some}
        for entry, ask, row in wanting[:PREEMPTORS]:
            left = [t for t in some if (t.job_id, t.task_index) not in ended]
            place = (int(self._scores[row]), -entry.created_us, -entry.job_id)

            def behind(task: Running, place: tuple[int, int, int] = place) -> bool:
                return places[id(task)] < place

            candidates = victims(entry, left, quotas, behind)
            if not candidates:
                continue
            own = self.unbound(entry, ask)
            chosen = make_room(self.room, own, self.fabric, candidates, ending)
            for task in chosen or ():
                ended.add((task.job_id, task.task_index))
                preempts.append(
                    Preempt(
                        job_id=task.job_id,
                        task_index=task.task_index,
                        attempt=task.attempt,
                        reason=f"makes room for job {entry.job_id}",
                    )
                )
            if chosen:
                words = f"waits for room: {len(chosen)} of lower rank are being ended for it"
                self._why[row] = self._words.number(words)
        return tuple(preempts)
