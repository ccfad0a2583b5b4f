// A certified OpenID provider on loopback: machines get access tokens (JWT) for the resource that they ask for.
import Provider from 'oidc-provider';

const port = Number(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;
const provider = new Provider(issuer, {
  clients: [{
    client_id: 'machine', client_secret: 'machines-secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
  }],
  scopes: ['predict', 'watch'],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: 'predict watch', audience: resource, accessTokenTTL: 300, accessTokenFormat: 'jwt',
      }),
    },
  },
});
provider.listen(port, '127.0.0.1', () => console.log('listening'));
