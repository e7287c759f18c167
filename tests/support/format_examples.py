"""Examples of formats, with what each says, worked out by hand from the documentation of whoever writes it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from .events import Event

S, MS, US = 1_000_000_000, 1_000_000, 1_000
AT = 1_700_000_000
"""2023-11-14T22:13:20Z"""


class Example(NamedTuple):
    """Lines of a format, and what they say."""

    format: str
    lines: str
    events: list[Event]
    stamp: str
    rejected: Mapping[str, int] = MappingProxyType({})
    log_format: str = ""


PAIRS = [
    Example(
        "logfmt",
        '2023-11-14T22:13:20.500000+00:00 heroku[router]: at=info method=GET path="/a?x=1" host=h.herokuapp.com'
        ' request_id=8601 fwd="204.204.204.204, 10.0.0.1" dyno=web.1 connect=1ms service=18ms status=200 bytes=13'
        " protocol=https\n"
        '2023-11-14T22:13:51.000000+00:00 heroku[router]: at=error code=H12 desc="Request timeout" method=POST path="/b"'
        ' host=h.herokuapp.com request_id=8602 fwd="204.204.204.205" dyno=web.1 connect= service=30000ms status=503'
        " bytes=0 protocol=https\n",
        [
            Event(AT * S + 482 * MS, "GET", b"/a?x=1", "h.herokuapp.com", 200, 18 * MS, 13),
            Event((AT + 1) * S, "POST", b"/b", "h.herokuapp.com", 503, 30 * S, 0),
        ],
        "end",
    ),
    Example(
        "logfmt",
        "I, [2023-11-14T22:13:20.123456 #1]  INFO -- : [f00] method=GET path=/users format=html controller=UsersController"
        " action=index status=200 duration=58.33 view=40.43 db=15.26\n",
        [Event(AT * S + 123_456_000 - 58_330_000, "GET", b"/users", "", 200, 58_330_000)],
        "end",
    ),
    Example(
        "logfmt",
        'time=2023-11-14T22:13:21.000Z level=INFO msg="request \\"done\\"" method=GET path="/a b?q=\\"x" status=200'
        " duration=1.5s remote_addr=10.0.0.1:5000 size=12\n"
        "time=2023-11-14T22:13:21.000Z level=INFO msg=started port=80\n"
        "time=2023-11-14T22:13:22.000Z level=INFO msg=ok method=PUT path=/c=d?e=f status=204 duration=250µs\n",
        [
            Event(AT * S - 500 * MS, "GET", b'/a%20b?q="x', "", 200, 1500 * MS, 12),
            Event((AT + 2) * S - 250 * US, "PUT", b"/c=d?e=f", "", 204, 250 * US),
        ],
        "end",
        {"not this format": 1},
    ),
    Example(
        "ltsv",
        "time:[14/Nov/2023:22:13:21 +0000]\thost:10.0.0.1\tforwardedfor:-\treq:GET /a?x=\\x22 HTTP/1.1\tstatus:200\tsize:12"
        "\treferer:-\tua:M: x\treqtime:0.250\tvhost:h.example\n"
        "time:[14/Nov/2023:22:13:21 +0000]\thost:10.0.0.1\treq:GET /healthz HTTP/1.1\tstatus:200\tua:kube-probe/1.29\n",
        [Event(AT * S + 750 * MS, "GET", b'/a?x="', "h.example", 200, 250 * MS, 12)],
        "end",
        {"health check": 1},
    ),
    Example(
        "ltsv",
        "host:10.0.0.1\ttime:14/Nov/2023:23:13:20 +0100\tmethod:POST\turi:/b\tstatus:201\tsize:-\treqtime_microsec:1500\n",
        [Event(AT * S, "POST", b"/b", "", 201, 1500 * US)],
        "start",
    ),
]

RAILS = [
    Example(
        "rails",
        'I, [2023-11-14T22:13:20.123456 #25]  INFO -- : [f00] Started GET "/users?x=1" for 1.2.3.4 at 2023-11-14 22:13:20'
        " +0000\n"
        'I, [2023-11-14T22:13:20.200000 #25]  INFO -- : [f01] Started PATCH "/users/1" for 1.2.3.5 at 2023-11-14 22:13:20'
        " +0000\n"
        "I, [2023-11-14T22:13:20.201000 #25]  INFO -- : [f01] Processing by UsersController#update as HTML\n"
        "I, [2023-11-14T22:13:20.250000 #25]  INFO -- : [f01] Completed 302 Found in 8ms (ActiveRecord: 1.3ms)\n"
        "I, [2023-11-14T22:13:20.300000 #25]  INFO -- : [f00] Completed 200 OK in 158.5ms (Views: 40.4ms)\n",
        [
            Event(AT * S + 123_456_000, "GET", b"/users?x=1", "", 200, 158_500_000),
            Event(AT * S + 200 * MS, "PATCH", b"/users/1", "", 302, 8 * MS),
        ],
        "start",
        {"another line of a request": 3},
    ),
    Example(
        "rails",
        'Started GET "/a" for ::1 at 2023-11-14 23:13:20 +0100\nProcessing by A#b as HTML\nCompleted 200 OK in 5ms\n\n\n'
        'Started GET "/none" for ::1 at 2023-11-14 23:13:30 +0100\n  \n'
        'ActionController::RoutingError (No route matches [GET] "/none"):\n',
        [Event(AT * S, "GET", b"/a", "", 200, 5 * MS), Event((AT + 10) * S, "GET", b"/none", "", 404)],
        "start",
        {"another line of a request": 3, "blank": 3},
    ),
    Example(
        "rails",
        'Started GET "/a" for 1.2.3.4 at 2023-11-14 22:13:20 +0000\nStarted GET "/b" for 1.2.3.5 at 2023-11-14'
        ' 22:13:20 +0000\n'
        "Completed 200 OK in 5ms\nCompleted 500 Internal Server Error in 9ms\n"
        'Started GET "/lost" for 1.2.3.4 at 2023-11-14 22:13:30 +0000\nStarted GET "/c" for 1.2.3.4 at'
        ' 2023-11-14 22:13:40 +0000\n'
        "Completed 201 Created in 7ms\nCompleted 200 OK in 7ms\n",
        [
            Event(AT * S, "GET", b"/a"), Event(AT * S, "GET", b"/b"), Event((AT + 10) * S, "GET", b"/lost"),
            Event((AT + 20) * S, "GET", b"/c", "", 201, 7 * MS),
        ],
        "start",
        {"completed, but which request": 2, "another line of a request": 1, "completed without a start": 1},
    ),
]  # fmt: skip

AWS_LOGS = [
    Example(
        "elb",
        "2023-11-14T22:13:20.945958Z my-lb 192.168.131.39:2817 10.0.0.1:80 0.000086 0.001048 0.001337 200 200 0 57"
        ' "GET https://www.example.com:443/a?b=1 HTTP/1.1" "curl/7.38.0" DHE-RSA-AES128-SHA TLSv1.2\n'
        "2023-11-14T22:13:21.000000Z my-lb 192.168.131.39:2817 - -1 -1 -1 503 0 0 0"
        ' "GET http://www.example.com:80/ HTTP/1.1" "ELB-HealthChecker/1.0" - -\n'
        "2023-11-14T22:13:22.000000Z my-lb 192.168.131.40:2817 - -1 -1 -1 503 0 0 0"
        ' "GET http://www.example.com:80/b HTTP/1.1" "x" - -\n',
        [
            Event(AT * S + 945_958_000, "GET", b"/a?b=1", "www.example.com:443", 200, 2471 * US, 57),
            Event((AT + 2) * S, "GET", b"/b", "www.example.com:80", 503, -1, 0),
        ],
        "start",
        {"health check": 1},
    ),
    Example(
        "s3",
        "79a59df900b949e5 bucket [14/Nov/2023:22:13:20 +0000] 192.0.2.3 - 3E57427F3EXAMPLE REST.GET.OBJECT photos/a.png"
        ' "GET /bucket/photos/a.png?x-id=1 HTTP/1.1" 200 - 3692 3692 21 20 "-" "S3Console/0.4" -'
        " Ke1bUcazaN1jWuUlPJaxF64cQVpUEhoZ"
        " SigV4 ECDHE-RSA-AES128-GCM-SHA256 AuthHeader bucket.s3.us-west-1.amazonaws.com TLSV1.2 - -\n"
        "79a59df900b949e5 bucket [14/Nov/2023:22:13:21 +0000] - AmazonS3 3E57427F3EXAMPLF S3.EXPIRE.OBJECT a"
        ' "-" - - - 3692 - - "-" "-" - x - - - - - - -\n',
        [Event(AT * S, "GET", b"/bucket/photos/a.png?x-id=1", "", 200, 21 * MS, 3692)],
        "start",
        {"no method": 1},
    ),
    Example(
        "cloudfront-json",
        '{"date":"2023-11-14","time":"22:13:22","x-edge-location":"CDG50","sc-bytes":"703","c-ip":"1.2.3.4",'
        '"cs-method":"GET",'
        '"cs(Host)":"d.cloudfront.net","cs-uri-stem":"/a%20b","sc-status":"200","cs(User-Agent)":"M","cs-uri-query":"x=1",'
        '"x-host-header":"h.example","time-taken":"0.113"}\n'
        '{"date":"2023-11-14","time":"22:13:23","x-edge-location":"CDG50","sc-bytes":"7","c-ip":"1.2.3.4","cs-method":"GET",'
        '"cs(Host)":"d.cloudfront.net","cs-uri-stem":"/b","sc-status":"000","cs(User-Agent)":"M","cs-uri-query":"-",'
        '"x-host-header":"-","time-taken":"0.5"}\n',
        [
            Event((AT + 2) * S - 113 * MS, "GET", b"/a%20b?x=1", "h.example", 200, 113 * MS, 703),
            Event((AT + 3) * S - 500 * MS, "GET", b"/b", "", -1, 500 * MS, 7),
        ],
        "end",
    ),
    Example(
        "api-gateway",
        '{"requestId":"x","ip":"1.2.3.4","requestTime":"14/Nov/2023:22:13:20 +0000","requestTimeEpoch":"1700000000123",'
        '"httpMethod":"GET","resourcePath":"/{proxy+}","path":"/prod/a","status":"200","protocol":"HTTP/1.1",'
        '"responseLength":"123","responseLatency":"17"}\n',
        [Event(AT * S + 123 * MS, "GET", b"/prod/a", "", 200, 17 * MS, 123)],
        "start",
    ),
]

CLOUDS = [
    Example(
        "gcp-lb",
        '{"httpRequest":{"latency":"0.037133s","remoteIp":"1.2.3.4","requestMethod":"GET","requestSize":"100","requestUrl":'
        '"https://h.example/a?x=1","responseSize":"500","status":200,"userAgent":"M"},"insertId":"x","timestamp":'
        '"2023-11-14T22:13:20.123456Z","receiveTimestamp":"2023-11-14T22:13:21Z","severity":"INFO"}\n'
        '{"httpRequest":{"latency":"1.5s","remoteIp":"1.2.3.5","requestMethod":"GET","requestUrl":"http://h.example/b",'
        '"status":404,"userAgent":"GoogleHC/1.0"},"timestamp":"2023-11-14T22:13:21.123456789Z"}\n',
        [Event(AT * S + 123_456_000, "GET", b"/a?x=1", "h.example", 200, 37_133_000, 500)],
        "start",
        {"health check": 1},
    ),
    Example(
        "cloudflare",
        '{"ClientIP":"1.2.3.4","ClientRequestHost":"h.example","ClientRequestMethod":"GET","ClientRequestURI":"/a?x=1",'
        '"EdgeEndTimestamp":1700000000200000000,"EdgeResponseBytes":500,"EdgeResponseStatus":200,'
        '"EdgeStartTimestamp":1700000000100000000,"RayID":"x"}\n',
        [Event(AT * S + 100 * MS, "GET", b"/a?x=1", "h.example", 200, -1, 500)],
        "start",
    ),
    Example(
        "cloudflare",
        '{"ClientIP":"1.2.3.4","ClientRequestHost":"h.example","ClientRequestMethod":"GET","ClientRequestURI":"/a",'
        '"EdgeResponseBytes":500,"EdgeResponseStatus":200,"EdgeStartTimestamp":"2023-11-14T22:13:20Z"}\n',
        [Event(AT * S, "GET", b"/a", "h.example", 200, -1, 500)],
        "start",
    ),
    Example(
        "azure-front-door",
        '{"time":"2023-11-14T22:13:20.1234567Z","resourceId":"/SUB/x","category":"FrontDoorAccessLog","properties":'
        '{"httpMethod":"GET","requestUri":"https://h.example:443/a?x=1","responseBytes":"2812","userAgent":"M",'
        '"clientIp":"1.2.3.4","timeTaken":"0.023","httpStatusCode":"200"}}\n',
        [Event(AT * S + 100_456_700, "GET", b"/a?x=1", "h.example:443", 200, 23 * MS, 2812)],
        "end",
    ),
    Example(
        "azure-app-gateway",
        '{"timeStamp":"2023-11-14T22:13:21+00:00","category":"ApplicationGatewayAccessLog",'
        '"properties":{"clientIP":"1.2.3.4",'
        '"httpMethod":"GET","requestUri":"/a","requestQuery":"x=1","httpStatus":200,"sentBytes":65,"timeTaken":0.205,'
        '"host":"pool.internal","originalHost":"h.example"}}\n',
        [Event((AT + 1) * S - 205 * MS, "GET", b"/a?x=1", "h.example", 200, 205 * MS, 65)],
        "end",
    ),
]

APPLICATIONS = [
    Example(
        "fastify",
        '{"level":30,"time":1700000000000,"pid":1,"hostname":"h","msg":"Server listening at http://127.0.0.1:80"}\n'
        '{"level":30,"time":1700000000123,"pid":1,"hostname":"h","reqId":"req-1","req":{"method":"GET","url":"/a?x=1",'
        '"host":"h:80","remoteAddress":"127.0.0.1","remotePort":35412},"msg":"incoming request"}\n'
        '{"level":30,"time":1700000000200,"pid":1,"hostname":"h","reqId":"req-2","req":{"method":"PUT","url":"/b",'
        '"host":"h:80","remoteAddress":"127.0.0.1","remotePort":35413},"msg":"incoming request"}\n'
        '{"level":30,"time":1700000000325,"pid":1,"hostname":"h","reqId":"req-1","res":{"statusCode":200},'
        '"responseTime":202.5,"msg":"request completed"}\n'
        '{"level":30,"time":1700000000325,"pid":1,"hostname":"h","reqId":"req-0","res":{"statusCode":500},'
        '"responseTime":2,"msg":"request completed"}\n',
        [
            Event(AT * S + 123 * MS, "GET", b"/a?x=1", "h:80", 200, 202_500_000),
            Event(AT * S + 200 * MS, "PUT", b"/b", "h:80"),
        ],
        "start",
        {"another line of a request": 2, "completed without a start": 1},
    ),
    Example(
        "ecs",
        '{"@timestamp":"2023-11-14T22:13:20.123Z","http":{"request":{"method":"GET"},"response":{"status_code":200,"body":'
        '{"bytes":12}}},"url":{"original":"/a?x=1","path":"/a","query":"x=1","domain":"h.example"},'
        '"source":{"ip":"1.2.3.4"},'
        '"event":{"duration":12000000},"message":"GET /a"}\n',
        [Event(AT * S + 111 * MS, "GET", b"/a?x=1", "h.example", 200, 12 * MS, 12)],
        "end",
    ),
    Example(
        "ecs",
        '{"@timestamp":"2023-11-14T22:13:25Z","event.start":"2023-11-14T22:13:20Z","event.duration":5000000000,'
        '"http.request.method":"POST","url.path":"/b","url.query":"y=2","http.response.status_code":201,'
        '"client.ip":"1.2.3.4"}\n',
        [Event(AT * S, "POST", b"/b?y=2", "", 201, 5 * S)],
        "start",
    ),
    Example(
        "kong",
        '{"latencies":{"request":515,"kong":58,"proxy":457},"service":{"host":"h"},"request":{"querystring":{},"size":138,'
        '"uri":"/get?x=1","url":"http://localhost:8000/get?x=1","headers":{"host":"localhost:8000"},"method":"GET"},'
        '"client_ip":"127.0.0.1","response":{"headers":{},"status":200,"size":827},"started_at":1700000000100}\n',
        [Event(AT * S + 100 * MS, "GET", b"/get?x=1", "localhost:8000", 200, 515 * MS, 827)],
        "start",
    ),
    Example(
        "pino",
        '{"level":30,"time":1700000000123,"pid":1,"hostname":"h","req":{"id":1,"method":"GET","url":"/a?x=1","headers":'
        '{"host":"h"},"remoteAddress":"::1"},"res":{"statusCode":200},"responseTime":12,"msg":"request completed"}\n',
        [Event(AT * S + 111 * MS, "GET", b"/a?x=1", "h", 200, 12 * MS)],
        "end",
    ),
    Example(
        "envoy-gateway",
        '{"start_time":"2023-11-14T22:13:20.479Z","method":"GET","x-envoy-origin-path":"/a?x=1","protocol":"HTTP/1.1",'
        '"response_code":200,"bytes_sent":12,"duration":11,":authority":"h.example",'
        '"downstream_remote_address":"10.0.0.12:59292","x-forwarded-for":"1.2.3.4","user-agent":"M"}\n',
        [Event(AT * S + 479 * MS, "GET", b"/a?x=1", "h.example", 200, 11 * MS, 12)],
        "start",
    ),
    Example(
        "caddy-console",
        '2023/11/14 22:13:20.500\tinfo\thttp.log.access.log0\thandled request\t{"request": {"remote_addr":'
        ' "127.0.0.1:63746",'
        ' "proto": "HTTP/1.1", "method": "GET", "host": "h", "uri": "/a"}, "common_log": "x", "duration": 0.25, "size": 7,'
        ' "status": 200}\n'
        "2023/11/14 22:13:20.600\t\x1b[34mINFO\x1b[0m\thttp.log.access\thandled request\t"
        '{"request": {"remote_ip": "10.0.0.1", "method": "PUT", "host": "h", "uri": "/b"}, "duration": "100ms",'
        ' "status": 204}\n',
        [
            Event(AT * S + 250 * MS, "GET", b"/a", "h", 200, 250 * MS, 7),
            Event(AT * S + 500 * MS, "PUT", b"/b", "h", 204, 100 * MS),
        ],
        "end",
    ),
    Example(
        "caddy",
        '{"level":"info","ts":"2023/11/14 22:13:20.500","logger":"http.log.access","msg":"handled request","request":'
        '{"remote_ip":"1.2.3.4","method":"GET","host":"h","uri":"/a"},"duration":"1.5ms","size":5,"status":200}\n',
        [Event(AT * S + 498_500_000, "GET", b"/a", "h", 200, 1500 * US, 5)],
        "end",
    ),
]

PROXIES = [
    Example(
        "nginx-proxy-manager",
        '[14/Nov/2023:22:13:20 +0000] - 200 200 - GET https h.example "/a?x=1" [Client 1.2.3.4] [Length 12] [Gzip 2.50]'
        ' [Sent-to 10.0.0.9] "M" "-"\n'
        '[14/Nov/2023:22:13:21 +0000] - - 499 - POST https h.example "/b" [Client 1.2.3.4] [Length 0] [Gzip -]'
        ' [Sent-to 10.0.0.9] "M" "-"\n',
        [
            Event(AT * S, "GET", b"/a?x=1", "h.example", 200, -1, 12),
            Event((AT + 1) * S, "POST", b"/b", "h.example", 499, -1, 0),
        ],
        "end",
    ),
    Example(
        "apisix",
        '10.0.0.1 - - [14/Nov/2023:22:13:21 +0000] h.example:9080 "GET /a HTTP/1.1" 200 12 0.250 "-" "curl/8"'
        " 10.0.0.9:80 200"
        ' 0.249 "http://h.example:9080/a"\n',
        [Event(AT * S + 750 * MS, "GET", b"/a", "h.example:9080", 200, 250 * MS, 12)],
        "end",
    ),
    Example(
        "squid",
        "1700000000.623    123 192.168.0.224 TCP_MISS/200 411 GET http://h.example/a?x=1 - HIER_DIRECT/1.2.3.4 text/html\n"
        "1700000001.023     20 192.168.0.225 TCP_TUNNEL/200 3411 CONNECT h.example:443 - HIER_DIRECT/1.2.3.4 -\n"
        "1700000002.000 120000 192.168.0.225 TCP_MISS_ABORTED/000 0 GET http://h.example/b - HIER_DIRECT/1.2.3.4 -\n",
        [
            Event((AT - 118) * S, "GET", b"/b", "h.example", -1, 120 * S, 0),
            Event(AT * S + 500 * MS, "GET", b"/a?x=1", "h.example", 200, 123 * MS, 411),
        ],
        "end",
        {"no path": 1},
    ),
]

LOCAL = [
    Example(
        "python-http",
        " * Running on http://127.0.0.1:5000\n"
        '127.0.0.1 - - [14/Nov/2023 22:13:20] "GET /a?q="x" y HTTP/1.1" 200 -\n'
        "127.0.0.1 - - [14/Nov/2023 22:13:20] code 404, message File not found\n"
        'INFO:werkzeug:127.0.0.1 - - [14/Nov/2023 22:13:21] "\x1b[33mGET /b HTTP/1.1\x1b[0m" 404 -\n',
        [Event(AT * S, "GET", b'/a?q="x"%20y', "", 200), Event((AT + 1) * S, "GET", b"/b", "", 404)],
        "end",
        {"message of the server": 2},
    ),
    Example(
        "django",
        '[14/Nov/2023 22:13:20] "GET /a HTTP/1.1" 200 1234\n\x1b[33m[14/Nov/2023 22:13:21] "POST /b HTTP/1.1"'
        " 404 9\x1b[0m\n",
        [Event(AT * S, "GET", b"/a", "", 200, -1, 1234), Event((AT + 1) * S, "POST", b"/b", "", 404, -1, 9)],
        "end",
    ),
]

GENERATORS = [
    Example(
        "k6",
        '{"type":"Metric","data":{"name":"http_req_duration","type":"trend"},"metric":"http_req_duration"}\n'
        '{"metric":"http_reqs","type":"Point","data":{"time":"2023-11-14T23:13:20.500+01:00","value":1,"tags":'
        '{"method":"GET","name":"https://h/a","status":"200","url":"https://h/a"}}}\n'
        '{"metric":"http_req_duration","type":"Point","data":{"time":"2023-11-14T23:13:20.500+01:00","value":12.5,"tags":'
        '{"method":"GET","name":"https://h/a","status":"200","url":"https://h/a?x=1"}}}\n'
        '{"metric":"http_req_duration","type":"Point","data":{"time":"2023-11-14T23:13:30.000+01:00","value":0,"tags":'
        '{"error":"dial: refused","method":"POST","name":"b","status":"0","url":"https://h/b"}}}\n'
        '{"metric":"vus","type":"Point","data":{"time":"2023-11-14T23:13:31+01:00","value":1,"tags":null}}\n',
        [
            Event(AT * S + 487_500_000, "GET", b"/a?x=1", "h", 200, 12_500_000),
            Event((AT + 10) * S, "POST", b"/b", "h", -1, 0),
        ],
        "end",
        {"another measurement": 3},
    ),
    Example(
        "k6-csv",
        "metric_name,timestamp,metric_value,check,error,error_code,expected_response,group,method,name,proto,scenario,"
        "service,status,subproto,tls_version,url,extra_tags,metadata\n"
        "http_reqs,1700000002,1.000000,,,,true,,GET,https://h/a,HTTP/1.1,default,,200,,tls1.3,https://h/a,,\n"
        "http_req_duration,1700000002,250.500000,,,,true,,GET,https://h/a,HTTP/1.1,default,,200,,tls1.3,https://h/a,,\n"
        "http_req_duration,1700000003,0.000000,,dial,1212,false,,POST,b,,default,,0,,,http://h/b,,\n"
        "vus,1700000003,1.000000,,,,,,,,,,,,,,,,\n",
        [
            Event((AT + 1) * S + 749_500_000, "GET", b"/a", "h", 200, 250_500_000),
            Event((AT + 3) * S, "POST", b"/b", "h", -1, 0),
        ],
        "end",
        {"another measurement": 2, "header": 1},
    ),
    Example(
        "jmeter",
        "timeStamp,elapsed,label,responseCode,responseMessage,threadName,dataType,success,failureMessage,bytes,sentBytes,"
        "grpThreads,allThreads,URL,Latency,IdleTime,Connect\n"
        "1700000000123,97,Login,200,OK,Thread Group 1-1,text,true,,1270,115,1,1,https://h.example/login?x=1,96,0,60\n"
        '1700000001123,30,"A, b",500,"err",Thread Group 1-2,text,false,,0,115,1,1,https://h.example/p,0,0,60\n',
        [
            Event(AT * S + 123 * MS, "GET", b"/login?x=1", "h.example", 200, 97 * MS, 1270),
            Event((AT + 1) * S + 123 * MS, "GET", b"/p", "h.example", 500, 30 * MS, 0),
        ],
        "start",
        {"header": 1},
    ),
    Example(
        "jmeter-xml",
        '<?xml version="1.0" encoding="UTF-8"?>\n<testResults version="1.2">\n'
        '<httpSample t="97" lt="96" ts="1700000000123" s="true" lb="Login" rc="200" rm="OK" tn="Thread Group'
        ' 1-1" by="1270">\n'
        '  <method class="java.lang.String">POST</method>\n'
        "  <java.net.URL>https://h.example/login?x=1&amp;y=2</java.net.URL>\n</httpSample>\n"
        '<httpSample t="50" ts="1700000001000" lb="R" rc="200" tn="Thread Group 1-2" by="10">\n'
        '  <httpSample t="20" ts="1700000001000" rc="302" tn="Thread Group 1-2" by="4"><method>GET</method>'
        "<java.net.URL>http://h/a</java.net.URL></httpSample>\n"
        '  <httpSample t="30" ts="1700000001020" rc="Non HTTP response code: java.net.X" tn="Thread Group 1-2" by="6">'
        "<java.net.URL>http://h/b</java.net.URL></httpSample>\n  <java.net.URL>http://h/b</java.net.URL>\n</httpSample>\n"
        '<sample t="150" ts="1700000000123" lb="Tx" rc="200"/>\n</testResults>\n',
        [
            Event(AT * S + 123 * MS, "POST", b"/login?x=1&y=2", "h.example", 200, 97 * MS, 1270),
            Event((AT + 1) * S, "GET", b"/a", "h", 302, 20 * MS, 4),
            Event((AT + 1) * S + 20 * MS, "GET", b"/b", "h", -1, 30 * MS, 6),
        ],
        "start",
    ),
    Example(
        "vegeta-text",
        "# targets\nGET http://h.example/a\nX-A: b\nAuthorization: Bearer x\n\nPOST http://h.example/b\n@body.json\n",
        [Event(0, "GET", b"/a", "h.example"), Event(MS, "POST", b"/b", "h.example")],
        "unknown",
        {"another line of a request": 3, "blank": 1, "body in another file": 1},
    ),
]

_OTLP_SERVER = (
    '{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},"scopeSpans":[{"spans":['
    '{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","parentSpanId":"","name":"GET /a","kind":2,'
    '"startTimeUnixNano":"1700000000000000001","endTimeUnixNano":"1700000000250000001","attributes":['
    '{"key":"http.request.method","value":{"stringValue":"GET"}},{"key":"url.path","value":{"stringValue":"/a"}},'
    '{"key":"url.query","value":{"stringValue":"x=1"}},{"key":"server.address","value":{"stringValue":"h.example"}},'
    '{"key":"http.response.status_code","value":{"intValue":"200"}}]},'
    '{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b175","parentSpanId":"eee19b7ec3c1b174",'
    '"name":"SELECT","kind":3,"startTimeUnixNano":"1700000000000000002","endTimeUnixNano":"1700000000000000003"}]}]}]}\n'
)
_OTLP_OLDER = (
    '{"resourceSpans":[{"resource":{},"instrumentationLibrarySpans":[{"spans":[{"traceId":"01","spanId":"02",'
    '"name":"HTTP PUT","kind":"SPAN_KIND_SERVER","startTimeUnixNano":1700000001000000000,'
    '"endTimeUnixNano":1700000001001000000,'
    '"attributes":[{"key":"http.target","value":{"stringValue":"/b?c=d"}},{"key":"http.host","value":{"stringValue":"H:8080"}},'
    '{"key":"http.status_code","value":{"intValue":503}},'
    '{"key":"http.response_content_length","value":{"intValue":"7"}}]}]}]}]}\n'
)

SPANS = [
    Example(
        "otlp",
        _OTLP_SERVER + _OTLP_OLDER + '{"resourceLogs":[]}\n',
        [
            Event(AT * S + 1, "GET", b"/a?x=1", "h.example", 200, 250 * MS),
            Event((AT + 1) * S, "PUT", b"/b?c=d", "h:8080", 503, MS, 7),
        ],
        "start",
        {"client or internal span": 1, "logs or metrics": 1},
    ),
    Example(
        "jaeger",
        '{"data":[{"traceID":"abc","spans":[{"traceID":"abc","spanID":"1","operationName":"/a","references":[],'
        '"startTime":1700000000000001,"duration":1500,"tags":[{"key":"span.kind","type":"string","value":"server"},'
        '{"key":"http.method","type":"string","value":"POST"},{"key":"http.url","type":"string","value":"http://h:81/a?b"},'
        '{"key":"http.status_code","type":"int64","value":201}],"logs":[],"processID":"p1","warnings":null},'
        '{"traceID":"abc","spanID":"2","operationName":"/b","references":[{"refType":"CHILD_OF","traceID":"abc","spanID":"1"}],'
        '"startTime":1700000000000009,"duration":10,"tags":[{"key":"span.kind","type":"string","value":"server"},'
        '{"key":"http.method","type":"string","value":"GET"},{"key":"http.target","type":"string","value":"/b"}],"logs":[],'
        '"processID":"p2","warnings":null}],"processes":{"p1":{"serviceName":"shop","tags":[]},"p2":{"serviceName":"stock"}}}],'
        '"total":0,"limit":0,"offset":0,"errors":null}\n',
        [Event(AT * S + US, "POST", b"/a?b", "h:81", 201, 1500 * US)],
        "start",
        {"caused by another request": 1},
    ),
]

EXAMPLES = [
    *SPANS, *PAIRS, *RAILS, *AWS_LOGS, *CLOUDS, *APPLICATIONS, *PROXIES, *LOCAL, *GENERATORS,
]  # fmt: skip
