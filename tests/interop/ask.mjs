// Asks the daemon, over HTTP on its socket. Needs TOKEND_SOCKET.

import { request } from 'node:http';

/** The answer to a call for a token; whatever is not one fails, with the daemon's own words. */
export const ask = (profile) => new Promise((done, failed) => {
  const options = { socketPath: process.env.TOKEND_SOCKET, path: `/v1/profiles/${profile}/token`, headers: { host: 'tokend' } };
  request(options, (answer) => {
    const parts = [];
    answer.on('data', (part) => parts.push(part));
    answer.on('end', () => {
      const body = Buffer.concat(parts).toString();
      if (answer.statusCode === 200) done(JSON.parse(body));
      else failed(new Error(`${profile}: HTTP ${answer.statusCode}: ${body}`));
    });
    answer.on('error', failed);
  }).on('error', failed).end();
});
