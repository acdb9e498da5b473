-- COMMIT: applies a turn, all of it or nothing.
--
-- Redis runs a script alone but does not roll back one that fails half-way. So every check and every read comes before
-- the first write, and the first writes are those to the one key whose type could be wrong.
--
-- Every call from here, and every argument, costs Redis a microsecond or a part of it, in each turn: so there are no more
-- than it takes, and what is always there stands in a fixed place.

-- An empty text stands for "none" throughout.
local applied, lease, user_waits = KEYS[1], KEYS[2], KEYS[3]
local outbox, dedupe_ms, token, session_prefix, head, taken, park, park_data, park_ms, most_waits = unpack(ARGV, 1, 10)
local bases, pointers, shadowed, correlated, reads, writes = unpack(ARGV, 11, 16) -- how many there are of each

-- The lists are one after the other, in KEYS: the base scope's pointer, others to the taken session, the one to the new
-- session by its correlation, state that was read, state to write, with state to write the bytes of the user's and the
-- tenant's state, with it or with a lease on the user that lease, and with a lease the claims and the failures. In ARGV: the sessions that the taken one had pushed aside, the values that
-- were read, those to write, with values to write the user's quota, the tenant's, and what each key counts.
local base = bases == '1' and KEYS[4]
local first_pointer = 4 + bases
local first_correlated = first_pointer + pointers
local first_read = first_correlated + correlated
local first_write = first_read + reads
local first_counter = first_write + writes
local user_lease = #KEYS - (token ~= '' and 2 or 0) >= first_counter and KEYS[#KEYS - (token ~= '' and 2 or 0)]
local first_shadowed = 17
local first_read_value = first_shadowed + shadowed
local first_write_value = first_read_value + reads
local first_quota = first_write_value + writes

local call = redis.call
local function exists(session) return call('EXISTS', session_prefix .. session) == 1 end

-- The checks.

local before = call('GET', applied)
if before then return {'applied', before} end

-- The lease must not be another's. One of ours that has expired and that nobody took since is none to anybody.
local holder = call('GET', lease)
if holder and holder ~= token then return {'conflict', 'lease'} end
if base and (call('GET', base) or '') ~= head then return {'conflict', 'head'} end
if taken ~= '' and not exists(taken) then return {'conflict', 'wait'} end
for i = 0, reads - 1 do
  if (call('GET', KEYS[first_read + i]) or '') ~= ARGV[first_read_value + i] then return {'conflict', 'state'} end
end

-- The bytes of state of the user and of the tenant. Nobody may change the state of a user whom another turn holds.
local counts, user_holder = {}, false
if first_counter > first_write then
  counts = call('MGET', KEYS[first_counter], KEYS[first_counter + 1], user_lease)
  user_holder = counts[3]
  if user_holder and user_holder ~= token then return {'conflict', 'user'} end
elseif user_lease then
  user_holder = call('GET', user_lease)
end

local gone = {session_prefix .. taken} -- with its pointers; one that has come to name another session stays
for i = first_pointer, first_correlated - 1 do
  if call('GET', KEYS[i]) == taken then gone[#gone + 1] = KEYS[i] end
end

local restored = '' -- the latest of the waits that the taken one had pushed aside
if base and taken ~= '' and head == taken then
  gone[#gone + 1] = base
  for i = first_shadowed, first_read_value - 1 do
    if exists(ARGV[i]) then restored = ARGV[i]; break end
  end
end

-- What the bytes will be: a turn that makes them more must stay in the quotas.
local used = {}
if first_counter > first_write then
  local each, change = tonumber(ARGV[first_quota + 2]), 0
  for i = 0, writes - 1 do
    local name, value = KEYS[first_write + i], ARGV[first_write_value + i]
    local bytes = call('STRLEN', name)
    if bytes > 0 then change = change - bytes - #name - each end
    if value ~= '' then change = change + #value + #name + each end
  end
  for i = 0, 1 do
    local bytes = tonumber(counts[i + 1] or 0) or 0
    if change > 0 and bytes + change > tonumber(ARGV[first_quota + i]) then
      return {'refused', i == 0 and 'user_state' or 'tenant_state', bytes}
    end
    used[i] = math.max(bytes + change, 0)
  end
end

-- The open waits of the user. Those that expired are still in the set, so a set that is full is looked through, and they
-- leave it whatever becomes of the turn.
local members, expired = 0, 0
if park ~= '' then
  members, most_waits = call('SCARD', user_waits), tonumber(most_waits)
  if members >= most_waits then
    local open = 0
    for _, session in ipairs(call('SRANDMEMBER', user_waits, 2 * most_waits)) do
      if session ~= taken then
        if exists(session) then open = open + 1 else expired = expired + call('SREM', user_waits, session) end
      end
    end
    if open >= most_waits then return {'refused', 'waits', expired} end
  end
end

-- The writes. What begins with a deletion is let through by a server whose memory is full.

if taken ~= '' then
  call('SREM', user_waits, taken)
  call('DEL', unpack(gone))
end

if park ~= '' then
  local lasts_ms = call('PTTL', user_waits) -- -2: there is no set; -1: a stock store's, which never expires
  call('SADD', user_waits, park)
  if lasts_ms ~= -1 and lasts_ms < tonumber(park_ms) then call('PEXPIRE', user_waits, park_ms) end
  call('SET', session_prefix .. park, park_data, 'PX', park_ms)
  call('SET', base, park, 'PX', park_ms)
  if correlated == '1' then call('SET', KEYS[first_correlated], park, 'PX', park_ms) end
  -- Waits that expired are still in the set. Sampling a few each time keeps them few where it is not full.
  if members > 8 then
    for _, session in ipairs(call('SRANDMEMBER', user_waits, 4)) do
      if not exists(session) then expired = expired + call('SREM', user_waits, session) end
    end
  end
elseif restored ~= '' then
  call('SET', base, restored)
  local lasts_ms = call('PTTL', session_prefix .. restored)
  if lasts_ms >= 0 then call('PEXPIRE', base, lasts_ms) end
end

for i = 0, writes - 1 do
  local name, value = KEYS[first_write + i], ARGV[first_write_value + i]
  if value == '' then
    call('DEL', name)
  else
    call('SET', name, value, 'KEEPTTL')
  end
end

for i, bytes in pairs(used) do
  local counter = KEYS[first_counter + i]
  if bytes > 0 then call('SET', counter, string.format('%.0f', bytes)) else call('DEL', counter) end
end

call('SET', applied, outbox, 'PX', dedupe_ms)
if token ~= '' then
  call('DEL', lease, KEYS[#KEYS - 1], KEYS[#KEYS])
  if user_holder == token then call('DEL', user_lease) end
end
if expired > 0 then return {'done', used[1] or false, expired} end
return {'done', used[1]}
