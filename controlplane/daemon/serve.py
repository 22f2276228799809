"""Runs the control plane in the foreground until it is told to end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from controlplane import __version__
from controlplane.daemon import filetokens, retiring, starting
from controlplane.daemon.doors import Doors
from controlplane.engine import schedule, upkeep
from controlplane.kit import failpoints
from controlplane.kit.alone import alone
from controlplane.kit.clock import SteadyClock, SystemClock
from controlplane.kit.loop import Duties, Duty
from controlplane.kit.sdnotify import notify, watchdog_period_s
from controlplane.model.errors import StoreUnavailable, WrongState
from controlplane.model.job import JobState
from controlplane.registry.holding import Hold, holding
from controlplane.registry.migrate import upgrade
from controlplane.registry.registry import Registry
from controlplane.registry.sql import SqlStore
from controlplane.service import server as edge
from controlplane.service.auth import Doorkeeper, TokenFile
from controlplane.service.blobstore import BlobStore
from controlplane.service.context import House, Rules
from controlplane.service.hub import Hub
from controlplane.service.logstore import LogStore
from controlplane.service.seriesstore import SeriesStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controlplane.daemon.settings import Settings
    from controlplane.model.policy import Policy
    from controlplane.registry.draft import Draft

log = logging.getLogger(__name__)

MICRO = 1_000_000
SCHEDULE_GAP_S = 0.004
"""Rest between two scheduling cycles: a burst of submits shares one."""
SCHEDULE_REST = 3.0
"""Rest of a scheduling cycle, as a multiple of it: beside a long queue calls are still answered."""
SWITCH_INTERVAL_S = 0.0005
"""Python threads take turns so often: the writer and the planner must not make calls wait for
long."""
GC_THRESHOLD = 20_000
"""New objects between two collections: messages and rows come and go in thousands."""
DATABASE_PATIENCE_S = 300
"""So long a start waits for a database that does not answer."""
CLOCK_PERIOD_S, CLOCK_OFF_S = 600.0, 2.0
"""So often we look whether the clock was set, and by how much that must be to be told."""
HOLD_PERIOD_S = 5.0
"""So often we look whether the database's lock is still ours."""
RESERVATIONS_PERIOD_S = 10.0
"""So often those are forgotten that are over; they count no longer from their end on."""
STOP_GRACE_S = 2.0
"""Calls in progress may finish for so long when the daemon ends."""


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. WrongState when it cannot start, with the reason."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(GC_THRESHOLD)
    if folder := failpoints.armed():
        log.warning(failpoints.WARNING, folder)
    os.umask(0o077)
    starting.make_state_dir(settings.state_dir)
    with alone(settings.state_dir, "control plane"), ExitStack() as until_the_end:
        anybody = starting.check_tokens(settings.tokens)
        starting.check_tls(settings.tls_certificate, settings.tls_key)
        starting.check_listen("listen", settings.listen)
        policy = starting.read_policy_file(settings.policy_file)
        clock = SteadyClock()
        doors = Doors(settings, SystemClock())
        with starting.told_of_database():
            hold = await _own(settings.database, until_the_end)
            revision = upgrade(settings.database)
            with _nothing_collected():
                store = SqlStore(settings.database)
                registry = Registry(store, clock.now_us, settings.keep, policy)
            registry.start()
        if not anybody:
            log.warning("nobody has a token yet: `controlplane init` makes the first one")
        try:
            await _serve(settings, registry, clock, revision, doors, hold, policy)
        finally:
            await asyncio.to_thread(registry.close)
    log.info("stopped")


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Load a registry without looking for garbage among what is loaded, neither now nor later: of a
    long queue that took a third of the start, and went on with each thousand jobs that came."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


async def _own(url: str, until_the_end: ExitStack) -> Hold:
    """Own the database. One that does not answer yet, as after a power cut, is waited for."""
    loop = asyncio.get_running_loop()
    deadline, told = loop.time() + DATABASE_PATIENCE_S, False
    while True:
        try:
            return until_the_end.enter_context(holding(url, "a control plane"))
        except StoreUnavailable as error:
            if loop.time() > deadline:
                raise
            if not told:
                log.warning("%s; it is waited for, %d s at most", error, DATABASE_PATIENCE_S)
                told = True
            await asyncio.sleep(1)


