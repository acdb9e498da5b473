-- PROBE: runs each command that the other scripts run, on keys of a turn that nobody takes, and tells which ones the server
-- refuses. It leaves nothing behind. What the server refuses to everybody for a while is no matter of rights: then that error is the
-- answer.

local text, set = KEYS[1], KEYS[2]
local undeclared = ARGV[1] -- the scripts make the keys of sessions that a pointer names
local passing = {OOM = true, MISCONF = true, READONLY = true, MASTERDOWN = true, NOREPLICAS = true}
local refused, for_a_while = {}, false

local function try(name, ...)
  local answer = redis.pcall(name, ...)
  if type(answer) == 'table' and answer.err then
    if passing[string.match(answer.err, '^%u+')] then for_a_while = answer end
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
return for_a_while or refused
