-- PROBE: runs each command that the other scripts run, on keys of a turn that nobody takes, and tells which ones the server
-- refuses. It leaves nothing behind.

local text, set = KEYS[1], KEYS[2]
local undeclared = ARGV[1] -- the scripts make the keys of sessions that a pointer names
local refused = {}

local function try(name, ...)
  local answer = redis.pcall(name, ...)
  if type(answer) == 'table' and answer.err then
    refused[#refused + 1] = name
    refused[#refused + 1] = answer.err
  end
end

try('SET', text, '1', 'PX', 1000)
try('SET', text, '1', 'KEEPTTL')
try('GET', text)
try('GETRANGE', text, 0, 0)
try('STRLEN', text)
try('MGET', text)
try('INCR', text)
try('DECR', text)
try('EXISTS', undeclared)
try('PTTL', text)
try('PEXPIRE', text, 1000)
try('SADD', set, 'a')
redis.pcall('PEXPIRE', set, 1000)
try('SREM', set, 'b')
try('SCARD', set)
try('SRANDMEMBER', set, 1)
try('DEL', text, set)
return refused
