-- For wrk: `wrk … -s post.lua URL -- FOLDER COUNT TYPE` posts the files FOLDER/0, FOLDER/1, … in turn.
-- Its last line is one JSON object: requests, failures, total µs, and the µs of the median and 99th percentile.

local requests, turn = {}, 0

function init(args)
   for number = 1, tonumber(args[2]) do
      local file = assert(io.open(args[1] .. "/" .. number - 1, "rb"))
      requests[number] = wrk.format("POST", nil, {["Content-Type"] = args[3]}, file:read("*a"))
      file:close()
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end

function done(summary, latency)
   local failed = summary.errors
   print(string.format('{"requests": %d, "failures": %d, "micros": %d, "p50": %d, "p99": %d}', summary.requests,
      failed.connect + failed.read + failed.write + failed.status + failed.timeout, summary.duration,
      latency:percentile(50), latency:percentile(99)))
end
