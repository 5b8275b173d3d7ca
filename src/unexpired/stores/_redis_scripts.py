"""What has to happen in one step, as scripts that Redis runs. They can be repeated: each knows its own work again."""

from __future__ import annotations

import hashlib

__all__ = ["LEASE", "RELEASE", "RENEW", "SET_ASIDE", "SWAP", "Script"]


class Script:
    """A script and the name that Redis gives it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


# Published before anything is written, an intent too, which nobody acts on: who may not publish is refused before he
# sends anything, and stores nothing that others would never hear of. Nobody reads before the script is over.
SWAP = Script("""
local expects, login, version, notes = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local new_login, new_version, new_notes, record = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local change, ttl, channel, news = ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local stored = redis.call('HMGET', KEYS[1], 'login', 'version', 'notes', 'change', 'record')
if stored[4] == change then
  redis.call('HSET', KEYS[1], 'change', change)
  return 1
end
if not stored[5] then
  if expects ~= '0' then return 0 end
else
  if expects ~= '1' or stored[1] ~= login or stored[2] ~= version then return 0 end
  if new_login == login and new_version == version and stored[3] ~= notes then return 0 end
end
redis.call('PUBLISH', channel, news)
redis.call('HSET', KEYS[1], 'login', new_login, 'version', new_version, 'notes', new_notes,
  'change', change, 'record', record)
if ttl == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ttl) end
return 1
""")

LEASE = Script("""
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return {0, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local now = redis.call('TIME')
return {1, now[1], now[2]}
""")

RENEW = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")

RELEASE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', ARGV[2], ARGV[3])
return 1
""")

# Only what was found unreadable is moved: nothing that somebody stored meanwhile.
SET_ASIDE = Script("""
if redis.call('TYPE', KEYS[1]).ok == 'hash' then
  if ARGV[1] ~= 'hash' or redis.call('HGET', KEYS[1], 'record') ~= ARGV[2] then return 1 end
elseif ARGV[1] == 'hash' or redis.call('EXISTS', KEYS[1]) == 0 then
  return 1
end
redis.call('PERSIST', KEYS[1])
local moved = redis.call('RENAMENX', KEYS[1], KEYS[2])
if moved == 1 then redis.pcall('PUBLISH', ARGV[3], ARGV[4]) end
return moved
""")
