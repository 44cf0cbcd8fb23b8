// What pages do beyond showing: they follow the ledger, and answer to the keyboard and the pointer. Every page works
// without this script. It keeps nothing: a view is its URL.
"use strict";

const STALE_MS = 60_000;
const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 30_000;
const SLIDE_MS = 250;
const CYCLE_MS = 20_000;
const PLAY_MS = 1_000;
const PNG_SCALE = 2;

const words = JSON.parse(document.body.dataset.words);
const one = (selector, from = document) => from.querySelector(selector);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];

// ── Morph: the new content in place of the old one, without touching what did not change ───────────────────────

const OWN_CLASSES = ["at", "fresh-number"];  // set by this script: a new page does not know them
const OWN_ATTRIBUTES = ["open", "data-own"];

const keyOf = node => node.nodeType === 1 ? node.id || node.dataset.key || "" : "";
const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

function morph(old, next) {
  if (old.nodeType !== 1) {
    if (old.data !== next.data) {
      old.data = next.data;
      highlight(old.parentElement);
    }
    return;
  }
  morphAttributes(old, next);
  if (old.matches("input, textarea, select")) return;  // keep what the viewer has typed or chosen
  morphChildren(old, next);
}

function morphAttributes(old, next) {
  const kept = OWN_CLASSES.filter(name => old.classList.contains(name));
  for (const { name, value } of [...next.attributes])
    if (!OWN_ATTRIBUTES.includes(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes])
    if (!OWN_ATTRIBUTES.includes(name) && !next.hasAttribute(name)) old.removeAttribute(name);
  old.classList.add(...kept);
}

function morphChildren(old, next) {
  const keyed = new Map([...old.childNodes].filter(keyOf).map(node => [node.nodeName + keyOf(node), node]));
  let place = old.firstChild;
  for (const child of [...next.childNodes]) {
    const known = keyOf(child) ? keyed.get(child.nodeName + keyOf(child)) : place;
    if (known && known.parentNode === old && alike(known, child)) {
      if (known !== place) old.insertBefore(known, place);
      morph(known, child);
      place = known.nextSibling;
    } else {
      old.insertBefore(document.importNode(child, true), place);
    }
  }
  while (place) {
    const after = place.nextSibling;
    place.remove();
    place = after;
  }
}

function highlight(element) {
  const live = element?.closest("[data-live]");
  if (!live) return;
  live.classList.remove("fresh-number");
  void live.offsetWidth;  // starts the animation anew
  live.classList.add("fresh-number");
}

// ── Following: fetch the same URL when the ledger has a new commit ──────────────────────────────────────────────

let fetching = false;
let outdated = false;
let paused = false;
let wait = FIRST_WAIT_MS;
let lastNews = Date.now();
let source = null;
let retry = 0;
let missed = false;  // whether there was a time without a connection

async function refresh() {
  outdated = true;
  if (fetching || paused || document.hidden) return;
  fetching = true;
  while (outdated && !paused && !document.hidden) {
    outdated = false;
    try {
      await fetchOnce();
    } catch {
      outdated = true;  // the page stays as it is until the connection is back
      disconnected();
      break;
    }
  }
  fetching = false;
}

async function fetchOnce() {
  const asked = location.href;
  const answer = await fetch(asked, { headers: { "X-Fragment": "main" }, redirect: "manual", cache: "no-store" });
  if (answer.type === "opaqueredirect" || answer.status === 401) return location.reload();
  if (!answer.ok) throw new Error(String(answer.status));
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (asked !== location.href) {
    outdated = true;  // the reader went on meanwhile
    return;
  }
  document.title = page.title;
  for (const id of ["main", "freshness"]) {
    const next = page.getElementById(id);
    if (next) morph(document.getElementById(id), next);
  }
  const badge = one("[data-badge]", page);
  for (const shown of all("[data-badge]")) {
    shown.hidden = badge.hidden;
    shown.textContent = badge.textContent;
  }
  moveRuler();
}

