// Watches profiles and says at the end (SIGTERM) whether each credential was there before the one
// before it expired.
//
// usage: node handover.mjs PROFILE…
//   Needs TOKEND and TOKEND_SOCKET. Status 1 if one came late, or if there was none for a moment.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const profiles = process.argv.slice(2);
const late = [];
let replaced = 0;

const watchers = profiles.map((profile) => {
  const watcher = spawn(process.env.TOKEND, ['watch', profile, '--json'], { stdio: ['ignore', 'pipe', 'inherit'] });
  let before;
  createInterface(watcher.stdout).on('line', (line) => {
    const now = Date.now();
    const event = JSON.parse(line);
    if (event.unavailable) {
      late.push(`${profile}: ${event.unavailable.message}`);
    } else if (event.fingerprint !== before?.fingerprint) {
      const over = before ? now - Date.parse(before.expires_at) : -1;
      if (over >= 0) late.push(`${profile}: ${over} ms after the one before had expired`);
      else if (before) replaced += 1;
      before = event;
    }
  });
  return watcher;
});
process.on('SIGTERM', () => {
  watchers.forEach((watcher) => watcher.kill());
  console.log([`${replaced} replaced in time`, ...late].join('\n'));
  process.exit(late.length || replaced < profiles.length ? 1 : 0);
});
