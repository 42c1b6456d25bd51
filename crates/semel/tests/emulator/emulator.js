'use strict';

// Somebody else's idea of the Bot API, as it comes from the registry, on a free port of loopback. Says which one.

const net = require('node:net');
const TelegramServer = require('telegram-test-api');

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = net.createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

async function main() {
  for (;;) {
    const port = await freePort();
    const server = new TelegramServer({ host: '127.0.0.1', port, storeTimeout: 3600 });
    try {
      await server.start();
    } catch (error) {
      if (error.code === 'EADDRINUSE') continue;
      throw error;
    }
    console.log(`listening on ${port}`);
    return;
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