async def _serve(
    settings: Settings,
    registry: Registry,
    clock: SteadyClock,
    revision: str,
    doors: Doors,
    hold: Hold,
    policy: Policy,
) -> None:
    loop = asyncio.get_running_loop()
    liveness = upkeep.Liveness(
        lease_us=int(settings.node_lease_s * MICRO),
        margin_us=int(settings.node_lease_margin_s * MICRO),
    )
    liveness.fresh((node.uuid for node, _ in registry.nodes()), clock.boot_us())
    hub = Hub(loop)
    scheduler = schedule.Scheduler(registry, policy)
    house = House(
        registry=registry,
        clock=clock,
        liveness=liveness,
        hub=hub,
        logs=LogStore(settings.state_dir / "logs", settings.log_cap_mib << 20),
        series=SeriesStore(settings.state_dir / "series"),
        blobs=BlobStore(settings.state_dir / "blobs", settings.blob_limit_mib << 20),
        door=Doorkeeper(TokenFile(settings.tokens), registry, SystemClock()),
        issuer=doors.issuer,
        scheduler=scheduler,
        rules=Rules(
            lease_us=liveness.lease_us,
            hold_us=int(settings.hold_s * MICRO),
        ),
    )
    tick = Duty(
        name="schedule",
        run=lambda: scheduler.cycle(clock.now_us()),
        period_s=settings.schedule_period_s,
        gap_s=SCHEDULE_GAP_S,
        rest=SCHEDULE_REST,
    )
    duties = Duties(
        tick,
        Duty(name="nodes", run=lambda: _check_nodes(registry, liveness, clock), period_s=1.0),
        Duty(name="clock", run=lambda: _look_at_clock(clock), period_s=CLOCK_PERIOD_S),
        Duty(name="forget", run=lambda: upkeep.forget(registry, clock.now_us()), period_s=3600.0),
        Duty(name="hold", run=lambda: _keep(hold), period_s=HOLD_PERIOD_S),
        Duty(name="certificate", run=doors.renew, period_s=3600.0),
        filetokens.duty(TokenFile(settings.tokens), registry),
        Duty(
            name="reservations",
            run=lambda: _forget_reservations(registry, clock.now_us()),
            period_s=RESERVATIONS_PERIOD_S,
        ),
        *_unmet(settings, registry),
        *retiring.duties(registry, house, clock),
    )
    registry.listen(hub.committed)
    registry.listen(lambda draft: tick.wake() if concerns_scheduler(draft) else None)
    server, checks = edge.build(house)
    doors.open(server)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    await edge.say_serving(checks)
    duties.start()  # calls are answered before the first look at a long queue
    log.info(
        "serving",
        extra={
            "listen": settings.listen,
            "version": __version__,
            "epoch": registry.epoch,
            "schema": revision,
            "tls": doors.encrypted,
            **({"agents": settings.agents} if doors.issuer is not None else {}),
        },
    )
    notify(f"READY=1\nSTATUS=serving on {settings.listen}, epoch {registry.epoch}")
    try:
        await _until(stop)
    finally:
        notify("STOPPING=1")
        log.info("stopping")
        await server.stop(STOP_GRACE_S)
        await asyncio.to_thread(duties.stop)


def _forget_reservations(registry: Registry, now_us: int) -> None:
    if over := upkeep.forget_reservations(registry, now_us):
        log.info("forgot reservations that are over", extra={"reservations": over})


def _unmet(settings: Settings, registry: Registry) -> list[Duty]:
    if not settings.end_unmet_dependencies:
        return []
    return [Duty(name="unmet", run=lambda: _end_unmet(registry), period_s=1.0)]


def _end_unmet(registry: Registry) -> None:
    if ended := upkeep.end_unmet(registry):
        log.info("ended what could never run", extra={"jobs": ended})


async def _until(stop: asyncio.Event) -> None:
    period_s = watchdog_period_s()
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), period_s)
        except TimeoutError:
            notify("WATCHDOG=1")


def _check_nodes(registry: Registry, liveness: upkeep.Liveness, clock: SystemClock) -> None:
    for sentence in upkeep.check_nodes(registry, liveness, clock.boot_us(), clock.now_us()):
        log.warning("%s", sentence)


def _look_at_clock(clock: SteadyClock) -> None:
    set_by_s = clock.set_by_us() / MICRO
    if abs(set_by_s) > CLOCK_OFF_S:
        log.warning(
            "the host's clock was set by %+.0f s since the start: times are told by the old one"
            " until the next start, which touches no job",
            set_by_s,
        )


def _keep(hold: Hold) -> None:
    if words := hold.keep():
        raise WrongState(words)


def concerns_scheduler(draft: Draft) -> bool:
    """Whether a committed group may let something start: a new waiting job, room, a node, or
    another quota."""
    if any(table.changed for table in (draft.nodes, draft.queues, draft.reservations)):
        return True
    if draft.accounts.changed or draft.members.changed:
        return True
    if any(
        job is not None and (job.state is JobState.PENDING or job.unmade)
        for job in draft.jobs.changed.values()
    ):
        return True
    return any(x is not None and x.removed_us is not None for x in draft.leases.changed.values())
