"""The usual way: how bots commonly write to everybody, written for the benchmark.

Twenty-five messages, a second of sleep, the next twenty-five. Who is refused waits as long as was asked and tries once more;
whoever is refused again, or cannot be reached, is counted as failed.

    broadcast.py one-by-one|together HOT COUNT      HOT messages to one chat, then one to each of COUNT others

TELEGRAM_API_URL and BOT_TOKEN come from the environment.
"""

import asyncio
import os
import sys

import aiohttp

BATCH_SIZE = 25
BATCH_SLEEP = 1


async def post(http, chat_id):
    url = f"{os.environ['TELEGRAM_API_URL']}/bot{os.environ['BOT_TOKEN']}/sendMessage"
    async with http.post(url, json={"chat_id": chat_id, "text": "News for everybody."}) as answer:
        return await answer.json()


async def send(http, chat_id):
    answer = await post(http, chat_id)
    if answer.get("error_code") == 429:
        await asyncio.sleep(answer["parameters"]["retry_after"])
        answer = await post(http, chat_id)
    return answer["ok"]


async def main():
    together, hot, count = sys.argv[1] == "together", int(sys.argv[2]), int(sys.argv[3])
    chats = [500] * hot + [2_000_000_000 + n for n in range(count)]
    sent = 0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
        for first in range(0, len(chats), BATCH_SIZE):
            batch = chats[first : first + BATCH_SIZE]
            if together:
                sent += sum(await asyncio.gather(*(send(http, chat) for chat in batch)))
            else:
                for chat in batch:
                    sent += await send(http, chat)
            await asyncio.sleep(BATCH_SLEEP)
    print(f"{sent} sent, {len(chats) - sent} failed")


asyncio.run(main())
