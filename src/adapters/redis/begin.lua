-- BEGIN: opens a turn. Was its activity applied already? Is its conversation free? What waits there?
--
-- An optimistic turn, the usual one, writes nothing here: writes are what costs in Redis.

local next_key, next_arg = 0, 0
local function key() next_key = next_key + 1; return KEYS[next_key] end
local function arg() next_arg = next_arg + 1; return ARGV[next_arg] end

local applied, lease, claims = key(), key(), key()
local token, lease_ms, claims_ms = arg(), arg(), arg() -- no token: an optimistic turn
local session_prefix, resume = arg(), arg() == '1'
local pointers = {} -- in the order of the look-up, the base scope's last; none without a reply scope
for i = 1, tonumber(arg()) do pointers[i] = key() end
local state = {}
for i = next_key + 1, #KEYS do state[#state + 1] = KEYS[i] end

local outbox = redis.call('GET', applied)
if outbox then return {'applied', outbox} end

local holder = redis.call('GET', lease)
if holder and holder ~= token then
  return {'busy', redis.call('PTTL', lease)}
end

local count = 0
if token ~= '' then
  if holder then
    -- Our own claim, made again because its answer was lost: that is no further attempt.
    count = tonumber(redis.call('GET', claims) or 1)
  else
    count = redis.call('INCR', claims)
    redis.call('PEXPIRE', claims, claims_ms)
  end
  redis.call('SET', lease, token, 'PX', lease_ms)
end

local head = false
local waits, seen = {}, {} -- session key, session, session key, session ...
for i, pointer in ipairs(pointers) do
  local session = redis.call('GET', pointer)
  if i == #pointers then head = session end
  if resume and session and not seen[session] then
    seen[session] = true
    local data = redis.call('GET', session_prefix .. session)
    -- A pointer whose session is gone is no wait.
    if data then
      waits[#waits + 1] = session
      waits[#waits + 1] = data
    end
  end
end

return {'ready', count, head, waits, #state > 0 and redis.call('MGET', unpack(state)) or {}}
