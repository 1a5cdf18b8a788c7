#!/usr/bin/env bash
# curl: HTTP/1.1 and JSON on the same socket.
set -u
# shellcheck source=checks.sh
. "$(dirname "$0")/checks.sh"

# ask PATH [CURL OPTIONS]: the body, then the status in a line of its own
ask() { curl -sS --max-time 20 --unix-socket "$TOKEND_SOCKET" -w '\n%{http_code}' "http://tokend$1" "${@:2}"; }
body_of() { ask "$@" | sed '$d'; }
status_of() { ask "$@" | tail -n 1; }
# field NAME: prints a field of the JSON on standard input
field() { node -pe "JSON.parse(require('node:fs').readFileSync(0))$1"; }

token() {
  local body
  body=$(body_of /v1/profiles/basic/token)
  equal "$(field .authorization <<<"$body")" "Bearer $(field .token <<<"$body")" &&
    equal "$(field .token_type <<<"$body")" Bearer &&
    equal "$(field '.scopes.join()' <<<"$body")" read,write &&
    equal "$(field .target <<<"$body")" https://orders.example/v2 &&
    equal "$(field '.expires_in > 0' <<<"$body")" true &&
    equal "$(field '.expires_at.endsWith("Z")' <<<"$body")" true
}
same_as_the_command() { equal "$(body_of /v1/profiles/basic/token | field .token)" "$("$TOKEND" token basic)"; }
# refused STATUS CODE REASON PATH [OPTIONS]
refused() {
  local body
  equal "$(status_of "${@:4}")" "$1" || return 1
  body=$(body_of "${@:4}")
  equal "$(field .code <<<"$body") $(field .reason <<<"$body")" "$2 $3" && equal "$(field '.message.length > 10' <<<"$body")" true
}
retry_after() {
  local head
  head=$(curl -sS -i --max-time 20 --unix-socket "$TOKEND_SOCKET" http://tokend/v1/profiles/untrusted/token | tr -d '\r')
  contains "$head" "503 Service Unavailable" && grep -qiE '^retry-after: [0-9]+$' <<<"$head"
}
no_store() { curl -sS -i --max-time 20 --unix-socket "$TOKEND_SOCKET" "http://tokend$1" | grep -qi '^cache-control: no-store'; }
listed() { equal "$(body_of /v1/profiles | field '.profiles.map((p) => p.name).filter((n) => ["basic", "hidden"].includes(n)).join()')" basic; }
ready() {
  local body
  equal "$(status_of /readyz)" 503 || return 1
  body=$(body_of /readyz)
  contains "$body" '"rejected"' '"untrusted"' '"broken"' && ! contains "$body" '"basic"' >/dev/null && ! contains "$body" hidden >/dev/null
}
report() { body_of /v1/profiles/fixed/rejected -H 'content-type: application/json' -d "{\"fingerprint\":\"$1\"}"; }
rejection() {
  contains "$(report "$(body_of /v1/profiles/fixed/token | field .fingerprint)")" '"replaced":false' '"retry_after":' &&
    contains "$(report nonsense)" INVALID_REQUEST
}
piped() {
  # A script does it this way: the header never appears in the arguments of any process.
  local answer
  answer=$("$TOKEND" token basic --format curl | curl -sS --max-time 20 -K - "$IDP_HTTP/echo")
  equal "$answer" "$("$TOKEND" token basic --header | cut -d ' ' -f 2-)"
}

check "a token with its fields" token
check "the same token as the command line's" same_as_the_command
check "min_ttl, scopes and audience are understood" refused 400 OUT_OF_RANGE MIN_TTL_TOO_LONG '/v1/profiles/basic/token?min_ttl=2h'
check "a bad min_ttl: 400" refused 400 INVALID_ARGUMENT INVALID_REQUEST '/v1/profiles/basic/token?min_ttl=soon'
check "an unknown profile: 404" refused 404 NOT_FOUND PROFILE_NOT_FOUND /v1/profiles/nowhere/token
check "somebody else's profile: 404" refused 404 NOT_FOUND PROFILE_NOT_FOUND /v1/profiles/hidden/token
check "rejected by the provider: 424" refused 424 FAILED_PRECONDITION UPSTREAM_REJECTED /v1/profiles/rejected/token
check "a profile that cannot be used: 424" refused 424 FAILED_PRECONDITION PROFILE_INVALID /v1/profiles/broken/token
check "no trust in the provider: 503" refused 503 UNAVAILABLE UPSTREAM_UNAVAILABLE /v1/profiles/untrusted/token
check "503 comes with Retry-After" retry_after
check "never cached" no_store /v1/profiles/basic/token
check "errors are never cached either" no_store /v1/profiles/nowhere/token
check "the list of profiles" listed
check "healthz: 200" equal "$(status_of /healthz)" 200
check "readyz: 503 and why, of what the caller may see" ready
check "a rejected credential can be reported" rejection
check "another Host: 403" equal "$(status_of /healthz -H 'Host: evil.example')" 403
check "no Host: 403" equal "$(status_of /healthz -H 'Host;')" 403
check "localhost as Host: 200" equal "$(status_of /healthz -H 'Host: localhost:8080')" 200
check "an Origin: 403" equal "$(status_of /healthz -H 'Origin: http://tokend')" 403
check "Sec-Fetch-Site: 403" equal "$(status_of /v1/profiles/basic/token -H 'Sec-Fetch-Site: none')" 403
check "tokend token --format curl | curl -K -" piped
done_checking
