"""`python -m tests.concurrency.soak [--minutes M] [--processes N] [--seed S]`: a fleet at work through bad days.

Tokens live for 2 seconds, processes share one FileStore, every adapter is used from threads, asyncio and trio, and the
server meets its callers with random faults of every kind it has. Ends with 0 when nothing happened that must not.
"""

from __future__ import annotations

import argparse
import logging
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.concurrency.soak.figures import Figures, judge
from tests.concurrency.soak.fleet import Fleet
from tests.concurrency.soak.table import line, table
from tests.concurrency.soak.trouble import Trouble
from tests.concurrency.soak.worker import GRACE, manager_for
from unexpired.errors import UnexpiredError
from unexpired.testing import ServerConfig, ServerHandle, server_process

CONFIG = ServerConfig(access_lifetime=2.0, grace=GRACE, id_token=True, refresh_latency=0.02)
_START = 30.0
_SETTLE = 10.0


class Soak:
    """One run."""

    def __init__(self, server: ServerHandle, directory: Path, processes: int, seed: int) -> None:
        self.server = server
        self.trouble = Trouble(seed)
        self.manager = manager_for(server.url, str(directory))
        self.manager.login(server.login())
        self.logins = 1
        self.interrupted = threading.Event()
        self.fleet = Fleet(server.url, directory, processes, seed)
        self.fleet.wait(_START)

    def run(self, seconds: float) -> None:
        """Make trouble for that long, or until Ctrl-C, or until a process ends that should not."""
        began = told = time.monotonic()
        while (now := time.monotonic()) - began < seconds and self.fleet.alive and not self.interrupted.is_set():
            self._let_go()
            self.server.faults(self.trouble.steps())
            self.server.api_faults(self.trouble.rules())
            self._log_in_again()
            if sys.stdout.isatty() and now - told > 1.0:
                told = now
                sys.stdout.write(f"\r{line(now - began, self.fleet.figures())} ")
                sys.stdout.flush()
            self.interrupted.wait(min(self.trouble.pause(), max(0.0, seconds - (now - began))))

    def end(self) -> Figures:
        """Take all faults back, let every call come to its end, and make one more."""
        self.server.faults([])
        self.server.api_faults([])
        self._let_go()
        self.fleet.end()
        figures = self.fleet.figures()
        figures.last_call = self._last_call()
        stats = self.server.stats()
        figures.endings = max(figures.endings, self.logins - 1)
        figures.announced = sum(row.outcome == "fault:invalid_grant" for row in stats.redemptions)
        for name in ("token_posts", "api_calls", "refused", "reuse_detected", "families_revoked"):
            figures.server[name] = getattr(stats, name)
        return figures

    def _let_go(self) -> None:
        for name in self.trouble.held:
            self.server.release(name)
        self.trouble.held.clear()

    def _log_in_again(self) -> None:
        if not self.manager.logged_in:
            self.manager.login(self.server.login())
            self.logins += 1

    def _last_call(self) -> str:
        """What went wrong when nothing can go wrong any more."""
        self._log_in_again()
        until = time.monotonic() + 60.0 + _SETTLE
        while True:
            try:
                self.manager.token()
                return ""
            except UnexpiredError as error:
                problem = f"{type(error).__name__}: {error}"
            if time.monotonic() > until:
                return problem
            time.sleep(0.05)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.concurrency.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument("--processes", type=int, default=4, help="how many processes (default: 4)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of all dice (default: a random one)")
    return parser.parse_args()


def main() -> int:
    """Run one soak, print its figures, and give 0 when all is well."""
    options = _arguments()
    logging.getLogger("unexpired").addHandler(logging.NullHandler())
    sys.stdout.write(
        f"soak: {options.minutes:g} min, {options.processes} processes, seed {options.seed}, "
        f"Python {sys.version.split()[0]} (Ctrl-C ends it)\n"
    )
    sys.stdout.flush()
    # What is started now inherits this: Ctrl-C is for this process alone, which then ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The last call may have started a refresh ahead, which still writes there.
    temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with server_process(CONFIG) as server, temporary as directory:
        soak = Soak(server, Path(directory), options.processes, options.seed)
        began = time.monotonic()
        # Not in the middle of what is said to the server: a fault on its way would strike after all were taken back.
        signal.signal(signal.SIGINT, lambda *_: soak.interrupted.set())
        sys.stdout.write("started\n")
        sys.stdout.flush()
        soak.run(options.minutes * 60)
        if soak.interrupted.is_set():
            sys.stdout.write("\nended by Ctrl-C\n")
        took = time.monotonic() - began
        figures = soak.end()
    found = judge(figures)
    sys.stdout.write(f"\n{table(figures)}\n\n")
    sys.stdout.write("".join(f"NOT WELL: {sentence}\n" for sentence in found) or f"all is well after {took:.0f} s\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
