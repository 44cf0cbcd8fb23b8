// The HTTP API with Node 18 or newer, without dependencies.
//   URL=https://coupons.example.com PUBLISH_TOKEN=cl_… ASK_TOKEN=cl_… node example.mjs
const { URL: url, PUBLISH_TOKEN: publisher, ASK_TOKEN: asker, RUN: run = Date.now() } = process.env;
const coupon = `node-${run}`;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Send a request, and again while the service cannot take it. Repeating is harmless. */
async function call(token, path, { headers = {}, ...options } = {}) {
  for (let attempt = 1, pause = 200; ; attempt += 1, pause = Math.min(2 * pause, 5000)) {
    let response;
    try {
      response = await fetch(url + path, {
        ...options,
        headers: { Authorization: `Bearer ${token}`, ...headers },
        signal: AbortSignal.timeout(60_000),
        redirect: "error",
      });
      const body = await response.text();
      if (![429, 502, 503].includes(response.status) || attempt === 8) {
        const data = JSON.parse(body);
        if (response.ok) return data;
        throw Object.assign(new Error(data.detail), { status: response.status, problems: data.problems ?? [] });
      }
    } catch (error) {
      if (error.status || error instanceof SyntaxError || attempt === 8) throw error; // else: the connection was lost
    }
    await sleep(Math.max(pause * (0.5 + Math.random() / 2), 1000 * (response?.headers.get("retry-after") ?? 0)));
  }
}

const event = (type, at, more) => ({
  topic: "coupon.events", type, event_id: `${coupon}-${type}`, source: "shop", occurred_at: at, coupon_id: coupon, ...more,
});
const publish = (type, body) =>
  call(publisher, "/v1/events", { method: "POST", headers: { "Content-Type": type }, body });

// One event. The answer comes when it is durable.
const created = event("created", "2026-11-11T00:00:00Z", { campaign_id: "k-1", coupon_type: "cash" });
const one = await publish("application/json", JSON.stringify(created));
console.log(`published one at ${one.position}`);

// A batch, one event a line. The second one lacks its user: it is refused, the other is appended.
const batch = [
  event("claimed", "2026-11-11T00:01:00Z", { user_id: "u-1", channel: "app" }),
  event("used", "2026-11-11T00:02:00Z", { order_id: "o-1", discount_minor: 500 }),
];
const answer = await publish("application/x-ndjson", batch.map((one) => JSON.stringify(one) + "\n").join(""));
console.log(`appended ${answer.appended}, refused ${answer.refused}`);
for (const item of answer.items.filter((item) => item.status === "refused"))
  for (const { field, rule } of item.problems) console.log(`refused ${item.event_id}: ${field} ${rule}`);

// Whether the coupon can be used. Wait-For: ask once the events above were read.
const check = await call(publisher, `/v1/coupons/${encodeURIComponent(coupon)}/usable?user=u-1`, {
  headers: { "Wait-For": answer.wait_for },
});
console.log(`usable: ${check.usable} ${check.reasons.join(", ")}`);

// A question, page by page. All pages are of the same state.
let rows = 0;
for (let query = "page_size=2"; query; ) {
  const page = await call(asker, `/v1/questions/coupons?${query}`);
  rows += page.rows.length;
  query = page.next && `cursor=${encodeURIComponent(page.next)}`;
}
console.log(`coupons: ${rows} rows`);

/** Events of the live feed after the one with the id `last`. */
async function* live(last) {
  const headers = { Authorization: `Bearer ${asker}`, ...(last && { "Last-Event-ID": last }) };
  const response = await fetch(`${url}/v1/live`, { headers });
  if (!response.ok) throw new Error(`the feed answers ${response.status}`);
  let text = "";
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    text += piece;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const fields = text.slice(0, end).split("\n").map((line) => line.split(/: (.*)/s));
      yield Object.fromEntries(fields);
    }
  }
}

// The live feed, until one commit; then again from there. Events of alerts since then would come first.
let last;
for (const round of ["first", "resumed"]) {
  for await (const { event: kind, id, data } of live(last)) {
    if (kind !== "commit") continue;
    console.log(`${round}: commit ${JSON.parse(data).commits}`);
    last = id;
    break;
  }
}
