"""What `redis` has Redis do in one step, in its own language.

Source: https://redis.io/docs/latest/commands/eval/
"""

from __future__ import annotations

__all__ = ["ANOTHER", "APPEND", "NAME", "SIGN", "SIGNS"]

#: The keys beside a stream's own, as the scripts take them.
SIGNS = ("writer", "lease", "watched", "stopped")
#: What a script says to who is not the writer.
ANOTHER = b"another"

#: Add events, if the newest one is where the writer believes; else return the newest one.
APPEND = """
local writer = redis.call('GET', KEYS[2])
if writer and writer ~= ARGV[6] then return 'another' end
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local last = newest[1] and tonumber(string.match(newest[1][1], '^%d+')) or 0
if last ~= tonumber(ARGV[1]) then return newest end
local first, ends = tonumber(ARGV[2]), ARGV[3] == '1'
for i = 7, #ARGV do
    local id = string.format('%.0f-1', first + i - 7)
    if ends and i == #ARGV then
        redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[4], id, 'd', ARGV[i], 'e', '1')
    else
        redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[4], id, 'd', ARGV[i])
    end
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('SET', KEYS[2], ARGV[6], 'PX', ARGV[5])
return false
"""

#: Sign that the writer lives; return whether anybody reads, whether it is to stop, and the newest
#: event. A token that is another one's is left alone.
SIGN = """
local writer = redis.call('GET', KEYS[2])
if writer and writer ~= ARGV[1] then return 'another' end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[3], '1', 'PX', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {
    redis.call('EXISTS', KEYS[4]),
    redis.call('EXISTS', KEYS[5]),
    redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
}
"""

#: Have a name stand for something, if it stands for nothing, or for what it may stand for; return
#: what it stands for then.
NAME = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and holder ~= ARGV[2] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return ARGV[1]
"""
