# The API that the workers use: its start and end; read by ./run.
# shellcheck shell=bash disable=SC2154,SC2034

# api none|basic|oidc: starts the API at $API, with data of its own that stay over a restart
api() {
  local how=()
  API=http://localhost:${api_ports[$1]}
  case $1 in
    basic) how=(demo "$WORK/orders.password") ;;
    oidc) how=("$ISSUER" zeebe-api) ;;
  esac
  start api node "$cache/node/api.mjs" "${api_ports[$1]}" "$WORK/api-$1.json" "$1" "${how[@]}"
  api_answers
}
# Any status counts as an answer: the API asks for a credential, and this script has none.
api_answers() {
  local i
  for ((i = 0; i < 300; i++)); do
    ! curl -s -o /dev/null --max-time 5 "$API/v2/topology" || return 0
    kill -0 "${children[api]}" 2>/dev/null || { echo "the API has ended"; return 1; }
    sleep 0.1
  done
  echo "the API does not answer within half a minute"
  return 1
}
