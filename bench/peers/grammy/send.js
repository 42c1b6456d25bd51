// A bot on grammY as its documentation says: the throttler, and retries when it was refused all the same.
//
//     send.js HOT COUNT      HOT messages to one chat, then one to each of COUNT others
//
// TELEGRAM_API_URL and BOT_TOKEN come from the environment.

import { Api } from 'grammy';
import { autoRetry } from '@grammyjs/auto-retry';
import { apiThrottler } from '@grammyjs/transformer-throttler';

const [hot, count] = process.argv.slice(2).map(Number);
const api = new Api(process.env.BOT_TOKEN, { apiRoot: process.env.TELEGRAM_API_URL });
api.config.use(apiThrottler());
// The last one that is used is asked first: a repeat goes through the throttler again.
api.config.use(autoRetry());

const chats = [...Array(hot).fill(500), ...Array.from({ length: count }, (_, n) => 2_000_000_000 + n)];
const sent = await Promise.allSettled(chats.map((chat) => api.sendMessage(chat, 'News for everybody.')));
const failed = sent.filter((one) => one.status === 'rejected');
console.log(`${sent.length - failed.length} sent, ${failed.length} failed`);
for (const one of failed.slice(0, 3)) console.log(String(one.reason));
// The throttler's timers would go on for ever.
process.exit(0);
