// How many token requests lifetimes and faults make necessary: each profile's first one, one
// whenever the last has lived its whole life, and one for each fault that makes what is there
// useless.
//
// usage: node necessary.mjs FILE START END ASKED LIFETIME PROFILE… Times in seconds; FILE has lines
// `TIME PROFILE` and `TIME lifespan SECONDS`. Status 1 if ASKED is more than 20 % off.

import { readFileSync } from 'node:fs';

const [file, start, end, asked, first, ...profiles] = process.argv.slice(2);
const events = readFileSync(file, 'utf8').trim().split('\n').filter(Boolean).map((line) => line.split(' '));

function necessary(profile) {
  let [count, lifetime, expires] = [0, Number(first), Number(start)];
  const until = (time) => {
    for (; expires <= time; expires += lifetime) count += 1;
  };
  for (const [time, what, seconds] of events) {
    until(Number(time));
    if (what === 'lifespan') lifetime = Number(seconds);
    if (what === profile) {
      count += 1;
      expires = Number(time) + lifetime;
    }
  }
  until(Number(end));
  return count;
}

const wanted = profiles.map(necessary).reduce((one, other) => one + other, 0);
const ratio = asked / wanted;
console.log(`${asked} at Keycloak, ${wanted} necessary: ${ratio.toFixed(2)}`);
process.exitCode = ratio >= 0.8 && ratio <= 1.2 ? 0 : 1;
