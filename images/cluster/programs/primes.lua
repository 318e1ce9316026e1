-- Counts the primes in one of several equal parts of the numbers up to a million:
-- lua primes.lua PART PARTS
local part, parts = tonumber(arg[1]), tonumber(arg[2])
local limit = 1000000
local count = 0
for n = math.max(2, limit * (part - 1) // parts + 1), limit * part // parts do
  local prime = n == 2 or n % 2 == 1
  for d = 3, math.floor(math.sqrt(n)), 2 do
    if n % d == 0 then prime = false; break end
  end
  if prime then count = count + 1 end
end
print(count)
