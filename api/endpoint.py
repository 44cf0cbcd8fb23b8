"""The owner's endpoint: a listening socket on loopback, the token that clients must send, and the thread that answers
requests until the owner stops."""

from __future__ import annotations

import logging
import socket
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from coupon_ledger.api.contact import INTERFACE, remove_token, write_token
from coupon_ledger.api.feed import Feed
from coupon_ledger.api.snapshots import MOST, Snapshots
from coupon_ledger.consumers.owner import Owner
from coupon_ledger.consumers.runner import Committed
from coupon_ledger.ledger.errors import PortTaken
from coupon_ledger.ledger.extras import absent, install
from coupon_ledger.projections.readers import Readers
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.registry import as_of

if TYPE_CHECKING:
    from uvicorn import Server

_logger = logging.getLogger(__name__)

_MISSING: Final = f"the extra is missing: {install('service')}"
QUICK: Final = 2
"""Number of quick questions that run at once. More would slow down the consumer without answering sooner."""
URGENT: Final = 1
"""Number of urgent questions that run at once."""
SLOW: Final = 1
"""Number of slow questions that run at once. They have their own threads, so that quick questions need not wait."""
COPIES: Final = 1
"""Number of backups that run at once."""
FOLLOWERS: Final = 1
"""Number of followers of the feed that read the state at once."""
_HOST: Final = "127.0.0.1"
_NOT_FOR_S: Final = 0.25
"""If the owner stops within this time, it does not load the web framework. Clients that connect meanwhile wait, then
find no owner."""
_LEAVE_S: Final = 3


class Endpoint:
    """Within the block, questions about the store are answered over HTTP. To be used as a context manager, in the
    thread that uses the store.

    Without the `service` extra, no questions are answered, and a warning is logged.
    """

    def __init__(self, store: Store, port: int = 0, owner: Owner | None = None) -> None:
        """`port`: the port to listen on; 0 for any free one. `owner`: does the sweeps, repairs and swaps that clients
        request. If None, there are no routes for these."""
        self._store = store
        self._port = port
        self._owner = owner
        self._service: _Service | None = None

    def __enter__(self) -> Endpoint:
        if absent("service"):
            self._store.announce({"interface": None, "because": _MISSING})
            _logger.warning("no questions are answered beside the consumer; %s", _MISSING)
            return self
        listening = _listening(self._port)
        try:
            token = write_token(self._store.path)
            self._service = _Service(self._store, listening, token, self._owner)
            if self._owner is not None:
                self._owner.on_succession = self._succeeded
        except BaseException:
            listening.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._service is not None:
            self._store.announce({})
            self._service.stop()
            remove_token(self._store.path)

    def _succeeded(self, _before: Store) -> None:
        assert self._service is not None and self._owner is not None
        self._store = self._owner.store
        self._service.change(self._store)

    @property
    def url(self) -> str | None:
        return self._service.url if self._service else None

    def committed(self, commit: Committed) -> None:
        if self._service is not None:
            self._service.metrics.committed(commit)
            self._service.feed.committed(commit)


class _Service:
    """What a running endpoint consists of: cursors for questions, metrics, snapshots, and the thread that answers
    requests."""

    def __init__(self, store: Store, listening: socket.socket, token: str, owner: Owner | None) -> None:
        from coupon_ledger.api.metrics import Metrics

        self.metrics = Metrics(store.path, as_of(store), lambda: None if owner is None else owner.figures)
        self._readers = Readers(store, URGENT + QUICK + SLOW + COPIES + MOST + FOLLOWERS)
        self.feed = Feed(self._readers)
        self._snapshots = Snapshots(self._readers)
        self._listening = listening
        self._token = token
        self._owner = owner
        self._leaving = threading.Event()
        self._server: Server | None = None
        self.url = f"http://{_HOST}:{listening.getsockname()[1]}"
        self._announce(store)
        self._thread = threading.Thread(target=self._serve, name="endpoint")
        self._thread.start()

    def change(self, store: Store) -> None:
        """Answer all further questions from another generation of the database, open as `store`."""
        self._announce(store)
        self._readers.change(store)

    def _announce(self, store: Store) -> None:
        store.announce({"interface": INTERFACE, "release": version("coupon-ledger"), "url": self.url})

    def stop(self) -> None:
        self._leaving.set()
        self.feed.close()
        if self._server is not None:
            self._server.should_exit = True
        self._snapshots.close()
        self._readers.close()
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        if self._leaving.wait(_NOT_FOR_S):
            return
        from uvicorn import Config, Server

        from coupon_ledger.api.connections import Bounded
        from coupon_ledger.api.server import application, question_threads

        # Otherwise it warns about every malformed request, even from clients without a token.
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        with (
            question_threads(URGENT, "urgent", nice=False) as urgent,
            question_threads(QUICK, "quick") as quick,
            question_threads(SLOW, "slow") as slow,
            question_threads(COPIES, "backup") as copying,
        ):
            port = self._listening.getsockname()[1]
            config = Config(
                application(
                    self._readers,
                    self.metrics,
                    (urgent, quick, slow),
                    self._token,
                    port,
                    self._owner,
                    copying,
                    self._snapshots,
                    self.feed,
                ),
                loop="asyncio",
                http=Bounded,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_LEAVE_S,
            )
            self._server = Server(config)
            if not self._leaving.is_set():
                self._server.run(sockets=[self._listening])


def _listening(port: int) -> socket.socket:
    # asyncio disables Nagle's delay (40 ms per answer) only for sockets that name TCP as their protocol.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((_HOST, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise PortTaken(f"port {port}: cannot be used ({error.strerror}); name another with --port") from error
    return listening
