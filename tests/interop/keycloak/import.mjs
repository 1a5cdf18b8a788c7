// A realm as `start-dev --import-realm` wants it.

/** All clients are confidential and have service accounts, which is what client credentials need. */
export const realm = (name, lifespan, clients) => JSON.stringify({
  realm: name,
  enabled: true,
  sslRequired: 'all',
  accessTokenLifespan: lifespan,
  clients: clients.map((client) => ({
    protocol: 'openid-connect',
    publicClient: false,
    serviceAccountsEnabled: true,
    standardFlowEnabled: false,
    directAccessGrantsEnabled: false,
    ...client,
  })),
}, null, 1);

/** A PEM file without its frame, as Keycloak takes certificates. */
export const bare = (pem) => pem.replace(/-----[A-Z ]+-----|\s/g, '');
