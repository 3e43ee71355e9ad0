-- SPDX-License-Identifier: BSD-3-Clause
-- A load for wrk: half of the requests rate an item, half ask for recommendations, each as one of 10,000 users.
-- Arguments after "--": the number of items, and the largest rating.
local n_items, max = 25, 6

function init(args)
  n_items = tonumber(args[1]) or n_items
  max = tonumber(args[2]) or max
  math.randomseed(tonumber(tostring({}):match('0x(%x+)'), 16) % 2147483647) -- another one in each thread
end

function request()
  local user = math.random(10000)
  if math.random() < 0.5 then
    return wrk.format('GET', '/recommendations?k=10&user=' .. user)
  end
  local body = string.format('{"user":%d,"item":%d,"rating":%d}', user, math.random(n_items), math.random(max))
  return wrk.format('POST', '/ratings', {['Content-Type'] = 'application/json'}, body)
end

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  io.write(string.format('%d requests, %d errors, %.0f a second; p50 %.2f ms, p99 %.2f ms, longest %.2f ms\n',
    summary.requests, failed, summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1000,
    latency:percentile(99) / 1000, latency.max / 1000))
  if failed > 0 then os.exit(1) end
end