function listen() {
  const from = document.body.dataset.liveFrom;
  clearTimeout(retry);
  if (!from || source || document.hidden || paused) return;
  source = new EventSource(from);
  source.addEventListener("open", () => {
    wait = FIRST_WAIT_MS;
    news();
    if (missed) refresh();
    missed = false;
  });
  source.addEventListener("commit", event => {
    news();
    if (String(JSON.parse(event.data).commits) !== one(".fresh").dataset.commit) refresh();
  });
  source.addEventListener("alert", () => refresh());
  source.addEventListener("beat", news);
  source.addEventListener("error", disconnected);
}

function stop() {
  clearTimeout(retry);
  source?.close();
  source = null;
  missed = true;
}

function disconnected() {
  stop();
  if (document.hidden || paused) return;
  freshness("disconnected", words.disconnected);
  retry = setTimeout(listen, wait * (0.75 + Math.random() / 2));
  wait = Math.min(wait * 2, LONGEST_WAIT_MS);
}

function news() {
  lastNews = Date.now();
}

function freshness(kind, said) {
  const shown = one(".fresh");
  shown.className = `fresh ${kind}`;
  shown.dataset.kind = kind;
  one("[data-fresh-word]", shown).textContent = said;
}

setInterval(() => {
  if (source && !document.hidden && Date.now() - lastNews > STALE_MS) freshness("stale", words.stale);
}, STALE_MS / 6);

document.addEventListener("visibilitychange", () => document.hidden ? stop() : listen());
addEventListener("pagehide", stop);
addEventListener("pageshow", event => {
  all(":disabled[data-own]").forEach(field => { field.disabled = false; });
  if (event.persisted) listen();
});

function pause() {
  paused = !paused;
  one("[data-pause]")?.setAttribute("aria-pressed", String(paused));
  if (paused) stop(); else listen();
}

// ── Keyboard ────────────────────────────────────────────────────────────────────────────────────────────────────

let afterG = 0;

