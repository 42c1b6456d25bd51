"""The usual way: how payment webhooks of Telegram shops are commonly served, written for the benchmark.

Competent and common: aiohttp, a bounded psycopg2 pool whose calls run on threads, one HTTP session kept open, prepared
indexes, one transaction for the money. And with the holes that DESIGN.md names in its first section: the event's id is
inserted first and a repeat is skipped, the queries run one after another inside the request, a connection is held while the
provider is asked, and the answer comes after all of it.

Settings come from the environment: DATABASE_URL, YOOKASSA_API_URL, YOOKASSA_SHOP_ID, YOOKASSA_SECRET_KEY,
TELEGRAM_API_URL, BOT_TOKEN, HOST, PORT, REFERRAL_PERCENT.
"""

import asyncio
import concurrent.futures
import ipaddress
import json
import logging
import os
from decimal import Decimal

import aiohttp
import psycopg2.pool
from aiohttp import web

POOL_MAX = 10
SENDS_PER_SECOND = 28
NETWORKS = [
    ipaddress.ip_network(text)
    for text in (
        "185.71.76.0/27",
        "185.71.77.0/27",
        "77.75.153.0/25",
        "77.75.154.128/25",
        "77.75.156.11/32",
        "77.75.156.35/32",
        "2a02:5180::/32",
    )
]
log = logging.getLogger("shop")


class Database:
    """A connection of the pool for the length of a `with`, one query at a time on a thread."""

    def __init__(self, url):
        self.pool = psycopg2.pool.ThreadedConnectionPool(2, POOL_MAX, url)
        self.free = asyncio.Semaphore(POOL_MAX)
        self.threads = concurrent.futures.ThreadPoolExecutor(POOL_MAX)

    def run(self, function, *args):
        return asyncio.get_running_loop().run_in_executor(self.threads, function, *args)

    def session(self):
        return Session(self)


class Session:
    def __init__(self, database):
        self.database = database
        self.connection = None

    async def __aenter__(self):
        await self.database.free.acquire()
        try:
            self.connection = await self.database.run(self.database.pool.getconn)
        except BaseException:
            self.database.free.release()
            raise
        return self

    async def __aexit__(self, kind, error, trace):
        try:
            if kind is not None:
                await self.database.run(self.connection.rollback)
        finally:
            # psycopg2's pool rolls back what is open and drops a broken connection.
            await self.database.run(self.database.pool.putconn, self.connection)
            self.database.free.release()

    def _query(self, sql, args):
        with self.connection.cursor() as cursor:
            cursor.execute(sql, args)
            return cursor.fetchall() if cursor.description else []

    async def all(self, sql, *args):
        return await self.database.run(self._query, sql, args)

    async def one(self, sql, *args):
        rows = await self.all(sql, *args)
        return rows[0] if rows else None

    async def commit(self):
        await self.database.run(self.connection.commit)


def sender_is_known(request):
    text = request.headers.get("X-Forwarded-For", request.remote or "").split(",")[-1].strip()
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in NETWORKS)


async def ask_provider(app, provider_id):
    url = f"{os.environ['YOOKASSA_API_URL']}/payments/{provider_id}"
    auth = aiohttp.BasicAuth(os.environ["YOOKASSA_SHOP_ID"], os.environ["YOOKASSA_SECRET_KEY"])
    async with app["http"].get(url, auth=auth) as answer:
        answer.raise_for_status()
        return await answer.json()


