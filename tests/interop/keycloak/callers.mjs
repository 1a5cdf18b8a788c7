// Callers that never rest: every profile is asked ten times a second until SIGTERM. What they are
// given must never be expired, and must be bound to what the answer says.
//
// usage: node callers.mjs FOLDER PROFILE… FOLDER/callers.failed has a line per failed call from the
// moment it fails; FOLDER/callers.json the count, at the end. Needs TOKEND_SOCKET.

import { appendFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeJwt } from 'jose';
import { ask } from './ask.mjs';

const [folder, ...profiles] = process.argv.slice(2);
const result = { calls: 0, failed: 0, longest: 0, tokens: 0 };
const seen = new Set();

async function call(profile) {
  const start = performance.now();
  result.calls += 1;
  try {
    const answer = await ask(profile);
    const claims = decodeJwt(answer.token);
    if (claims.exp * 1000 <= Date.now()) throw new Error(`${profile}: a token that expired at ${claims.exp}`);
    if ((claims.cnf?.['x5t#S256'] ?? '') !== answer.confirmation) throw new Error(`${profile}: a confirmation that is not the token's`);
    seen.add(answer.fingerprint);
  } catch (error) {
    result.failed += 1;
    appendFileSync(join(folder, 'callers.failed'), `${new Date().toISOString()} ${error}\n`);
  }
  result.longest = Math.max(result.longest, performance.now() - start);
}

setInterval(() => profiles.forEach(call), 100);
process.on('SIGTERM', () => {
  result.tokens = seen.size;
  writeFileSync(join(folder, 'callers.json'), JSON.stringify(result));
  process.exit(0);
});