function onKey(event) {
  if (event.key === "Escape") return closeMenus();
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
  if (event.target.closest(".chart") && ["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
  if (afterG && Date.now() - afterG < 1_500) {
    afterG = 0;
    return one(`.pages [data-key="${CSS.escape(event.key)}"]`)?.click();
  }
  const keys = { "/": search, "?": help, g: () => { afterG = Date.now(); }, j: () => step(1), k: () => step(-1), p: pause };
  if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
}

const search = () => one(".search input")?.focus();
const help = () => one("#help")?.showModal();

function step(by) {
  const within = document.activeElement.closest(".table.rows") ?? one(".table.rows");
  if (!within) return;
  const rows = all("tbody tr", within);
  const at = rows.findIndex(row => row.classList.contains("at"));
  const row = rows[Math.max(0, Math.min(rows.length - 1, at < 0 ? 0 : at + by))];
  all(".at", within).forEach(other => other.classList.remove("at"));
  row.classList.add("at");
  const link = one("a", row);
  if (link) link.focus(); else {
    row.tabIndex = -1;
    row.focus();
  }
  row.scrollIntoView({ block: "nearest" });
}

const MENUS = "details.person, details.further, details.more";

function closeMenus(except = null) {
  for (const menu of all(MENUS))
    if (menu.open && menu !== except) {
      if (menu.contains(document.activeElement)) one("summary", menu).focus();
      menu.open = false;
    }
  hideTip();
}

// ── Charts: exact values where one points, or goes with the arrow keys ───────────────────────────────────────────

const tip = document.getElementById("tip");
let ruled = null;  // the chart with the ruler, and the place

function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${Math.max(8, y - height - 14 < 8 ? y + 18 : y - height - 14)}px`;
}

function hideTip() {
  tip.hidden = true;
  ruled = null;
  all(".ruler").forEach(ruler => ruler.remove());
  all(".mark.at").forEach(mark => mark.classList.remove("at"));
}

const hoverOf = chart => {
  const text = chart.closest("[data-hover]")?.dataset.hover;
  return text ? JSON.parse(text) : null;
};

function onPoint(event) {
  const chart = event.target.closest?.(".chart");
  if (!chart) return tip.hidden || document.activeElement.closest(".chart") ? undefined : hideTip();
  const mark = event.target.closest(".mark");
  if (mark) {
    hideTip();
    return showTip(mark.dataset.tip, event.clientX, event.clientY);
  }
  const hover = hoverOf(chart);
  if (!hover) return hideTip();
  const box = chart.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
  const share = (x - chart.dataset.left) / (chart.dataset.right - chart.dataset.left);
  if (share < -0.02 || share > 1.02) return hideTip();
  rule(chart, hover, nearest(hover.places, share), event.clientY);
}

function nearest(places, share) {
  let low = 0, high = places.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (places[middle] < share) low = middle; else high = middle;
  }
  return share - places[low] < places[high] - share ? low : high;
}

function rule(chart, hover, n, y = null) {
  hideTip();
  const left = Number(chart.dataset.left), right = Number(chart.dataset.right);
  const x = left + hover.places[n] * (right - left), view = chart.viewBox.baseVal;
  const line = document.createElementNS(chart.namespaceURI, "line");
  for (const [name, value] of Object.entries({ x1: x, x2: x, y1: 16, y2: view.height - 24, class: "ruler" }))
    line.setAttribute(name, value);
  chart.append(line);
  ruled = { chart, n };
  const box = chart.getBoundingClientRect();
  showTip(hover.texts[n], box.left + x / view.width * box.width, y ?? box.top + box.height / 3);
}

function moveRuler() {
  if (!ruled?.chart.isConnected) return hideTip();
  const hover = hoverOf(ruled.chart);
  if (hover) rule(ruled.chart, hover, Math.min(ruled.n, hover.places.length - 1));
}

function onArrow(event) {
  const chart = event.target.closest?.(".chart");
  const by = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
  if (!chart || by === undefined) return;
  event.preventDefault();
  const hover = hoverOf(chart), marks = all(".mark", chart);
  const most = (hover ? hover.places : marks).length - 1;
  if (most < 0) return;
  const before = hover ? (ruled?.chart === chart ? ruled.n : -1) : marks.findIndex(mark => mark.classList.contains("at"));
  const n = Math.max(0, Math.min(most, before + by));
  if (hover) rule(chart, hover, n); else pointAt(marks[n]);
  announce(tip.textContent);
}

function pointAt(mark) {
  hideTip();
  mark.classList.add("at");
  const box = mark.getBoundingClientRect();
  showTip(mark.dataset.tip, box.left + box.width / 2, box.top);
}

function announce(text) {
  document.getElementById("announce").textContent = text;
}

// ── A chart as a picture ─────────────────────────────────────────────────────────────────────────────────────────

const LOOK = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linejoin",
  "font-family", "font-size", "font-weight", "text-anchor", "opacity", "letter-spacing", "paint-order"];

async function picture(key) {
  const figure = document.getElementById(key);
  const chart = all(".chart", figure).find(drawn => drawn.getBoundingClientRect().width);
  const { width, height } = chart.viewBox.baseVal;
  const copy = chart.cloneNode(true);
  const shapes = all("*", chart);
  all("*", copy).forEach((shape, n) => {
    const look = getComputedStyle(shapes[n]);
    for (const name of LOOK) shape.setAttribute(name, look.getPropertyValue(name));
  });
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  const image = new Image();
  image.src = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }));
  await image.decode();
  const canvas = document.createElement("canvas");
  const head = 40, margin = 16;
  canvas.width = (width + 2 * margin) * PNG_SCALE;
  canvas.height = (height + head + margin) * PNG_SCALE;
  const paint = canvas.getContext("2d");
  const look = getComputedStyle(figure);
  paint.scale(PNG_SCALE, PNG_SCALE);
  paint.fillStyle = look.backgroundColor;
  paint.fillRect(0, 0, canvas.width, canvas.height);
  paint.fillStyle = look.color;
  paint.font = `600 14px ${look.fontFamily}`;
  const title = one("h2", figure).textContent;
  paint.fillText(title, margin, 26);
  paint.drawImage(image, margin, head, width, height);
  URL.revokeObjectURL(image.src);
  canvas.toBlob(blob => save(blob, `${title}.png`), "image/png");
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1_000);
}

// ── Forms: filters and sliders move the URL; the theme changes at once ───────────────────────────────────────────

let sliding = 0;

function onChoice(event) {
  const field = event.target;
  if (field.matches("[data-theme-choice]")) document.documentElement.dataset.theme = field.value;
  else if (field.matches(".filters > .choice select")) field.form.requestSubmit();
}

function onSubmit(event) {
  if (!event.target.matches(".filters, .slider-form")) return;
  for (const field of event.target.elements)
    if (field.name && !field.value && !field.disabled) {
      field.disabled = true;  // an empty parameter says nothing in a URL
      field.dataset.own = "";
    }
}

function onSlide(event) {
  const slider = event.target.closest(".slider");
  if (!slider || event.target.type !== "range") return;
  const [value, text] = JSON.parse(event.target.dataset.stops)[event.target.value];
  one("output", slider).textContent = text;
  event.target.setAttribute("aria-valuetext", text);
  one("select", slider).value = value;
  clearTimeout(sliding);
  sliding = setTimeout(() => {
    const url = new URL(location.href);
    if (value) url.searchParams.set(slider.dataset.name, value); else url.searchParams.delete(slider.dataset.name);
    history.replaceState(null, "", url);
    refresh();
  }, SLIDE_MS);
}

async function copyLink(button) {
  await navigator.clipboard.writeText(location.href);
  announce(words.copied);
  const box = button.getBoundingClientRect();
  showTip(words.copied, box.left, box.top);
  setTimeout(hideTip, 1_500);
}

// ── Replay: the URL moves through the past, and the page follows ─────────────────────────────────────────────────────

let playing = 0;

function play() {
  const running = !playing;
  clearInterval(playing);
  playing = running ? setInterval(playOn, PLAY_MS) : 0;
  showPlaying();
}

function showPlaying() {
  one("[data-play]")?.setAttribute("aria-pressed", String(Boolean(playing)));
}

async function playOn() {
  const player = document.getElementById("player");
  if (!player || document.hidden) return;
  if (fetching) return;  // a page that takes long is shown less often, never skipped to
  const { name, start, end, at, speed } = player.dataset;
  const next = Math.min(Date.parse(at || start) + Number(speed) * PLAY_MS, Date.parse(end));
  const url = new URL(location.href);
  url.searchParams.set(name, new Date(next).toISOString());
  history.replaceState(null, "", url);
  await refresh();
  showPlaying();
  if (next >= Date.parse(end) && playing) play();
}

// ── The wall: a clock, and one view after the other ──────────────────────────────────────────────────────────────

function tick(clock) {
  const format = { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false, timeZone: clock.dataset.clock };
  clock.textContent = new Intl.DateTimeFormat("en-GB", format).format(new Date());
}

async function cycle() {
  try {
    const next = document.body.dataset.next;
    if ((await fetch(next, { headers: { "X-Fragment": "main" } })).ok) return location.assign(next);
  } catch { /* the service is away: this view stays, and says that it is old */ }
  setTimeout(cycle, CYCLE_MS);
}

// ── Start ────────────────────────────────────────────────────────────────────────────────────────────────────────

document.addEventListener("keydown", onArrow);
document.addEventListener("keydown", onKey);
document.addEventListener("pointermove", onPoint, { passive: true });
document.addEventListener("focusout", event => { if (event.target.closest?.(".chart")) hideTip(); });
document.addEventListener("scroll", hideTip, { passive: true });
document.addEventListener("change", onChoice);
document.addEventListener("submit", onSubmit);
document.addEventListener("input", onSlide);
document.addEventListener("click", event => {
  const within = selector => event.target.closest(selector);
  closeMenus(within(MENUS));
  if (within("[data-png]")) picture(within("[data-png]").dataset.png);
  if (within("[data-copy]")) copyLink(within("[data-copy]"));
  if (within("[data-pause]")) pause();
  if (within("[data-play]")) play();
  if (within("[data-help]")) help();
});
for (const clock of all("[data-clock]")) {
  tick(clock);
  setInterval(tick, 1_000, clock);
}
if (document.body.dataset.next) setTimeout(cycle, CYCLE_MS);
listen();
