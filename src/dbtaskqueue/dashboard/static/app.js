// Makes the pages live: polls the page's own URL, morphs what changed, shows local times, follows output, keys.
"use strict";
(() => {
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const policy = window.trustedTypes?.createPolicy("dbtaskqueue", { createHTML: text => text });
const parse = text => new DOMParser().parseFromString(policy ? policy.createHTML(text) : text, "text/html");
const keys = document.documentElement.dataset.keys === "on";

// -- times, in the viewer's zone ---------------------------------------------------------------

function span(seconds) {
  const s = Math.max(0, Math.floor(seconds)), two = n => String(n).padStart(2, "0");
  if (s >= 86400) return `${Math.floor(s / 86400)}d ${two(Math.floor(s % 86400 / 3600))}h`;
  if (s >= 3600) return `${Math.floor(s / 3600)}h ${two(Math.floor(s % 3600 / 60))}m`;
  return s >= 60 ? `${Math.floor(s / 60)}m ${two(s % 60)}s` : `${s}s`;
}
const pad = n => String(n).padStart(2, "0");
const day = d => `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())}`;
const hour = d => `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
function showTime(element) {
  const kind = element.dataset.t, at = new Date(element.dateTime), now = new Date();
  if (!kind || isNaN(at)) return;
  const ago = (now - at) / 1000;
  let text = hour(at);
  if (kind === "ago") text = ago < 1 ? "now" : `${span(ago)} ago`;
  else if (kind === "for") text = span(ago);
  else if (kind === "in") text = ago < 0 ? `in ${span(-ago)}` : "now";
  else if (kind === "at" && day(at) !== day(now)) text = `${day(at)} ${text.slice(0, 5)}`;
  if (element.textContent !== text) element.textContent = text;
  const full = `${day(at)} ${hour(at)}`;
  if (element.title !== full && kind !== "clock") element.title = full;
}
const showTimes = root => $$("time[data-t]", root).forEach(showTime);

// -- morphing: the same elements stay, so that focus, selection, scrolling and open parts do ----

const touched = new WeakSet();
document.addEventListener("input", event => touched.add(event.target), true);
document.addEventListener("reset", event => $$("input, select, textarea", event.target).forEach(e => touched.delete(e)), true);

function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType !== 1) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.hasAttribute("data-keep") && fresh.dataset.keep === old.dataset.keep) return;
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !(name === "open" && old.matches("details, dialog"))) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  if (old.matches("input, select, textarea")) {
    if (touched.has(old) || old === document.activeElement) return;
    if (old.matches("input")) { old.value = fresh.value; old.checked = fresh.checked; }
  }
  const byId = new Map([...old.children].filter(e => e.id).map(e => [e.id, e]));
  let at = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const known = next.id && byId.get(next.id);
    if (known) {
      if (known === at) at = at.nextSibling; else old.insertBefore(known, at);
      byId.delete(next.id);
      morph(known, next);
    } else if (at && !at.id && !next.id && at.nodeName === next.nodeName) {
      const after = at.nextSibling;
      morph(at, next);
      at = after;
    } else old.insertBefore(next, at);
  }
  while (at) { const after = at.nextSibling; at.remove(); at = after; }
}

// -- live updates ------------------------------------------------------------------------------

const live = $("#live"), note = $("#note");
let main = $("main"), etag = main?.dataset.etag, failures = 0, timer, failedAt = 0;
let on = sessionStorage.getItem("live") !== "off";

const isLive = () => on && etag && !document.hidden;
function schedule(ms) { clearTimeout(timer); if (isLive()) timer = setTimeout(poll, ms); }

async function poll() {
  try {
    const url = new URL(location.href);
    url.searchParams.set("part", "1");
    url.hash = "";
    const stop = AbortSignal.timeout?.(15000);
    const answer = await fetch(url, { headers: { "If-None-Match": `"${etag}"` }, redirect: "manual", signal: stop, cache: "no-store" });
    if (answer.status === 401 || answer.type === "opaqueredirect") return location.reload();
    if (answer.status !== 304 && !answer.ok) throw new Error(String(answer.status));
    if (answer.status === 200 && on) show($("main", parse(await answer.text())));
    failures = 0;
    note.textContent = "";
    live.classList.remove("away");
    await follow();
  } catch {
    failedAt = failedAt && failures ? failedAt : Date.now();
    failures += 1;
    live.classList.add("away");
  }
  schedule(failures ? Math.min(30, 2 ** (failures - 1)) * 1000 : 1000);
}

function show(fresh) {
  if (!fresh) return;
  showTimes(fresh);
  morph(main, document.adoptNode(fresh));
  etag = main.dataset.etag;
  markChosen();
}

function setLive(value) {
  on = value;
  sessionStorage.setItem("live", on ? "on" : "off");
  live.setAttribute("aria-pressed", String(on));
  schedule(0);
}

setInterval(() => {
  if (!on || document.hidden) return;
  showTimes(document);
  if (failures) note.textContent = `The dashboard does not answer (${span((Date.now() - failedAt) / 1000)})`;
}, 1000);

if (live && etag) {
  live.hidden = false;
  live.setAttribute("aria-pressed", String(on));
  live.addEventListener("click", () => setLive(!on));
  document.addEventListener("visibilitychange", () => schedule(0));
  schedule(1000);
}
showTimes(document);

// -- output of a task: only what is new, while one looks at its end ------------------------------

async function follow() {
  const log = $("[data-output]");
  if (!log || log.dataset.done) return;
  const answer = await (await fetch(`${log.dataset.output}&after=${log.dataset.position}`, { cache: "no-store" })).json();
  if (answer.ended && !answer.text) log.dataset.done = "1";
  if (!answer.text && !answer.left_out) return;
  const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 24;
  if (answer.left_out) log.append(`\n[… ${answer.left_out.toLocaleString()} bytes left out …]\n`);
  if ($(".dim", log)) log.textContent = "";
  log.append(answer.text);
  log.dataset.position = answer.position;
  if (log.textContent.length > 400000) log.textContent = log.textContent.slice(-200000);
  if (isAtEnd && $("#follow")?.checked !== false) log.scrollTop = log.scrollHeight;
}
const log = $("[data-output]");
if (log) {
  log.scrollTop = log.scrollHeight;
  document.addEventListener("change", event => {
    if (event.target.id === "follow" && event.target.checked) log.scrollTop = log.scrollHeight;
  });
}

// -- choosing tasks ------------------------------------------------------------------------------

function markChosen() {
  const all = $("#choose-all"), boxes = $$('input[name="id"][type=checkbox]'), count = boxes.filter(e => e.checked).length;
  const out = $("#chosen");
  if (out) out.textContent = all?.checked ? "all that match" : count ? `${count} chosen` : "none chosen";
  for (const button of $$("#bulk-actions button")) button.disabled = !(count || all?.checked);
}
document.addEventListener("change", event => {
  if (event.target.id === "choose-page") for (const box of $$('input[name="id"][type=checkbox]')) { box.checked = event.target.checked; touched.add(box); }
  markChosen();
});
markChosen();

// -- dialogs: a page that asks is shown in one -----------------------------------------------------

document.addEventListener("submit", async event => {
  const form = event.target, button = event.submitter;
  if (!form.matches("[data-ask]") || typeof HTMLDialogElement === "undefined") return;
  event.preventDefault();
  const url = new URL(form.action), data = new URLSearchParams(new FormData(form, button)), posts = form.method === "post";
  if (!posts) for (const [name, value] of data) url.searchParams.append(name, value);
  url.searchParams.set("part", "1");
  try {
    const answer = await fetch(url, posts ? { method: "POST", body: data, cache: "no-store" } : { cache: "no-store" });
    const page = parse(await answer.text()), content = $("main [data-dialog]", page);
    if (!content) return say($("main [role=alert]", page)?.textContent ?? answer.statusText, refused);
    const dialog = document.createElement("dialog");
    dialog.append(document.adoptNode(content));
    dialog.setAttribute("aria-labelledby", $("h1, h2", content)?.id ?? "");
    dialog.addEventListener("click", e => {
      if (e.target === dialog || e.target.closest("[data-close]")) { e.preventDefault(); dialog.close(); }
    });
    dialog.addEventListener("close", () => { dialog.remove(); (button?.isConnected ? button : main).focus(); });
    document.body.append(dialog);
    showTimes(dialog);
    dialog.showModal();
  } catch { form.removeAttribute("data-ask"); form.requestSubmit(button); }
});

// -- acting: what came of it is said on this page, so that focus and scrolling stay ----------------

const said = $("#said"), refused = $("#refused");
function say(text, element = said) {
  for (const each of [said, refused]) each.textContent = each === element ? text : "";
  refused.hidden = element !== refused;
  setTimeout(() => { if (said.textContent === text) said.textContent = ""; }, 20000);
}
async function act(form, button) {
  const dialog = form.closest("dialog");
  const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form, button)), cache: "no-store" });
  const page = parse(await answer.text()), why = $("main [role=alert]", page)?.textContent;
  if (answer.status === 422 && dialog && why) {
    const alert = $("[role=alert]", dialog);
    alert.textContent = why;
    alert.hidden = false;
    return;
  }
  if (answer.status === 401) return location.reload();
  const text = $("#said", page)?.textContent ?? "";
  if (answer.ok && answer.url !== location.href.split("#")[0]) {
    sessionStorage.setItem("said", text);
    return location.assign(answer.url);
  }
  if (answer.ok) {
    for (const box of $$('#bulk input, input[form="bulk"]')) { box.checked = false; touched.delete(box); }
    show($("main", page));
  }
  dialog?.close();
  if (answer.ok) say(text); else say(why ?? answer.statusText, refused);
}
document.addEventListener("submit", async event => {
  const form = event.target;
  if (!form.matches("[data-act]")) return;
  event.preventDefault();
  if (form.ariaBusy) return;
  form.ariaBusy = "true";
  try { await act(form, event.submitter); } catch { say("The dashboard does not answer. Look whether it was done before you try again.", refused); }
  form.ariaBusy = null;
});
if (sessionStorage.getItem("said")) setTimeout(() => {
  say(sessionStorage.getItem("said"));
  sessionStorage.removeItem("said");
}, 100);

// -- keys, unless they are off ---------------------------------------------------------------------

let went = 0;
function step(by) {
  const links = $$("main tbody tr").map(row => $("a[href]", row)).filter(Boolean), at = links.indexOf(document.activeElement);
  links[at < 0 ? 0 : Math.min(Math.max(at + by, 0), links.length - 1)]?.focus();
}
const places = { o: "Overview", t: "Tasks", q: "Queues", f: "Functions", s: "Schedules", w: "Workers", d: "Overdue" };
document.addEventListener("keydown", event => {
  if (!keys || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea, [contenteditable]") || $("dialog[open]")) return;
  if (event.key === "/") { event.preventDefault(); const box = $(".find input"); box?.focus(); box?.select(); }
  else if (event.key === "?") location.assign($('nav a[href$="/settings"]')?.href ?? "");
  else if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
  else if (event.key === "a") { event.preventDefault(); $("main .actions :is(button:enabled, a.button)")?.focus(); }
  else if (event.key === "g") went = Date.now();
  else if (places[event.key] && Date.now() - went < 1500) $$(".side nav a").find(a => a.textContent === places[event.key])?.click();
});
document.addEventListener("keydown", event => {
  if (event.key === "Escape" && event.target.matches(".find input")) event.target.blur();
});
})();
