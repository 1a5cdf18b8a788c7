#!/usr/bin/env bash
# buf: the proto files pass its checks, and `buf curl` can talk to the daemon, with reflection and
# with the files.
set -u
# shellcheck source=checks.sh
. "$(dirname "$0")/checks.sh"

# ask METHOD DATA [OPTIONS]; a stream ends after some seconds.
ask() {
  timeout 5 "$BUF" curl --unix-socket "$TOKEND_SOCKET" --http2-prior-knowledge --protocol grpc \
    -d "$2" "${@:3}" "http://localhost/tokend.v1.CredentialService/$1" 2>&1
}
token() { contains "$(ask GetToken '{"profile":"basic"}' "$@")" '"authorization": "Bearer ey' '"expiresIn"'; }
listed() {
  contains "$(timeout 30 "$BUF" curl --unix-socket "$TOKEND_SOCKET" --http2-prior-knowledge --protocol grpc --list-methods http://localhost 2>&1)" \
    tokend.v1.CredentialService/GetToken tokend.v1.AdminService/GetStatus grpc.health.v1.Health/Check
}
# The ErrorInfo in base64: PROFILE_NOT_FOUND, tokend.
unknown() { contains "$(ask GetToken '{"profile":"nowhere"}')" not_found google.rpc.ErrorInfo ChFQUk9GSUxFX05PVF9GT1VORBIGdG9rZW5k; }
watched() { contains "$(ask WatchToken '{"profile":"basic"}' --schema "$PROTO")" '"authorization": "Bearer ey'; }

check "lint (STANDARD)" "$BUF" lint "$ROOT"
check "format" "$BUF" format --diff --exit-code "$ROOT"
check "curl, schema by reflection" token
check "curl, schema from proto/" token --schema "$PROTO"
check "curl --list-methods" listed
check "curl, an unknown profile" unknown
check "curl, a stream" watched
done_checking