async def webhook(request):
    if not sender_is_known(request):
        return web.json_response({"error": "unknown sender"}, status=403)
    body = await request.text()
    try:
        notice = json.loads(body)
        event, provider_id = notice["event"], notice["object"]["id"]
    except (ValueError, KeyError, TypeError):
        return web.json_response({"error": "malformed"}, status=400)
    if event != "payment.succeeded":
        return web.json_response({"ok": True})
    app = request.app
    async with app["database"].session() as db:
        fresh = await db.one(
            "insert into payment_events (event_id, body) values (%s, %s) on conflict do nothing returning event_id",
            f"{event}:{provider_id}",
            body,
        )
        await db.commit()
        if fresh is None:
            return web.json_response({"ok": True})
        payment = await db.one("select id, order_id, status, amount from payments where provider_id = %s", provider_id)
        if payment is None:
            log.warning("payment %s is not ours", provider_id)
            return web.json_response({"ok": True})
        payment_id, order_id, status, amount = payment
        order = await db.one(
            """select o.user_id, o.status, o.total, i.product_id, i.quantity from orders o
               join order_items i on i.order_id = o.id where o.id = %s for update of o""",
            order_id,
        )
        user_id, order_status, total, product_id, quantity = order
        telegram_id, referrer_id = await db.one("select telegram_id, referrer_id from users where id = %s", user_id)
        seen = await ask_provider(app, provider_id)
        if seen["status"] != "succeeded" or Decimal(seen["amount"]["value"]) < total or order_status != "pending":
            await db.commit()
            return web.json_response({"ok": True})
        await db.all("update payments set status = 'paid', paid_at = now() where id = %s", payment_id)
        await db.all("update orders set status = 'paid', paid_at = now() where id = %s", order_id)
        keys = await db.all(
            """update stock set sold_to = %s, sold_at = now() where id in (select id from stock where product_id = %s
               and sold_to is null order by id limit %s for update skip locked) returning id, content""",
            order_id,
            product_id,
            quantity,
        )
        if len(keys) < quantity:
            raise RuntimeError(f"sold out: order {order_id}")
        for stock_id, _ in keys:
            await db.all("insert into deliveries (order_id, stock_id) values (%s, %s)", order_id, stock_id)
        await db.all(
            "insert into transactions (user_id, order_id, kind, amount) values (%s, %s, 'sale', %s)",
            user_id,
            order_id,
            total,
        )
        if referrer_id is not None:
            reward = (total * app["percent"] / 100).quantize(Decimal("0.01"))
            first = await db.one(
                """insert into referrals (user_id, referrer_id, order_id, amount) values (%s, %s, %s, %s)
                   on conflict do nothing returning user_id""",
                user_id,
                referrer_id,
                order_id,
                reward,
            )
            if first is not None:
                await db.all("update users set balance = balance + %s where id = %s", reward, referrer_id)
        await db.all("update orders set status = 'delivered', delivered_at = now() where id = %s", order_id)
        text = "Your order is paid:\n" + "\n".join(content for _, content in keys)
        await db.all(
            "insert into notifications (chat_id, order_id, text) values (%s, %s, %s)", telegram_id, order_id, text
        )
        await db.all(
            "insert into event_log (order_id, event, detail) values (%s, 'paid', %s)", order_id, provider_id
        )
        await db.commit()
    app["wake"].set()
    log.info("order %s is paid", order_id)
    return web.json_response({"ok": True})


async def send(app, chat_id, text):
    url = f"{os.environ['TELEGRAM_API_URL']}/bot{os.environ['BOT_TOKEN']}/sendMessage"
    async with app["http"].post(url, json={"chat_id": chat_id, "text": text}) as answer:
        return answer.status == 200


async def notifier(app):
    """Sends what is queued, one after another with a pause, and looks again when it is woken."""
    while True:
        try:
            async with app["database"].session() as db:
                queued = await db.all(
                    "select id, chat_id, text from notifications where status = 'queued' order by id limit 30"
                )
                await db.commit()
            for row_id, chat_id, text in queued:
                sent = await send(app, chat_id, text)
                async with app["database"].session() as db:
                    await db.all(
                        "update notifications set status = %s, sent_at = now() where id = %s",
                        "sent" if sent else "failed",
                        row_id,
                    )
                    await db.commit()
                await asyncio.sleep(1 / SENDS_PER_SECOND)
            if queued:
                continue
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("the notifier failed")
            await asyncio.sleep(1)
        try:
            await asyncio.wait_for(app["wake"].wait(), timeout=30)
        except asyncio.TimeoutError:
            pass
        app["wake"].clear()


async def health(request):
    return web.json_response({"ok": True})


async def resources(app):
    app["database"] = Database(os.environ["DATABASE_URL"])
    app["http"] = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
    app["wake"] = asyncio.Event()
    app["percent"] = Decimal(os.environ.get("REFERRAL_PERCENT", "10"))
    task = asyncio.create_task(notifier(app))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await app["http"].close()
    app["database"].pool.closeall()


def main():
    logging.basicConfig(level=logging.INFO)
    app = web.Application()
    app.cleanup_ctx.append(resources)
    app.add_routes([web.post("/yookassa-webhook", webhook), web.get("/health", health)])
    # aiohttp's own access log is off: the service writes one line for each order, as it would in life.
    web.run_app(app, host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ["PORT"]), access_log=None, print=None)


if __name__ == "__main__":
    main()
