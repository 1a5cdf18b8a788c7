# Glewlwyd from Debian's packages, unpacked and not installed; read by ./run. Needs harness.sh and
# certificates.sh.
# shellcheck shell=bash disable=SC2154

# What a small system does not have already.
GLEWLWYD=(glewlwyd glewlwyd-common libcbor0.8 libconfig9 libhoel1.4 libiddawc1.1 libjansson4 libmariadb3
  libmicrohttpd12 liboath0 liborcania2.3 libpq5 librhonabwy1.1 libulfius2.7 libyder2.0)

# Whether this release of Debian has the packages. With CI=true apt's lists are fetched if need be.
glewlwyd_is_there() {
  has apt-get && has dpkg-deb || return 1
  glewlwyd_is_listed || { [[ ${CI:-} == true ]] && timeout 60 apt-get update -q >/dev/null 2>&1 && glewlwyd_is_listed; }
}
glewlwyd_is_listed() { apt-cache show "${GLEWLWYD[@]}" >/dev/null 2>&1; }
glewlwyd_download() {
  local package
  fresh "$cache/glewlwyd" <(apt-cache show --no-all-versions "${GLEWLWYD[@]}" | grep -E '^SHA256:') && return
  (cd "$cache/glewlwyd" && timeout 120 apt-get download -q "${GLEWLWYD[@]}" 2>&1)
  for package in "$cache"/glewlwyd/*.deb; do dpkg-deb -x "$package" "$cache/glewlwyd/root"; done
  made "$cache/glewlwyd"
}
# Its configuration and an empty database, in the current folder, whose authority is `ca`.
glewlwyd_material() {
  local root=$cache/glewlwyd/root
  GLEWLWYD_ORIGIN=https://localhost:$1
  sed "s|@PORT@|$1|; s|@ORIGIN@|$GLEWLWYD_ORIGIN|; s|@ROOT@|$root|; s|@WORK@|$WORK|" "$here/glewlwyd.conf" >glewlwyd.conf
  python3 -c 'import sqlite3, sys; sqlite3.connect("glewlwyd.db").executescript(open(sys.argv[1]).read())' \
    "$root/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3"
}
glewlwyd() {
  local root=$cache/glewlwyd/root
  start glewlwyd env LD_LIBRARY_PATH="$(echo "$root"/usr/lib/*-linux-gnu)" "$root/usr/bin/glewlwyd" --config-file="$WORK/glewlwyd.conf"
  answers glewlwyd "$GLEWLWYD_ORIGIN/config"
}
