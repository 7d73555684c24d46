"""Asking servers politely: a rate, few requests at once, patience, and no secret in any message.

Knows nothing of tiles, of layers or of what an answer means.
"""

import email.utils
import errno
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx2
import tenacity

from zoomloc.errors import ConfigError, ImageryError

USER_AGENT = "zoomloc"
Check = Callable[[str, bytes], str | None]  # content type and body -> what is wrong with them
Refusal = Callable[[int, bytes], str | None]  # status and body -> why asking again may help
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
NOT_THERE = (204, 404, 410)
AGAIN = (408, 425, 429, 500, 502, 503, 504)
LONGEST_WAIT_S = 120.0
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Manners:
    """How a server is asked."""

    rate_per_s: float = 8.0
    at_once: int = 4
    retries: int = 5
    timeout_s: float = 60.0
    headers: Mapping[str, str] = field(default_factory=dict)  # may hold ${NAME}
    first_wait_s: float = 1.0  # before the first repetition; then twice as long, and so on


class _Again(Exception):
    """An answer worth asking for again; ``wait_s`` where the server says when."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class NoAnswer(ImageryError):
    """A server did not give what it was asked for, after all repetitions.

    ``status`` is that of a refusal; None where asking again was all that could be done.
    ``unreached``: no request has reached the server yet, so that others will not either.
    """

    def __init__(self, why: str, status: int | None = None, unreached: bool = False) -> None:
        super().__init__(why)
        self.status, self.unreached = status, unreached


def filled(template: str) -> str:
    """A template with each ``${NAME}`` read from the environment. Raises ConfigError."""

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if not found:
            raise ConfigError(f"{template}: set the environment variable {match[1]} to your key")
        return found

    return VARIABLE.sub(value, template)


class Web:
    """A client for one server. Safe to use from several threads; a context manager."""

    def __init__(self, manners: Manners) -> None:
        self.manners = manners
        headers = {"User-Agent": USER_AGENT}
        headers |= {name: filled(value) for name, value in manners.headers.items()}
        limits = httpx2.Limits(max_connections=manners.at_once)
        self._client = httpx2.Client(
            headers=headers, timeout=manners.timeout_s, limits=limits, follow_redirects=True
        )
        self._turn, self._next_s = threading.Lock(), 0.0
        self._reached = False  # whether any request got through to the server

    def __enter__(self) -> "Web":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def get(
        self,
        address: str,
        told: str,
        check: Check | None = None,
        refusal: Refusal | None = None,
    ) -> bytes | None:
        """The body behind an address; None where the server says that there is nothing.

        ``told`` is what messages call it, without secrets. ``check`` gets content type and body
        and says what is wrong with them, None if nothing; what is wrong is asked for again.
        ``refusal`` is told of a status of 400 or more and may do the same, or raise. Raises
        NoAnswer.
        """
        ask = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Again),
            stop=tenacity.stop_after_attempt(self.manners.retries + 1),
            wait=self._wait_s,
            reraise=True,
        )
        try:
            return ask(self._once, address, told, check, refusal)
        except _Again as error:
            why = f"{told}: {error}, asked {self.manners.retries + 1} times"
            raise NoAnswer(why, unreached=not self._reached) from None

    def state(self, address: str, told: str) -> str:
        """What tells a file's content from later ones: length and the server's mark of it.

        Raises NoAnswer.
        """
        try:
            answer = self._client.head(address)
        except httpx2.HTTPError as error:
            raise NoAnswer(f"{told}: no answer ({type(error).__name__})") from None
        if answer.status_code >= 400:
            raise NoAnswer(f"{told}: answers {answer.status_code}{_hint(answer)}")
        marks = ("content-length", "etag", "last-modified")
        return " ".join(answer.headers.get(mark, "") for mark in marks).strip()

    def _once(
        self, address: str, told: str, check: Check | None, refusal: Refusal | None
    ) -> bytes | None:
        """One request. Raises _Again where it may go better next time, NoAnswer where not."""
        self._wait_for_turn()
        try:
            with self._client.stream("GET", address) as answer:
                self._reached = True
                if answer.status_code in NOT_THERE:
                    return None
                status = answer.status_code
                if refusal is not None and status >= 400:
                    passing = refusal(status, self._body(answer, told))
                    if passing is not None:
                        raise _Again(passing, _retry_after_s(answer))
                if status in AGAIN:
                    raise _Again(f"answers {status}", _retry_after_s(answer))
                if status != 200:
                    raise NoAnswer(f"{told}: answers {status}{_hint(answer)}", status)
                body = self._body(answer, told)
                kind = answer.headers.get("content-type", "")
        except httpx2.TimeoutException as error:
            self._reached |= not isinstance(error, httpx2.ConnectTimeout)
            raise _Again(f"no answer within {self.manners.timeout_s:g} s") from None
        except httpx2.InvalidURL:
            raise NoAnswer(f"{told}: is no address") from None
        except httpx2.HTTPError as error:  # its text may hold the address
            why = unreachable(error)
            if why is not None and not self._reached:
                raise NoAnswer(f"{told}: {why}", unreached=True) from None
            raise _Again(f"no whole answer ({type(error).__name__})") from None
        wrong = None if check is None else check(kind, body)
        if wrong is not None:
            raise _Again(wrong)
        return body

    def _body(self, answer: httpx2.Response, told: str) -> bytes:
        """All bytes, which must come in time: a server that drips is given up."""
        ends_s = time.monotonic() + self.manners.timeout_s
        parts, length = [], 0
        for part in answer.iter_bytes():
            parts.append(part)
            length += len(part)
            if length > MOST_BYTES:
                raise NoAnswer(f"{told}: answers with more than {MOST_BYTES >> 20} MB")
            if time.monotonic() > ends_s:
                raise _Again(f"no whole answer within {self.manners.timeout_s:g} s")
        return b"".join(parts)

    def _wait_for_turn(self) -> None:
        """Requests start no faster than the rate, whatever thread they come from."""
        with self._turn:
            now_s = time.monotonic()
            start_s = max(now_s, self._next_s)
            self._next_s = start_s + 1 / self.manners.rate_per_s
        if start_s > now_s:
            time.sleep(start_s - now_s)

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        """As long as the server asks, else twice as long each time."""
        error = state.outcome.exception() if state.outcome else None
        asked_s = error.wait_s if isinstance(error, _Again) else None
        usual_s = self.manners.first_wait_s * 2.0 ** (state.attempt_number - 1)
        return min(usual_s if asked_s is None else asked_s, LONGEST_WAIT_S)


def unreachable(error: BaseException | None) -> str | None:
    """Why nothing can be reached, where that is what lies below an error: no use to ask again."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, socket.gaierror):
            return "cannot be reached: its name is not found; check the network and the address"
        if isinstance(error, ConnectionRefusedError):
            return "cannot be reached: it takes no connection; check the address"
        if isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return "cannot be reached: no way leads to it; check the network"
        error = error.__cause__ or error.__context__
    return None


def _retry_after_s(answer: httpx2.Response) -> float | None:
    """Seconds that a server asks to wait (RFC 9110, 10.2.3: a number or a date)."""
    text = answer.headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isdigit():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _hint(answer: httpx2.Response) -> str:
    """What may mend it."""
    refused = answer.status_code in (401, 403)
    return "; it refuses: check the key and the provider's terms" if refused else ""
