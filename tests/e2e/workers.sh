# The workers of examples/, built as their users would build them; read by ./run. `worker[LANGUAGE]`
# is the command of a worker.
# shellcheck shell=bash disable=SC2154,SC2034

declare -A worker=()
export PROTO ERRAND=$ROOT/examples/errand.bpmn

# build LANGUAGE FUNCTION: a worker that cannot be built is a failure, not a skip
build() {
  if ! "$2" >"$WORK/build-$1.log" 2>&1; then
    unset "worker[$1]"
    say "FAIL e2e: the worker in $1 does not build: $(tail -n 3 "$WORK/build-$1.log" | tr '\n' ' ')"
  fi
}
python_worker() {
  local bin=$cache/python/venv/bin out=$WORK/python
  mkdir -p "$out" &&
    "$bin/python" -m grpc_tools.protoc -I "$PROTO" --python_out="$out" --grpc_python_out="$out" "$PROTO/tokend/v1/credential.proto" &&
    cp "$ROOT"/examples/{worker.py,errand.bpmn} "$out/" || return
  worker[python]="$bin/python $out/worker.py"
}
node_worker() {
  # Node looks for imports beside the importing file.
  cp "$ROOT/examples/worker.mjs" "$cache/node/" || return
  worker[node]="node $cache/node/worker.mjs"
}
shell_worker() { worker[shell]="bash $ROOT/examples/worker.sh"; }
go_worker() {
  cp -r "$ROOT/examples/go" "$WORK/go" && (cd "$WORK/go" && "$BUF" generate "$PROTO" --template buf.gen.yaml && timeout 300 go build -o worker .) || return
  worker[go]=$WORK/go/worker
}
java_worker() {
  timeout 300 mvn -q -B -f "$ROOT/examples/java/pom.xml" package "-Dto=$WORK/worker-java" || return
  worker[java]="java -cp $WORK/worker-java/classes:$WORK/worker-java/lib/* Worker"
}
workers() {
  local buf
  buf=$(compgen -G "$cache/node/node_modules/@bufbuild/buf-linux-*/bin/buf" | head -n 1) || buf=
  BUF=$buf
  if has jq; then build shell shell_worker; else skip "the worker in shell: no jq"; fi
  if python_is_there; then python_packages && build python python_worker; else skip "the worker in Python: no python3 (3.10 or later) with venv"; fi
  build node node_worker
  if has go && [[ $BUF ]]; then build go go_worker; else skip "the worker in Go: no go, or no buf"; fi
  if has javac && has mvn; then build java java_worker; else skip "the worker in Java: no javac or no mvn"; fi
}
