-- wrk: post the file BODY with the type KIND, and the header LENGTH where there is one.
wrk.method = "POST"
wrk.headers["Content-Type"] = os.getenv("KIND") or "application/json"
if os.getenv("LENGTH") then wrk.headers["Inference-Header-Content-Length"] = os.getenv("LENGTH") end
local file = io.open(os.getenv("BODY"), "rb")
wrk.body = file:read("*a")
file:close()
