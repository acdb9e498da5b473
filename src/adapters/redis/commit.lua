-- COMMIT: applies a turn, all of it or nothing.
--
-- Redis runs a script alone but does not roll back one that fails half-way. So every check and every read comes before
-- the first write, and the first writes are those to the one key whose type could be wrong.

local next_key, next_arg = 0, 0
local function key() next_key = next_key + 1; return KEYS[next_key] end
local function arg() next_arg = next_arg + 1; return ARGV[next_arg] end
local function many(one)
  local all = {}
  for i = 1, tonumber(arg()) do all[i] = one() end
  return all
end

-- An empty text stands for "none" throughout.
local applied, lease, claims, user_waits = key(), key(), key(), key()
local outbox, dedupe_ms, token, session_prefix = arg(), arg(), arg(), arg()
local base = arg() == '1' and key()
local head = arg()
local taken, taken_pointers, shadowed = arg(), many(key), many(arg)
local park, park_data, park_ms, park_pointers = arg(), arg(), arg(), many(key)
local read_keys, read_values = many(key), many(arg)
local written_keys, written_values = many(key), many(arg)

local function get(name) return redis.call('GET', name) or '' end
local function exists(session) return redis.call('EXISTS', session_prefix .. session) == 1 end

-- The checks.

local before = redis.call('GET', applied)
if before then return {'applied', before} end

-- The lease must be ours where one was taken, and nobody's where none was.
if get(lease) ~= token then return {'conflict', 'lease'} end
if base and get(base) ~= head then return {'conflict', 'head'} end
if taken ~= '' and not exists(taken) then return {'conflict', 'wait'} end
for i, name in ipairs(read_keys) do
  if get(name) ~= read_values[i] then return {'conflict', 'state'} end
end

local stale = {} -- pointers to the taken session; one that has come to name another stays
for _, pointer in ipairs(taken_pointers) do
  if get(pointer) == taken then stale[#stale + 1] = pointer end
end

local restored = '' -- the latest of the waits that the taken one had pushed aside
if base and taken ~= '' and head == taken then
  stale[#stale + 1] = base
  for _, session in ipairs(shadowed) do
    if exists(session) then restored = session; break end
  end
end

-- The writes.

if taken ~= '' then
  redis.call('SREM', user_waits, taken)
  redis.call('DEL', session_prefix .. taken, unpack(stale))
end

if park ~= '' then
  local lasts_ms = redis.call('PTTL', user_waits) -- -2: there is no set; -1: a stock store's, which never expires
  redis.call('SADD', user_waits, park)
  if lasts_ms ~= -1 and lasts_ms < tonumber(park_ms) then redis.call('PEXPIRE', user_waits, park_ms) end
  redis.call('SET', session_prefix .. park, park_data, 'PX', park_ms)
  for _, pointer in ipairs(park_pointers) do redis.call('SET', pointer, park, 'PX', park_ms) end
  -- Waits that expired are still in the set. Sampling a few each time keeps their number from growing for ever.
  if redis.call('SCARD', user_waits) > 8 then
    for _, session in ipairs(redis.call('SRANDMEMBER', user_waits, 4)) do
      if not exists(session) then redis.call('SREM', user_waits, session) end
    end
  end
elseif restored ~= '' then
  redis.call('SET', base, restored)
  local lasts_ms = redis.call('PTTL', session_prefix .. restored)
  if lasts_ms >= 0 then redis.call('PEXPIRE', base, lasts_ms) end
end

for i, name in ipairs(written_keys) do
  if written_values[i] == '' then
    redis.call('DEL', name)
  else
    redis.call('SET', name, written_values[i], 'KEEPTTL')
  end
end

redis.call('SET', applied, outbox, 'PX', dedupe_ms)
if token ~= '' then redis.call('DEL', lease, claims) end
return {'done'}
