"""The live page and web hooks of a command's runs, opened before anything is sent.

with audience(scenario, print) as watching:
    prepared.run(out, sinks=watching.sinks)
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replay.settings.scenario import Scenario
from replay.units import SECOND_NS, format_duration

if TYPE_CHECKING:
    from replay.engine.sinks import Sink
    from replay.live_page.server import LiveServer
    from replay.live_page.sink import LiveSink
    from replay.notify.messages import Notifications
    from replay.notify.post import Poster

Say = Callable[[str], None]


@dataclass
class Audience:
    """The live page and the web hooks as sinks, for every run of a command."""

    say: Say
    sinks: list[Sink] = field(default_factory=list)
    page: LiveSink | None = None
    server: LiveServer | None = None
    notifications: Notifications | None = None
    poster: Poster | None = None

    def waiting(self, words: str) -> None:
        """Show on the page, if there is one, what the command waits for."""
        if self.page is not None:
            self.page.waiting(words)

    def finish(self, *, is_cancelled: bool) -> None:
        """Send the last message to the web hooks, if there are any, and report messages that were not delivered."""
        if self.notifications is not None and self.poster is not None:
            self.notifications.finish(is_cancelled=is_cancelled)
            if lost := self.poster.close():
                self.say(lost)

    def linger(self, linger_ns: int) -> None:
        """Keep serving the page for `linger_ns` after the run.

        An interrupt ends that, and does not count as an interrupt of the run. Does nothing if there is no page, or if
        the run was interrupted.
        """
        if self.server is None or self.page is None or not linger_ns or self.page.is_interrupted:
            return
        self.server.end()
        self.say(
            f"the live page stays open for another {format_duration(linger_ns)} (Ctrl-C closes it): {self.server.link}"
        )
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait(linger_ns / SECOND_NS)


@contextlib.contextmanager
def audience(scenario: Scenario, say: Say) -> Iterator[Audience]:
    """Open the live page and web hooks of a scenario, and close them at the end of the block.

    `say` prints a line: the link, and messages that were not delivered. Raises UsageError if a port, certificate
    or URL cannot be used, LimitError if a host is not allowed. At the end the last message is sent, the page
    stays open for the time that the scenario sets, and then its port is closed. The page does not stay open after
    an interrupted run, or after an exception other than SystemExit.
    """
    watching = Audience(say)
    with contextlib.ExitStack() as stack:
        if scenario.notify:
            _open_notifications(watching, scenario)
        if scenario.live:
            _open_page(watching, scenario)
            assert watching.server is not None
            stack.callback(watching.server.close)
        try:
            yield watching
        except BaseException as error:
            watching.finish(is_cancelled=isinstance(error, KeyboardInterrupt))
            if isinstance(error, SystemExit):
                watching.linger(int(scenario.live_linger_ns))
            raise
        watching.finish(is_cancelled=False)
        watching.linger(int(scenario.live_linger_ns))


def _open_notifications(watching: Audience, scenario: Scenario) -> None:
    from replay.notify.messages import Notifications
    from replay.notify.post import Poster, web_hooks
    from replay.plan.safety import allowed

    hosts = allowed(scenario)
    watching.poster = Poster(web_hooks(scenario.notify, hosts), hosts)
    watching.notifications = Notifications(watching.poster.send)
    watching.sinks.append(watching.notifications)


def _open_page(watching: Audience, scenario: Scenario) -> None:
    from replay.live_page.server import LiveServer
    from replay.live_page.sink import LiveSink

    server = LiveServer(scenario.live, scenario.live_allow, scenario.live_cert, scenario.live_key)
    watching.server, watching.page = server, LiveSink(server.feed)
    server.start()
    watching.sinks.append(watching.page)
    watching.say(f"live page: {server.link}")
    if server.is_open_to_others:
        watching.say(
            "live page: it is sent unencrypted, so others on the network can read it and the key in the link;"
            " --live-cert FILE encrypts it"
        )
