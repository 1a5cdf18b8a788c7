#!/usr/bin/env bash
# A job worker for Camunda 8's REST API that holds no secret: it asks tokend before each call, over
# HTTP on the socket, and reports what the API refuses. The header is never among the arguments of
# curl, where others could read it.
#
# usage: worker.sh PROFILE [JOBS]    without JOBS: ten a second at most, until SIGTERM. Needs curl
# and jq.
set -euo pipefail

profile=$1 wanted=${2:-} name=errand-shell
socket=${TOKEND_SOCKET:-/run/tokend/tokend.sock}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
answer=$folder/answer process=$folder/process
trap 'rm -rf "$folder"' EXIT
ended=
trap 'ended=yes' TERM
# What is told at the end. `failed`: for want of a credential; `repeated`: because the API was not
# there.
jobs=0 calls=0 rejected=0 failed=0 repeated=0 credential_ms=0 gap_ms=0

now() { echo $((${EPOCHREALTIME/./} / 1000)); }
tokend() { curl -sS --max-time 10 --retry 5 --retry-all-errors --retry-delay 1 --unix-socket "$socket" "http://tokend/v1/profiles/$profile/$1" "${@:2}"; }
credential() { credential=$(tokend token --fail-with-body); }
# of FIELD: of the credential. Through a pipe: neither an argument nor a file that others could
# read.
of() { printf %s "$credential" | jq -r ".$1"; }
# Another credential than the one that was refused, as soon as there is one.
other_credential() {
  local refused said end=$(($(now) + 10000))
  refused="{\"fingerprint\":\"$(of fingerprint)\"}"
  while (($(now) < end)); do
    said=$(tokend rejected --fail-with-body --json "$refused") || return
    if [[ $(jq .replaced <<<"$said") == true ]]; then
      credential
      return
    fi
    sleep "$(jq '[.retry_after // 0, 0.1] | max | [., 1] | min' <<<"$said")"
  done
  return 1
}
# send METHOD PATH [OPTION…]: $status, and the body in the file $answer
send() {
  local authorization
  authorization=$(of authorization)
  status=$(curl -sS --max-time 15 -o "$answer" -w '%{http_code}' -X "$1" "$(of target)$2" \
    --header @<([[ ! $authorization ]] || echo "Authorization: $authorization") "${@:3}") || status=000
}
# call METHOD PATH [OPTION…]: until the API has an answer to give
call() {
  local asked waited
  while :; do
    calls=$((calls + 1)) asked=$(now)
    if credential; then
      waited=$(($(now) - asked))
      send "$@"
      if [[ $status == 401 ]]; then
        rejected=$((rejected + 1)) asked=$(now)
        if other_credential; then
          waited=$((waited + $(now) - asked))
          send "$@"
        fi
      fi
      if ((waited > credential_ms)); then credential_ms=$waited; fi
      case $status in
        401) failed=$((failed + 1)) && echo "no credential: $1 $2: $status" >&2 ;;
        000 | 429 | 5??) repeated=$((repeated + 1)) ;;
        *) return ;;
      esac
    else
      failed=$((failed + 1))
      echo "no credential: $credential" >&2
    fi
    sleep 0.2
  done
}
# expect STATUS…: of the call before
expect() {
  local one
  for one; do [[ $status != "$one" ]] || return 0; done
  echo "$status: $(<"$answer")" >&2
  exit 1
}
json() { call POST "$1" --json "$2"; }

declare -A started=()
# Completes the jobs that are there, or come within five seconds.
work() {
  local key instance activated
  json /v2/jobs/activation "{\"type\":\"$name\",\"worker\":\"$name\",\"maxJobsToActivate\":10,\"timeout\":10000,\"requestTimeout\":5000}"
  expect 200
  activated=$(jq -r '.jobs[] | "\(.key) \(.processInstanceKey)"' "$answer")
  while read -r key instance; do
    json "/v2/jobs/$key/completion" '{"variables":{"done":true}}'
    # 404: it was completed by a call whose answer was lost.
    expect 204 404
    unset "started[$instance]"
    jobs=$((jobs + 1))
  done <<<"$activated"
}

call GET /v2/topology
expect 200
sed "s/errand/$name/" "$here/errand.bpmn" >"$process"
call POST /v2/deployments --form "resources=@$process;filename=$name.bpmn"
expect 200
last=$(now)
while [[ ! $ended && (! $wanted || $jobs -lt $wanted) ]]; do
  json /v2/process-instances "{\"processDefinitionId\":\"$name\"}"
  expect 200
  started[$(jq -r .processInstanceKey "$answer")]=1
  work
  if (($(now) - last > gap_ms)); then gap_ms=$(($(now) - last)); fi
  last=$(now)
  [[ $wanted ]] || sleep 0.1
done
# Nothing that was started stays undone.
while ((${#started[@]})); do work; done
jq -nc '$ARGS.named | map_values(tonumber)' --arg jobs $jobs --arg calls $calls --arg rejected $rejected --arg failed $failed \
  --arg repeated $repeated --arg credential_ms $credential_ms --arg gap_ms $gap_ms
