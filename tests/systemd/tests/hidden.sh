# ProtectProc=invisible hides callers' /proc/PID from the daemon; the kernel's answer about the
# descriptor remains (Linux 6.13).
# shellcheck shell=bash disable=SC2154

hides() {
  inside nsenter -t "$(main_pid)" -m findmnt -no OPTIONS /proc | grep -F hidepid=invisible
}
kernel_tells() {
  local major minor
  IFS=.- read -r major minor _ < <(uname -r)
  ((major > 6 || (major == 6 && minor >= 13)))
}

test_hidden() {
  local should=$granted
  # On an older kernel, rules by unit fail closed.
  kernel_tells || should=$denied
  check "ProtectProc=invisible" dropin hidden '[Service]' ProtectProc=invisible
  check "… does hide" hides
  check "the right unit: $should" says "$should" unit orders@1.service worker connect get:unit
  check "… below which there is another group" says "$should" unit orders@1.service worker Delegate=yes sub:below connect get:unit
  check "another unit" says "$denied" unit side.service worker connect get:unit
  check "no unit" says "$denied" steps worker connect get:unit
  check "the user's own manager" says "$denied" of_manager worker connect get:unit
  check "the user" says "200 token-of-user" steps worker connect get:user
}
