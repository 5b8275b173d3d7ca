"""Redis as a store speaks to it: its client, what things are called there, and StoreError for whatever goes wrong."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar, cast
from urllib.parse import quote, unquote

from unexpired.errors import ConfigurationError, StoreError, place_of
from unexpired.stores._redis_scripts import Script
from unexpired.stores._watched import boot

try:
    import redis
    from redis import exceptions as wrong
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "sessions in Redis need redis-py, which is not installed: pip install 'unexpired[redis]'", name=error.name
    ) from None

__all__ = ["Client", "Link"]

Client = redis.Redis | redis.RedisCluster
R = TypeVar("R")

_log = logging.getLogger("unexpired")
_CONNECT_TIMEOUT, _TIMEOUT = 2.0, 3.0
_CONNECTIONS = 64
_LET_IT_BE = 1.0
"""Seconds in which no request waits for a server that was just found out of reach."""

_RIGHTS = "its ACL does not let this user do that: docs/how-to/redis.md lists what a store needs"
_ADVICE: tuple[tuple[type[Exception] | str, str], ...] = (
    (wrong.NoPermissionError, _RIGHTS),
    (wrong.AuthenticationError, "it does not take this user and password: correct them"),
    (wrong.AuthenticationWrongNumberOfArgsError, "it does not take this user and password: correct them"),
    (wrong.AuthorizationError, "it does not take this user and password: correct them"),
    (wrong.ReadOnlyError, "it is a read-only replica: name the primary, or find it through Sentinel or the cluster"),
    (wrong.OutOfMemoryError, "it has no memory left: free some, or raise its maxmemory"),
    (wrong.BusyLoadingError, "it is still loading its data: it will be there when it has"),
    (wrong.MaxConnectionsError, "all connections of the client are in use: allow it more (max_connections)"),
    (wrong.MasterDownError, "it is a replica that has lost its primary: wait for the failover"),
    (wrong.ClusterDownError, "the cluster is down: look for its missing nodes"),
    (wrong.AskError, "it is part of a cluster: give RedisStore a redis.RedisCluster"),
    (TimeoutError, "it fell silent: check that it runs and that the network lets through to it"),
    (wrong.TimeoutError, "it did not answer in time{tls}: check that it runs and that the network lets through to it"),
    ("The user executing the script can't", _RIGHTS),
    ("ACL failure in script", _RIGHTS),
    ("OOM", "it has no memory left: free some, or raise its maxmemory"),
    ("READONLY", "it is a read-only replica: name the primary, or find it through Sentinel or the cluster"),
    ("NOPERM", _RIGHTS),
    ("NOAUTH", "it asks for a password: put it into the URL or the client"),
    ("WRONGPASS", "it does not take this user and password: correct them"),
    ("MISCONF", "it cannot write to its disk and refuses changes: look into its log"),
    ("NOREPLICAS", "it has too few replicas in reach (min-replicas-to-write)"),
    ("DB index is out of range", "it has no database of that number: take a lower one, or raise its 'databases'"),
    ("WRONGTYPE", "another program keeps something else under that name: choose another prefix"),
    ("BUSY", "it is busy with somebody's script"),
    ("CERTIFICATE_VERIFY_FAILED", "nobody vouches for its certificate: name the authority (ssl_ca_certs)"),
    (wrong.ConnectionError, "it is not to be reached{tls}: check that it runs and that the network lets through to it"),
    (OSError, "it is not to be reached: check that it runs and that the network lets through to it"),
)


class Link:
    """One client, one prefix. Shows no password, and no word of what a server said: it may repeat what it was sent."""

    def __init__(self, client: Client | str, prefix: str) -> None:
        self.ours = isinstance(client, str)
        made = _from_url(client) if isinstance(client, str) else client
        _check(made)
        if not prefix or not prefix.isprintable() or set(prefix) & set("{} "):
            raise ConfigurationError(f"{prefix!r} is no prefix: use letters, digits and the like, without braces")
        self.client: Any = made
        self.prefix = prefix
        self.channel = f"{prefix}:news"
        self.where, place = _place(made)
        self.identity: Hashable = ("redis", place, prefix)
        self._down_until, self._down = 0.0, ""

    def name(self, key: str) -> str:
        """*key* as it stands in names and news: any string, in ASCII, without braces, never empty."""
        return quote(key, safe="@:/+=,;!$&", errors="surrogatepass") or "%"

    def key(self, name: str) -> str:
        """What is called *name* there."""
        return "" if name == "%" else unquote(name, errors="surrogatepass")

    def session(self, name: str) -> str:
        """Where the session is. What belongs to one key lies in one slot of a cluster."""
        return f"{self.prefix}:session:{{{name}}}"

    def lease(self, name: str) -> str:
        """Where its lease is."""
        return f"{self.prefix}:lease:{{{name}}}"

    def run(self, script: Script, doing: str, key: str, names: tuple[str, ...], *arguments: object) -> Any:
        """What *script* returns for *names* and *arguments*. Raises StoreError."""

        def ask() -> Any:
            try:
                return self.client.evalsha(script.sha, len(names), *names, *arguments)
            except wrong.NoScriptError:
                return self.client.eval(script.text, len(names), *names, *arguments)

        return self.ask(doing, key, ask)

    def run_and_wait(
        self, replicas: int, script: Script, doing: str, key: str, names: tuple[str, ...], *arguments: object
    ) -> Any:
        """The same, with the word of *replicas* that they have what it wrote. Raises StoreError without that."""

        def ask(way: str, what: str) -> list[Any]:
            # On one connection: what is waited for is what this connection wrote.
            with self.client.pipeline(transaction=False) as both:
                getattr(both, way)(what, len(names), *names, *arguments)
                both.wait(replicas, _patience(self.client))
                said: list[Any] = both.execute(raise_on_error=False)
            return said

        def ask_both() -> list[Any]:
            said = ask("evalsha", script.sha)
            if isinstance(said[0], wrong.NoScriptError):
                said = ask("eval", script.text)
            for one in said:
                if isinstance(one, Exception):
                    raise one
            return said

        done, confirmed = self.ask(doing, key, ask_both)
        if done and confirmed < replicas:
            raise StoreError(
                f"{self.where} has stored the session {key!r}, but only {confirmed} of {replicas} replicas have "
                "confirmed it: look for a replica that is away, or ask for fewer (wait_replicas)",
                key=key,
            )
        return done

    def ask(self, doing: str, key: str, ask: Callable[[], R], *, patient: bool = True) -> R:
        """What *ask* brings; once more if a connection turned out to be dead. Raises StoreError.

        Who is not *patient* is refused at once while the server is known to be out of reach.
        """
        if not patient and boot() < self._down_until:
            raise StoreError(f"cannot {doing} {key!r} in {self.where}: {self._down}, a moment ago", key=key)
        try:
            try:
                answer = ask()
            except wrong.ConnectionError as error:
                if type(error) is not wrong.ConnectionError:
                    raise
                answer = ask()
        except Exception as error:  # noqa: BLE001 - whatever a client raises
            away, why = isinstance(error, wrong.ConnectionError | wrong.TimeoutError | OSError), self.why(error)
            if away and not isinstance(error, wrong.MaxConnectionsError):
                self._down, self._down_until = why, boot() + _LET_IT_BE
            raise StoreError(f"cannot {doing} {key!r} in {self.where}: {why}", key=key) from None
        self._down_until = 0.0
        return answer

    def why(self, error: Exception) -> str:
        """What kind of error it is, and what to do about it."""
        # In a script's error the code stands behind other words.
        said = str(error)
        tls = ", or does not speak TLS" if "connecting" in said and _is_tls(self.client) else ""
        for kind, advice in _ADVICE:
            if re.search(rf"(^|-|\s){kind}\b", said) if isinstance(kind, str) else isinstance(error, kind):
                return f"{advice.format(tls=tls)} ({kind if isinstance(kind, str) else type(error).__name__})"
        return f"{type(error).__name__}; look into its log" if isinstance(error, wrong.RedisError) else place_of(error)

    def back(self) -> None:
        """It has been reached."""
        self._down_until = 0.0

    def answers(self) -> bool:
        """Whether it can be reached now."""
        try:
            self.client.ping()
        except wrong.ResponseError:
            pass  # a refusal is an answer
        except Exception:  # noqa: BLE001 - whatever a client raises
            return False
        self.back()
        return True

    def close(self) -> None:
        """Let go of the connections that nobody is using, if the client is ours."""
        if self.ours:
            self.client.connection_pool.disconnect(inuse_connections=False)

    def check_durability(self) -> None:
        """Warn, once, of settings with which a rotated token can be lost. Says nothing where it may not look."""
        try:
            for node, about in self._information():
                if not int(about.get("aof_enabled", 1)):
                    _log.warning(
                        "%s keeps no append-only file: a token that was rotated shortly before a restart is lost, and "
                        "with it the login; set 'appendonly yes'",
                        node,
                    )
                policy = str(about.get("maxmemory_policy", "noeviction"))
                if policy != "noeviction" and int(about.get("maxmemory", 0)):
                    _log.warning(
                        "%s evicts keys when its memory is full (%s): sessions or leases can vanish; set "
                        "'maxmemory-policy noeviction'",
                        node,
                        policy,
                    )
        except Exception as error:  # noqa: BLE001 - a look that is not allowed changes nothing
            _log.debug("%s does not tell its settings: %s", self.where, type(error).__name__)

    def _information(self) -> list[tuple[str, Mapping[str, Any]]]:
        client: Any = self.client
        if not isinstance(self.client, redis.RedisCluster):
            return [(f"Redis at {self.where}", {**client.info("persistence"), **client.info("memory")})]
        found: dict[str, dict[str, Any]] = {}
        for section in ("persistence", "memory"):
            said: dict[str, Any] = client.info(section, target_nodes=redis.RedisCluster.PRIMARIES)
            # Of one node it tells what it says, of several who says what.
            nodes = said if all(isinstance(one, Mapping) for one in said.values()) else {self.where: said}
            for node, about in nodes.items():
                found.setdefault(f"Redis at {node}", {}).update(about)
        return list(found.items())


def _from_url(url: str) -> redis.Redis:
    try:
        # A store repeats what can be repeated itself, and bounds what a flight may wait.
        # Many flights at once wait for a connection; to be refused one is no reason to fail.
        pools: Any = redis.BlockingConnectionPool
        pool = pools.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=_TIMEOUT,
            socket_connect_timeout=_CONNECT_TIMEOUT,
            socket_timeout=_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        # Connects to nothing: what it does not take would come out at the first use only.
        pool.connection_class(**pool.connection_kwargs)
        return redis.Redis.from_pool(pool)
    except (ValueError, TypeError, wrong.RedisError) as error:
        # A URL may hold a password.
        unknown = re.search(r"unexpected keyword argument '(\w+)'$", str(error)) if type(error) is TypeError else None
        if unknown is not None:
            raise ConfigurationError(
                f"redis-py knows no setting {unknown[1]!r}: correct the URL of the Redis"
            ) from None
        raise ConfigurationError(
            f"that is no URL of a Redis ({type(error).__name__}): write redis://host:6379/0, or rediss:// for TLS"
        ) from None


def _check(client: object) -> None:
    if not isinstance(client, redis.Redis | redis.RedisCluster):
        raise ConfigurationError(f"RedisStore takes a URL, redis.Redis or redis.RedisCluster, not {type(client)!r}")
    of_replicas = (
        getattr(client, "read_from_replicas", False) or getattr(client, "load_balancing_strategy", None) is not None
        if isinstance(client, redis.RedisCluster)
        else not getattr(client.connection_pool, "is_master", True)
    )
    if of_replicas:
        raise ConfigurationError("RedisStore needs a client that reads from primaries: a replica may lag behind")


def _is_tls(client: Any) -> bool:
    kind = getattr(getattr(client, "connection_pool", None), "connection_class", None)
    return isinstance(kind, type) and issubclass(kind, redis.SSLConnection)


def _patience(client: Any) -> int:
    """Milliseconds that replicas may take: less than the client waits for any answer."""
    timeout = cast("float | None", client.connection_pool.connection_kwargs.get("socket_timeout"))
    return round(1000 * min(1.0, (timeout or 2.0) / 2))


def _place(client: Client) -> tuple[str, Hashable]:
    """What to call it, and what tells it from others."""
    if isinstance(client, redis.RedisCluster):
        known: Any = client
        nodes = tuple(sorted(str(node.name) for node in known.get_nodes()))
        return f"the cluster of {nodes[0] if nodes else 'no node'}", nodes
    pool: Any = client.connection_pool
    settings = cast("Mapping[str, Any]", pool.connection_kwargs)
    database = settings.get("db") or 0
    # What isinstance would tell is of no known type.
    if manager := getattr(pool, "sentinel_manager", None):
        sentinels = tuple(sorted(_place(one)[0] for one in manager.sentinels))
        return f"{pool.service_name}/{database}", (str(pool.service_name), sentinels, database)
    if path := settings.get("path"):
        return f"{path}/{database}", (str(path), database)
    host, port = settings.get("host", "localhost"), settings.get("port", 6379)
    return f"{host}:{port}/{database}", (str(host), int(port), database)
