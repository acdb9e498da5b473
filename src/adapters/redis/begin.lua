-- BEGIN for a turn that wants its conversation for itself. Was its activity applied already? Is its conversation free? What
-- waits there? Takes the lease and counts the claim.

local applied, lease, claims = KEYS[1], KEYS[2], KEYS[3]
local token, lease_ms, claims_ms, session_prefix, resume, pointers, values, state_end = unpack(ARGV)
-- Pointers, in the order of the look-up, the base scope's last; none without a reply scope. After them, state, and the lease
-- on the user if it is wanted, too.
local last_pointer = 3 + pointers
local last_value = last_pointer + values
local user_lease = KEYS[last_value + 1]

local outbox = redis.call('GET', applied)
if outbox then return {'applied', outbox} end

local holder = redis.call('GET', lease)
if holder and holder ~= token then
  return {'busy', redis.call('PTTL', lease)}
end

if user_lease then
  local other = redis.call('GET', user_lease)
  if other and other ~= token then return {'busy', redis.call('PTTL', user_lease)} end
  redis.call('SET', user_lease, token, 'PX', lease_ms)
end

local count
if holder then
  -- Our own claim, made again because its answer was lost: that is no further attempt.
  count = tonumber(redis.call('GET', claims) or 1)
else
  count = redis.call('INCR', claims)
  redis.call('PEXPIRE', claims, claims_ms)
end
redis.call('SET', lease, token, 'PX', lease_ms)

local head = false
local waits, seen = {}, {} -- session key, session, session key, session ...
for i = 4, last_pointer do
  local session = redis.call('GET', KEYS[i])
  if i == last_pointer then head = session end
  if resume == '1' and session and not seen[session] then
    seen[session] = true
    local data = redis.call('GET', session_prefix .. session)
    -- A pointer whose session is gone is no wait.
    if data then
      waits[#waits + 1] = session
      waits[#waits + 1] = data
    end
  end
end

-- The beginning of each value: another program may have stored more than a turn takes. An empty text is no value.
local state = {}
for i = last_pointer + 1, last_value do
  state[#state + 1] = redis.call('GETRANGE', KEYS[i], 0, state_end)
end
return {'ready', count, head, waits, state}
