"""Fields of job.json that tell how a program is warned, and how it asks to be started again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from controlplane.model import quantity
from controlplane.model.signals import HANDED_ON_BY_MPIRUN, NAMES, parse_signal
from controlplane.model.speckinds import Kind
from controlplane.model.specvalues import Launcher, WarningSignal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from controlplane.model.specfaults import Faults

DEFAULT_BEFORE_US: Final = 60 * quantity.SECOND_US
"""How long before the time limit a signal is sent whose time is not written."""
MOST_CODES: Final = 16
"""So many exit codes at most ask for a requeue."""


def warning_signal() -> Kind:
    """A signal, and how long before the time limit it is sent: `USR2@90s`."""

    def read(value: object, path: str, faults: Faults) -> WarningSignal | None:
        if not isinstance(value, str):
            words = 'must be a signal and how long before the time limit it is sent: "USR2@90s"'
            faults.add(path, value, words)
            return None
        name, at, time = value.partition("@")
        try:
            found = parse_signal(name)
        except ValueError as problem:
            faults.add(path, value, str(problem))
            return None
        before_us = DEFAULT_BEFORE_US
        if at:
            try:
                before_us = quantity.parse_duration(f"{time}s" if time.isdecimal() else time)
            except ValueError:
                before_us = 0
            if before_us < quantity.SECOND_US:
                words = "after the @ stands a duration of 1s or more; write e.g. "
                faults.add(path, value, f'{words}"{found}@90s"')
                return None
        return WarningSignal(name=found, before_us=before_us)

    return Kind(
        words='signal and how long before, such as `"USR2@90s"`; 60s if only the signal is named',
        schema={"type": "string", "pattern": f"^(SIG)?({'|'.join(NAMES)})(@[0-9dhms]+)?$"},
        read=read,
        write=_written,
        takes_text=True,
    )


def _written(made: WarningSignal) -> str:
    return f"{made.name}@{made.before_us // quantity.SECOND_US}s"


def exit_codes() -> Kind:
    """A few exit codes, sorted and each once, when parsed."""
    wanted = f"must be a list of at most {MOST_CODES} exit codes from 1 to 255, e.g. [75]"

    def read(value: object, path: str, faults: Faults) -> tuple[int, ...] | None:
        if not isinstance(value, list | tuple) or len(value) > MOST_CODES:
            faults.add(path, value, wanted)
            return None
        before = faults.count
        codes = set()
        for index, item in enumerate(value):
            code = quantity.whole_number(item)
            if code is None or not 1 <= code <= 255:
                words = "must be an exit code from 1 to 255; 0 is success, and ends the job"
                faults.add(f"{path}[{index}]", item, words)
            else:
                codes.add(code)
        return tuple(sorted(codes)) if faults.count == before else None

    return Kind(
        words=f"list of at most {MOST_CODES} integers, 1 to 255",
        schema={
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": 255},
            "maxItems": MOST_CODES,
        },
        read=read,
        write=list,
    )


def warning_comes_in_time(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A warning needs a limit to come before, and a program that has started by then."""
    warning: WarningSignal | None = found.get("signal")
    if warning is None:
        return
    if found.get("launcher") is Launcher.MPI and warning.name not in HANDED_ON_BY_MPIRUN:
        yield "signal", "mpirun hands only USR1 and USR2 on to the ranks; name one of them"
    if "time_limit_us" not in found:  # it has a fault of its own
        return
    limit_us: int | None = found["time_limit_us"]
    if limit_us is None:
        yield (
            "signal",
            "warns of the time limit, and there is none; set time_limit, or leave signal out",
        )
    elif warning.before_us >= limit_us:
        before, limit = map(quantity.format_duration, (warning.before_us, limit_us))
        yield (
            "signal",
            f"would be sent {before} before the time limit, which comes after {limit} already; "
            "write a shorter time after the @, or set a longer time_limit",
        )
