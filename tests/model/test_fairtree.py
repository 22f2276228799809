"""Slurm's fair tree, by the figures that Slurm publishes, and by what it promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.fairtree import MILLION, Standing, fair_tree, standings
from controlplane.model.view import Account, Member

# The tree of Slurm's own test of the rule (testsuite/expect/test24.4), and what `sshare` must show
# of it: account, user, shares, usage; normalised shares, effective usage, level, factor. The
# members of `aD` whose shares Slurm writes as "parent" have used nothing here, which ranks them
# first as well. Slurm, with floating point, puts uD2 behind uD3, of which it says itself that
# nobody would see why: 40 shares over 20 are 50 over 25.
SLURM = """
aA   -     root  40  45  0.192308  0.187500  1.025641  -
aAA  -     aA    30  20  0.750000  0.444444  1.687500  -
aAA  uAA1  -      1  20  1.000000  1.000000  1.000000  13
aAB  -     aA    10  25  0.250000  0.555556  0.450000  -
aAB  uAB1  -      1  25  0.500000  1.000000  0.500000  11
aAB  uAB2  -      1   0  0.500000  0.000000  inf       12
aB   -     root  60  25  0.288462  0.104167  2.769231  -
aBA  -     aB    25  25  0.416667  1.000000  0.416667  -
aBA  uBA1  -      1  25  1.000000  1.000000  1.000000  15
aBB  -     aB    35   0  0.583333  0.000000  inf       -
aBB  uBB1  -      1   0  1.000000  0.000000  inf       16
aC   -     root   0  30  0.000000  0.125000  0.000000  -
aC   uC1   -      0  30  0.000000  1.000000  0.000000  1
aD   -     root  50 110  0.240385  0.458333  0.524476  -
aD   uD1   -      1   0  ?         0.000000  inf       10
aD   uDA1  -      1   0  ?         0.000000  inf       10
aD   uDA2  -     30  10  ?         ?         ?         8
aD   uDA3  -     50  25  ?         ?         ?         7
aD   uD2   -     40  20  ?         ?         ?         7
aD   uD3   -     50  25  ?         ?         ?         7
aE   -     root  10   0  0.048077  0.000000  inf       -
aE   aE1   -     10   0  0.500000  0.000000  inf       21
aE   aE2   -     10   0  0.500000  0.000000  inf       21
aF   -     root  20   0  0.096154  0.000000  inf       -
aF   uF1   -     10   0  0.333333  0.000000  inf       21
aF   uF2   -     20   0  0.666667  0.000000  inf       21
aG   -     root   8  20  0.038462  0.083333  0.461538  -
aG   uG1   -     10  10  0.500000  0.500000  1.000000  4
aGA  -     aG    10  10  0.500000  0.500000  1.000000  -
aGA  uGA1  -     20   4  0.500000  0.400000  1.250000  4
aGA  uGA2  -     20   6  0.500000  0.600000  0.833333  2
root u1    -     10   0  0.048077  0.000000  inf       21
root u2    -     10  10  0.048077  0.041667  1.153846  14
"""
ROWS = [line.split() for line in SLURM.strip().splitlines()]
ACCOUNTS = [
    Account(
        name=name, parent="" if parent == "root" else parent, shares=int(shares), usage=int(usage)
    )
    for name, user, parent, shares, usage, *_ in ROWS
    if user == "-"
]
MEMBERS = [
    Member(account="" if name == "root" else name, user=user, shares=int(shares), usage=int(usage))
    for name, user, _, shares, usage, *_ in ROWS
    if user != "-"
]


def test_the_factors_of_slurms_example() -> None:
    factors = fair_tree(ACCOUNTS, MEMBERS)
    assert {user: round(factor * 21 / MILLION) for (_, user), factor in factors.items()} == {
        row[1]: int(row[-1]) for row in ROWS if row[1] != "-"
    }
    assert factors["aAA", "uAA1"] == 13 * MILLION // 21


@pytest.mark.parametrize("row", [row for row in ROWS if "?" not in row], ids=lambda row: row[1])
def test_what_sshare_shows_of_slurms_example(row: list[str]) -> None:
    name, user, *_, shares, usage, level, _ = row
    found = standings(ACCOUNTS, MEMBERS)[
        "" if name == "root" else name, "" if user == "-" else user
    ]
    assert found == Standing(
        shares=_millionths(shares),
        usage=_millionths(usage),
        level=None if level == "inf" else _millionths(level),
    )


def _millionths(text: str) -> int:
    return int(text.replace(".", ""))


def test_nobody_is_ranked_where_nobody_is() -> None:
    assert fair_tree((), ()) == {}
    assert fair_tree([Account(name="empty", parent="")], ()) == {}


def test_who_is_in_an_account_that_is_not_there_is_left_out() -> None:
    assert fair_tree((), [Member(account="gone", user="alice")]) == {}


amounts = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 10**18))


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[Account], list[Member]]:
    """Accounts with whatever is below them: usage sums up."""
    count = draw(st.integers(1, 6))
    parents = [draw(st.integers(-1, index - 1)) for index in range(count)]
    members = [
        Member(account=f"a{place}", user=f"u{index}", shares=draw(amounts), usage=draw(amounts))
        for index, place in enumerate(draw(st.lists(st.integers(0, count - 1), max_size=8)))
    ]
    usage = [sum(each.usage for each in members if each.account == f"a{n}") for n in range(count)]
    for index in reversed(range(count)):
        if parents[index] >= 0:
            usage[parents[index]] += usage[index]
    accounts = [
        Account(
            name=f"a{index}",
            parent=f"a{parents[index]}" if parents[index] >= 0 else "",
            shares=draw(amounts),
            usage=usage[index],
        )
        for index in range(count)
    ]
    return accounts, members


@given(trees(), st.data())
def test_the_order_of_what_is_given_changes_nothing(
    tree: tuple[list[Account], list[Member]],
    data: st.DataObject,
) -> None:
    accounts, members = tree
    factors = fair_tree(accounts, members)
    assert set(factors) == {(each.account, each.user) for each in members}
    assert all(0 < factor <= MILLION for factor in factors.values())
    if factors:
        assert max(factors.values()) == MILLION
    again = fair_tree(data.draw(st.permutations(accounts)), data.draw(st.permutations(members)))
    assert again == factors


@given(trees())
def test_whoever_is_below_a_better_account_goes_first(
    tree: tuple[list[Account], list[Member]],
) -> None:
    accounts, members = tree
    factors = fair_tree(accounts, members)
    parents = {each.name: each.parent for each in accounts}
    by_name = {each.name: each for each in accounts}

    def line(account: str) -> list[str]:
        found = []
        while account:
            found.append(account)
            account = parents[account]
        return found[::-1]

    for one in members:
        for other in members:
            pairs = zip(line(one.account), line(other.account), strict=False)
            differ = next(((a, b) for a, b in pairs if a != b), None)
            if differ is None:
                continue
            a, b = (by_name[name] for name in differ)
            # Among siblings levels compare as shares over usage, multiplied out.
            if a.shares * b.usage > b.shares * a.usage:
                assert factors[one.account, one.user] > factors[other.account, other.user]
