"""The server as a process: its socket, its start, its orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import signal
import socket
from collections.abc import Callable, Generator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from lucidate.core.errors import ServeError
from lucidate.serve.app import make_app
from lucidate.serve.graph import stop_making
from lucidate.serve.http_protocol import http_protocol
from lucidate.serve.repository import Repository
from lucidate.serve.settings import Settings
from lucidate.serve.state import Life

LINGER = 1.0  # seconds in which an idle connection may still be used, before it is closed
TICK = 0.02  # seconds
BACKLOG = 2048  # connections that the system holds while we are busy
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # what listens on all addresses can be asked at these

Announce = Callable[[str, Repository], None]  # is told the address and the models, once they answer


def serve(settings: Settings, runs: Mapping[str, Path], *, announce: Announce) -> None:
    """Serve until SIGTERM, SIGHUP or Ctrl-C; then answer what was admitted, and return.

    runs: as `settings.name_runs` gives them. Raises ServeError for an address that cannot be had, LucidateError for
    a model that cannot be loaded.
    """
    with contextlib.closing(bind(settings.host, settings.port)) as listener:
        uvloop.run(_serve(settings, runs, listener, announce))


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free. Raises ServeError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise ServeError(f"--host: expected an address of this machine, received {host!r}") from None
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"--port: expected one that is free, received {port}, which is taken; choose another, or 0 for any"
        elif error.errno == errno.EACCES:
            reason = f"--port: expected one that you may use, received {port}; those below 1024 are the system's"
        else:
            reason = f"--host: expected an address of this machine, received {host!r} ({error.strerror})"
        raise ServeError(reason) from None


def address(settings: Settings, listener: socket.socket) -> str:
    """Where a browser on this machine finds the server."""
    host = EVERYWHERE.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def settle() -> None:
    """Let collections of garbage be rare, and pass over what stays for good.

    With a thousand connections each full one stops the server for 50 ms, and a burst brings several.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 20)


async def _serve(settings: Settings, runs: Mapping[str, Path], listener: socket.socket, announce: Announce) -> None:
    life = Life()
    repository = Repository(runs, settings)
    server = _Server(settings, make_app(settings, repository, life=life), life)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    loading = asyncio.create_task(repository.load_all())
    await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if loading.done():
            loading.result()
            settle()
            life.ready = True
            announce(address(settings, listener), repository)
    except BaseException:  # also what no one foresaw: a server that never gets ready is to end
        server.should_exit = True
        raise
    finally:
        if not loading.done():
            loading.cancel()
            stop_making()
        await serving


class _Server(uvicorn.Server):
    """uvicorn's, which by itself would end by the signal it got, and reset connections that are just being used."""

    def __init__(self, settings: Settings, app: object, life: Life) -> None:
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            http=http_protocol(settings),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=settings.keep_alive,
            timeout_graceful_shutdown=1,  # after our own, which leaves nothing
        )
        super().__init__(config)
        self._life = life
        self._grace = settings.grace_seconds
        self._seconds = max(0.1, settings.drain_seconds - settings.grace_seconds)  # until the rest is cut off

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """SIGTERM, Ctrl-C and a terminal that closes ask for an end while we serve."""
        loop = asyncio.get_running_loop()
        numbers = {signal.SIGTERM, signal.SIGINT}
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # under nohup it is ignored, and stays so
            numbers.add(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._asked)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _asked(self) -> None:
        """Once, for an orderly end; twice, for one at once."""
        if self._life.draining:
            self.force_exit = self.should_exit = True
            return
        self._life.draining = True
        # Balancers need a moment to see that we are not ready; until then new requests are still answered.
        asyncio.get_running_loop().call_later(self._grace if self._life.ready else 0, self._end)

    def _end(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no connection any more, answer what was admitted, then go."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._seconds
        for listener in sockets or ():
            await self._accept_waiting(listener)
        for server in self.servers:
            server.close()
        self._life.closing = True
        await self._until_closed(loop.time() + min(LINGER, self._seconds))
        for connection in list(self.server_state.connections):
            connection.shutdown()  # those without a request now, the others after their answer
        await self._until_closed(end)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)

    async def _accept_waiting(self, listener: socket.socket) -> None:
        """Connections that the system has made for us and that we have not seen yet: closing would reset them."""
        kind: Any = self.config.http_protocol_class
        make = partial(kind, self.config, self.server_state, self.lifespan.state)
        while True:
            try:
                waiting, _ = listener.accept()
            except OSError:
                return
            await asyncio.get_running_loop().connect_accepted_socket(make, waiting)

    async def _until_closed(self, end: float) -> None:
        loop = asyncio.get_running_loop()
        while self.server_state.connections and loop.time() < end and not self.force_exit:
            await asyncio.sleep(TICK)
