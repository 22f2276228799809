"""Signals from the registry to the workers, each exactly once, whatever is lost, repeated, held up
or killed between: the real registry, reconciliation, facts and decisions over a bad line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.model.signals import signal_number
from controlplane.registry import signals
from controlplane.registry.memory import MemoryStore
from controlplane.registry.registry import Registry
from controlplane.registry.which import Which
from nodeagent.reconcile import Signal, reconcile
from nodeagent.status import fold
from nodeagent.supervision import core
from tests.support.world import World

if TYPE_CHECKING:
    from controlplane.model.launch import LeaseOrder
    from controlplane.model.lease import LeaseStatus

RULES = core.Rules(time_limit_us=None, grace_us=0, failure_grace_us=0)


@dataclass
class Host:
    """One node: its supervisor, which outlives agents, and what an agent keeps in memory."""

    seen: LeaseStatus
    """What the agent reads of the supervisor's facts; a new agent reads the same."""
    rank: int
    state: core.State = field(init=False)
    got: list[int] = field(default_factory=list)
    """Numbers of the signals that its worker got."""

    def __post_init__(self) -> None:
        self.state = core.State(phase=core.Phase.RUNNING, alive=frozenset({self.rank}))

    def obey(self, orders: tuple[LeaseOrder, ...], heard: int) -> None:
        """Do what an answer says; of the datagrams to the supervisor the first `heard` arrive."""
        for action in reconcile(orders, {self.seen.lease_id: self.seen}, {}):
            assert isinstance(action, Signal)
            for each in action.signals[:heard]:
                number = signal_number(each.signal)
                event = core.Signal(each.number, number, frozenset(each.ranks))
                self.state, actions = core.decide(RULES, self.state, event, 0)
                if core.Do.SIGNAL in actions:
                    assert not each.ranks or self.rank in each.ranks
                    self.got.append(each.number)

    def look(self) -> None:
        """The agent reads what the supervisor has written down."""
        if self.state.sent is not None:
            fact = {"fact": "signalled", "number": self.state.sent.number, "time": 0}
            self.seen = fold(self.seen, fact)


moves = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from([(), (0,), (1,), (0, 1)])),
        st.tuples(st.sampled_from(["report", "late report", "look"]), st.integers(0, 1)),
        st.tuples(st.just("fetch"), st.integers(0, 1)),
        st.tuples(st.just("obey"), st.tuples(st.integers(0, 1), st.integers(0, 3))),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(moves)
def test_every_worker_gets_each_of_its_signals_once_and_in_order(
    moves: list[tuple[str, object]],
) -> None:
    world = World(MemoryStore())
    world.join("a")
    world.join("b")
    job_id = world.submit(workers=2, workers_per_node=1)
    world.tick()
    hosts = {}
    for uuid, status in world.statuses(job_id).items():
        world.report(uuid, status)
        hosts[uuid] = Host(seen=status, rank=status.workers[0].rank)
    uuids = list(hosts)
    first = {uuid: host.seen for uuid, host in hosts.items()}
    answers = {uuid: world.registry.desire(uuid).orders for uuid in uuids}
    wanted: dict[int, list[int]] = {0: [], 1: []}
    sent = 0

    for move, what in moves:
        match move, what:
            case "send", tuple(ranks):
                world.do(lambda draft, r=ranks: signals.send(draft, Which(job_id), "USR1", r))  # type: ignore[misc]
                sent += 1
                for rank in ranks or (0, 1):
                    wanted[rank].append(sent)
            case "report", int(which):
                world.report(uuids[which], hosts[uuids[which]].seen)
            case "late report", int(which):  # one from before, that was held up on its way
                world.report(uuids[which], first[uuids[which]])
            case "look", int(which):
                hosts[uuids[which]].look()
            case "fetch", int(which):  # an answer, that may be obeyed late, often or never
                answers[uuids[which]] = world.registry.desire(uuids[which]).orders
            case "obey", (int(which), int(heard)):
                hosts[uuids[which]].obey(answers[uuids[which]], heard)
            case "restart", _:
                world.registry = Registry(world.store, world.clock.now_us)

    for uuid, host in hosts.items():  # then the line is good again
        host.obey(world.registry.desire(uuid).orders, 99)
        host.look()
        world.report(uuid, host.seen)
        (order,) = world.registry.desire(uuid).orders
        assert order.signals == ()
        assert host.got == wanted[host.rank]
        assert replace(host.seen, signals_done=0) == first[uuid]
