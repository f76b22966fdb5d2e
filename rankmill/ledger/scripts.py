"""The Lua scripts of the ledger: steps that Redis takes whole or not at all."""

# Moves shards from "not sent yet" into flight, as many as the window has room for.
TAKE_NEXT = """
if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return {} end
local total = tonumber(redis.call('HGET', KEYS[1], 'n_shards'))
local next_shard = tonumber(redis.call('HGET', KEYS[1], 'next_shard'))
local room = tonumber(ARGV[1]) - redis.call('ZCARD', KEYS[2])
local now = redis.call('TIME')[1]
local taken = {}
while room > 0 and next_shard < total do
  if redis.call('GETBIT', KEYS[3], next_shard) == 0 then
    redis.call('ZADD', KEYS[2], now, next_shard)
    taken[#taken + 1] = next_shard
    room = room - 1
  end
  next_shard = next_shard + 1
end
redis.call('HSET', KEYS[1], 'next_shard', next_shard)
return taken
"""

# Counts a finished shard once, however often it is called. -1: the job is not known here.
FINISH = """
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
if redis.call('SETBIT', KEYS[3], ARGV[1], 1) == 0 then
  redis.call('HINCRBY', KEYS[1], 'n_shards_done', 1)
  redis.call('HINCRBY', KEYS[1], 'n_pairs_done', ARGV[2])
  redis.call('HINCRBY', KEYS[1], 'n_tokens', ARGV[3])
  redis.call('HINCRBY', KEYS[1], 'n_rejected', ARGV[4])
  redis.call('HINCRBY', KEYS[1], 'n_reused', ARGV[5])
  redis.call('HINCRBY', KEYS[1], 'busy_ms', ARGV[7])
  redis.call('HINCRBY', KEYS[1], 'worked_ms', ARGV[8])
  local now = tonumber(redis.call('TIME')[1])
  redis.call('HSETNX', KEYS[1], 'started_at', now - tonumber(ARGV[6]))
  redis.call('HSET', KEYS[1], 'progress_at', now)
end
return tonumber(redis.call('HGET', KEYS[1], 'n_shards_done'))
"""

# A claim that has vanished (a flushed Redis) is taken again; another holder's is not.
RENEW = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if redis.call('EXISTS', KEYS[2]) == 1 and redis.call('HGET', KEYS[3], ARGV[3]) ~= ARGV[4] then
  local now = redis.call('TIME')[1]
  redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
  redis.call('HSETNX', KEYS[2], 'started_at', now)
  redis.call('HSET', KEYS[2], 'progress_at', now)
end
return 1
"""

# Releases a lease that this token holds.
RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

# Notes a worker's heartbeat in each of the sets but the last key. That one is set for a while if
# Redis has not had the heartbeat of a worker that has sent some.
SEEN = """
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local last = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[2] == '1' and (not last or now - last > tonumber(ARGV[3])) then
  redis.call('SET', KEYS[#KEYS], '1', 'EX', ARGV[3])
end
for i = 1, #KEYS - 1 do redis.call('ZADD', KEYS[i], now, ARGV[1]) end
"""

# Extends a lease that this token holds.
HOLD = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

# Lets the holder of the lease send a lost shard again, once for each time that it was due.
SEND_AGAIN = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local due = redis.call('ZSCORE', KEYS[2], ARGV[2])
if not due or tonumber(due) ~= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[2], 'XX', redis.call('TIME')[1], ARGV[2])
return 1
"""

# Returns the counts for the window of a job's shards in flight.
ADVANCE = """
local function field(name) return redis.call('HGET', KEYS[1], name) end
local state = field('state')
if not state then return {} end
local sum = 0
for _, priority in ipairs(redis.call('HVALS', KEYS[2])) do sum = sum + (tonumber(priority) or 0) end
local since = redis.call('TIME')[1] - ARGV[1]
local n_workers = redis.call('ZCOUNT', KEYS[3], since, '+inf')
return {state, field('n_shards'), field('n_shards_done'), sum, n_workers}
"""
