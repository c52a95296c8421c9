/**
 * What every view uses: escaping templates, REST calls, session, toasts, dialogs, small formatters.
 * No view builds markup any other way: `html` escapes each value, so no user text can become markup.
 */
import { ICONS } from "./icons.js";

/* ---------------------------------------------------------------- templates */

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;", "`": "&#96;" };
const URL_ATTRIBUTE = /\s(?:href|src|action|formaction|poster|xlink:href)\s*=\s*["']$/i;
const BAD_SCHEME = /^(?:javascript:|vbscript:|data:(?!image\/(?:png|jpeg|webp|gif|avif)[;,]))/i;

/** Markup that is already safe. Made by `html` and `raw`, nothing else. */
class Markup {
  constructor(text) {
    this.text = text;
  }
  toString() {
    return this.text;
  }
}

/** @param {unknown} value @returns {string} text fit for element content and quoted attributes */
export function escape(value) {
  return String(value).replace(/[&<>"'`]/g, (sign) => ESCAPES[sign]);
}

/** Mark markup as trusted. Only for text that this code wrote itself. @param {string} text */
export function raw(text) {
  return new Markup(String(text));
}

function put(value, before) {
  if (value === null || value === undefined || value === false || value === true) return "";
  if (value instanceof Markup) return value.text;
  if (Array.isArray(value)) return value.map((part) => put(part, before)).join("");
  // Browsers skip control characters and blanks inside a scheme.
  if (URL_ATTRIBUTE.test(before) && BAD_SCHEME.test(String(value).replace(/[\u0000-\u0020]/g, ""))) return "#";
  return escape(value);
}

/**
 * Tagged template: html`<p>${anything}</p>`. Values are escaped; nested `html`, arrays of it and `raw()` are not.
 * null, undefined and booleans give nothing, so html`${open && html`...`}` works. Attributes must be quoted.
 * @returns {Markup}
 */
export function html(strings, ...values) {
  let text = strings[0];
  for (let i = 0; i < values.length; i++) {
    if (text.lastIndexOf("<") > text.lastIndexOf(">")) {
      if (/\s[\w:-]+=\s*$/.test(strings[i])) throw new Error("Quote the attribute: " + strings[i].slice(-40));
      if (/\son\w+\s*=\s*(?:"[^"]*|'[^']*)$/i.test(text)) throw new Error("No values in event attributes: " + strings[i].slice(-40));
    }
    text += put(values[i], strings[i]) + strings[i + 1];
  }
  return new Markup(text);
}

/**
 * Show a template in an element, changing only what differs: focus, scroll, typed text and running animations stay.
 * The inside of custom elements and of `data-keep` elements belongs to themselves and is left alone.
 * Lists that reorder should carry `data-key` on each item.
 * @param {Element} element @param {Markup} template @returns {Element} the element
 */
export function render(element, template) {
  const next = document.createElement("template");
  next.innerHTML = put(template, "");
  morphChildren(element, next.content);
  return element;
}

/** @param {Markup} template @returns {Element} its first element, detached */
export function fragment(template) {
  const holder = document.createElement("template");
  holder.innerHTML = put(template, "");
  return holder.content.firstElementChild;
}

const keyOf = (node) => (node.nodeType === 1 ? node.getAttribute("data-key") || node.id || null : null);

function morphChildren(from, to) {
  const keyed = new Map();
  for (const child of from.childNodes) {
    const key = keyOf(child);
    if (key) keyed.set(key, child);
  }
  let current = from.firstChild;
  for (const wanted of [...to.childNodes]) {
    const key = keyOf(wanted);
    let match = key ? keyed.get(key) : current;
    if (match && !key && keyOf(match) !== null) match = null;
    if (match && same(match, wanted)) {
      if (key) keyed.delete(key);
      if (match !== current) from.insertBefore(match, current);
      else current = current.nextSibling;
      morph(match, wanted);
    } else {
      from.insertBefore(wanted, current);
    }
  }
  while (current) {
    const gone = current;
    current = current.nextSibling;
    gone.remove();
  }
}

const same = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

function morph(from, to) {
  if (from.nodeType !== 1) {
    if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
    return;
  }
  for (const { name, value } of [...to.attributes]) {
    if (from.getAttribute(name) !== value) {
      from.setAttribute(name, value);
      if (name === "value" && from !== document.activeElement && "value" in from) from.value = value;
      if (name === "checked") from.checked = true;
    }
  }
  for (const { name } of [...from.attributes]) {
    if (to.hasAttribute(name) || (name === "open" && /^(DETAILS|DIALOG)$/.test(from.nodeName))) continue;
    from.removeAttribute(name);
    if (name === "checked") from.checked = false;
  }
  if (from.nodeName.includes("-") || from.hasAttribute("data-keep")) return;
  if (from.nodeName === "TEXTAREA") {
    if (from !== document.activeElement && from.defaultValue !== to.defaultValue) from.value = to.defaultValue;
    return;
  }
  morphChildren(from, to);
}

/**
 * Base of every view: `start()` runs when it enters the page, `signal` aborts when it leaves.
 * Listeners added with `listen` and calls given `this.signal` end by themselves.
 */
export class View extends HTMLElement {
  connectedCallback() {
    this.controller?.abort();
    this.controller = new AbortController();
    this.start();
  }
  disconnectedCallback() {
    this.controller?.abort();
    this.stop();
  }
  /** @returns {AbortSignal} */
  get signal() {
    return this.controller.signal;
  }
  start() {}
  stop() {}
  /** Listen until the view leaves. @param {EventTarget} target @param {string} type @param {(event) => void} run */
  listen(target, type, run, options = {}) {
    target.addEventListener(type, run, { ...options, signal: this.signal });
  }
  /** Delegated listener: `run(event, element)` for events from inside that hit `selector`. */
  on(type, selector, run) {
    this.listen(this, type, (event) => {
      const hit = event.target instanceof Element ? event.target.closest(selector) : null;
      if (hit && this.contains(hit)) run(event, hit);
    });
  }
}

/** Register a custom element once. @param {string} tag @param {CustomElementConstructor} view */
export function define(tag, view) {
  if (!customElements.get(tag)) customElements.define(tag, view);
}

/* ---------------------------------------------------------------- REST */

/** An answer that is not a success. `code` is stable, `message` is for people, `field` names the input at fault. */
export class ApiError extends Error {
  constructor(status, body = {}) {
    super(body.message || `The server answered ${status}.`);
    this.name = "ApiError";
    this.status = status;
    this.code = body.code || (status ? "error" : "offline");
    this.field = body.field || null;
    this.hint = body.hint || null;
    this.existing = body.existing || null;
    this.requestId = body.request_id || null;
  }
}

const OFFLINE = { code: "offline", message: "The server cannot be reached. Check the connection and try again." };

/** Path with a query string; arrays repeat the name, null, "" and undefined are left out. */
export function withQuery(path, query = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const part of Array.isArray(value) ? value : [value]) {
      if (part !== null && part !== undefined && part !== "") search.append(name, part);
    }
  }
  const text = search.toString();
  return text ? path + (path.includes("?") ? "&" : "?") + text : path;
}

/**
 * Call REST. `path` starts with /api.
 * @param {string} path
 * @param {{method?: string, json?: unknown, form?: FormData, query?: object, signal?: AbortSignal}} options
 * @returns {Promise<any>} the JSON, or null for 204
 * @throws {ApiError} for every answer that is not a success; an aborted call throws AbortError as fetch does
 */
export async function api(path, { method, json, form, query, signal } = {}) {
  const options = { method: method || (json !== undefined || form ? "POST" : "GET"), signal, credentials: "same-origin", headers: { Accept: "application/json" } };
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    options.headers["Content-Type"] = "application/json";
  } else if (form) options.body = form;
  let answer;
  try {
    answer = await fetch(withQuery(path, query), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, OFFLINE);
  }
  if (answer.status === 204) return null;
  const body = await answer.json().catch(() => null);
  if (answer.ok && body !== null) return body;
  throw failed(answer.status, body);
}

function failed(status, body) {
  const error = new ApiError(status, body?.error);
  // The account was signed out elsewhere: the next page or call sees a guest.
  if (status === 401 && error.code === "not_signed_in") sessionPromise = null;
  return error;
}

/**
 * Send a body with upload progress, which fetch does not report.
 * @param {string} path
 * @param {{method?: string, body: FormData|Blob, headers?: object, onProgress?: (fraction: number) => void, signal?: AbortSignal}} options
 * @returns {Promise<any>} @throws {ApiError}
 */
export function upload(path, { method = "POST", body, headers = {}, onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    call.open(method, path);
    call.responseType = "json";
    for (const [name, value] of Object.entries(headers)) call.setRequestHeader(name, value);
    if (onProgress) call.upload.addEventListener("progress", (event) => event.lengthComputable && onProgress(event.loaded / event.total));
    call.addEventListener("load", () => {
      if (call.status >= 200 && call.status < 300) resolve(call.response);
      else reject(failed(call.status, call.response));
    });
    call.addEventListener("error", () => reject(new ApiError(0, OFFLINE)));
    call.addEventListener("abort", () => reject(new DOMException("Cancelled", "AbortError")));
    signal?.addEventListener("abort", () => call.abort());
    call.send(body);
  });
}

let sessionPromise = null;
const NO_SESSION = { user: null, site_title: "VisionSuit", registration: "open", generator_access: "members", may_generate: false, limits: {} };

/**
 * Who is looking, and what the site allows: GET /api/meta/session, asked once a page load.
 * @param {{refresh?: boolean}} options ask again, after a login or a change of profile; listeners of the window
 *   event `vs:session` hear of it
 * @returns {Promise<{user: object|null, site_title: string, registration: string, generator_access: string, may_generate: boolean, limits: object}>}
 */
export function session({ refresh = false } = {}) {
  if (!sessionPromise || refresh) {
    sessionPromise = api("/api/meta/session")
      .then((found) => ({ ...NO_SESSION, ...found }))
      .catch(() => {
        sessionPromise = null;
        return { ...NO_SESSION, failed: true };
      });
    if (refresh) sessionPromise.then((now) => window.dispatchEvent(new CustomEvent("vs:session", { detail: now })));
  }
  return sessionPromise;
}

/** Whether the person's role grants it: may(await session(), "assets:upload"). The server decides again. */
export function may(now, permission) {
  return Boolean(now.user?.permissions?.includes(permission));
}

const RANKS = ["GUEST", "USER", "CURATOR", "ADMIN", "SUPERADMIN"];
/** hasRole(await session(), "ADMIN"): that role or a higher one. */
export function hasRole(now, role) {
  return RANKS.indexOf(now.user?.role || "GUEST") >= RANKS.indexOf(role);
}

/* ---------------------------------------------------------------- addresses */

/**
 * Go to an address of this site without loading the page anew. Fires the window event `vs:navigate`
 * (`detail: {url}`), as Back and Forward do: the shell swaps the view when the page changes, a view that stays
 * reads `location` again.
 * @param {string} url @param {{replace?: boolean, scroll?: boolean}} options
 */
export function navigate(url, { replace = false, scroll = true } = {}) {
  const target = new URL(url, location.href);
  if (target.origin !== location.origin || !window.vsShell) {
    location.assign(target);
    return;
  }
  const changed = target.pathname !== location.pathname;
  history[replace ? "replaceState" : "pushState"]({}, "", target);
  window.dispatchEvent(new CustomEvent("vs:navigate", { detail: { url: target.href, changed } }));
  if (scroll && changed) window.scrollTo(0, 0);
}

/** @returns {URLSearchParams} of the address bar */
export function query() {
  return new URLSearchParams(location.search);
}

/** Where to go after signing in: the local path in `next`, or home. */
export function nextPath(fallback = "/") {
  const next = query().get("next") || "";
  try {
    const target = new URL(next, location.origin);
    if (next.startsWith("/") && target.origin === location.origin) return target.pathname + target.search;
  } catch {
    /* not an address */
  }
  return fallback;
}

/** Address of the login page that comes back here. */
export function loginUrl() {
  return "/login?next=" + encodeURIComponent(location.pathname + location.search);
}

/* ---------------------------------------------------------------- toasts and dialogs */

const TOAST_ICONS = { info: "info", ok: "check-circle", warn: "alert", error: "alert-circle" };

function toastRegion() {
  let region = document.querySelector(".toasts");
  if (!region) {
    region = fragment(html`<div class="toasts" popover="manual" role="region" aria-label="Messages" aria-live="polite"></div>`);
    document.body.append(region);
  }
  // Shown again each time, so that it lies over a dialog opened meanwhile.
  if (region.matches(":popover-open")) region.hidePopover?.();
  region.showPopover?.();
  return region;
}

/**
 * A short message at the edge. @param {string} text @param {"info"|"ok"|"warn"|"error"} kind
 * @param {{timeout?: number, action?: {label: string, href?: string, run?: () => void}}} options
 */
export function toast(text, kind = "info", { action, timeout = action ? 10000 : kind === "error" ? 8000 : 4500 } = {}) {
  const note = fragment(html`<div class="toast" data-kind="${kind}" role="${kind === "error" ? "alert" : "status"}">
    ${icon(TOAST_ICONS[kind] || "info")}<span class="toast-text">${text}</span>
    ${action && (action.href ? html`<a class="toast-action" href="${action.href}">${action.label}</a>` : html`<button type="button" class="toast-action">${action.label}</button>`)}
    <button type="button" class="toast-close" aria-label="Dismiss">${icon("x")}</button>
  </div>`);
  const dismiss = () => {
    note.classList.add("leaving");
    setTimeout(() => note.remove(), 200);
  };
  note.querySelector(".toast-close").addEventListener("click", dismiss);
  note.querySelector("button.toast-action")?.addEventListener("click", () => {
    action.run?.();
    dismiss();
  });
  let timer = setTimeout(dismiss, timeout);
  note.addEventListener("pointerenter", () => clearTimeout(timer));
  note.addEventListener("pointerleave", () => (timer = setTimeout(dismiss, timeout)));
  toastRegion().append(note);
  return dismiss;
}

/** Tell of a failed call: toastError(error). Aborted calls are silent. */
export function toastError(error) {
  if (error?.name === "AbortError") return;
  if (!(error instanceof ApiError)) console.error(error);
  toast(error instanceof ApiError ? [error.message, error.hint].filter(Boolean).join(" ") : "Something went wrong in this page.", "error");
}

/**
 * Open a modal dialog. Esc, the backdrop, the cross and `[data-close]` elements close it.
 * @param {{title?: string, body: Markup|Node, footer?: Markup, size?: "small"|"medium"|"large"|"full", className?: string, label?: string}} options
 * @returns {{el: HTMLDialogElement, close: (value?: unknown) => void, closed: Promise<unknown>}} `closed` gives the
 *   value given to `close`, or the `value` of the `[data-close]` button, else null
 */
export function openDialog({ title, body, footer, size = "medium", className = "", label }) {
  const dialog = fragment(html`<dialog class="dialog ${className}" data-size="${size}" aria-label="${title || label || "Dialog"}">
    ${title && html`<header class="dialog-head"><h2>${title}</h2><button type="button" class="btn ghost icon-only" data-close aria-label="Close">${icon("x")}</button></header>`}
    <div class="dialog-body">${body instanceof Node ? "" : body}</div>
    ${footer && html`<footer class="dialog-foot">${footer}</footer>`}
  </dialog>`);
  if (body instanceof Node) dialog.querySelector(".dialog-body").append(body);
  let answer = null;
  const closed = new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
  });
  const close = (value = null) => {
    answer = value;
    dialog.close();
  };
  let pressedOutside = false;
  dialog.addEventListener("pointerdown", (event) => (pressedOutside = event.target === dialog));
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("[data-close]");
    if (button) close(button.value || null);
    else if (event.target === dialog && pressedOutside) close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return { el: dialog, close, closed };
}

/**
 * Ask before something that matters. @returns {Promise<boolean>}
 * @param {{title: string, text: string|Markup, confirm?: string, cancel?: string, danger?: boolean}} options
 */
export async function confirmDialog({ title, text, confirm = "Continue", cancel = "Cancel", danger = false }) {
  const { closed } = openDialog({
    title,
    size: "small",
    body: html`<p class="muted">${text}</p>`,
    footer: html`<button type="button" class="btn" data-close>${cancel}</button>
      <button type="button" class="btn ${danger ? "danger" : "primary"}" data-close value="yes" autofocus>${confirm}</button>`,
  });
  return (await closed) === "yes";
}

/* ---------------------------------------------------------------- small things */

/** An icon of the set in icons.js. @param {string} name @param {{size?: number, label?: string}} options @returns {Markup} */
export function icon(name, { size = 20, label } = {}) {
  const paths = ICONS[name] || ICONS.circle;
  const name_ = label ? `role="img" aria-label="${escape(label)}"` : 'aria-hidden="true"';
  return raw(`<svg class="icon" width="${Number(size)}" height="${Number(size)}" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.75" stroke-linecap="round" stroke-linejoin="round" ${name_}>${paths}</svg>`);
}

/** Round picture of a person, or their first letter. @param {{name: string, avatar_url?: string|null}} person */
export function avatar(person, size = 32) {
  const name = person?.name || "?";
  const hue = [...name].reduce((sum, sign) => (sum * 31 + sign.codePointAt(0)) % 360, 7);
  if (person?.avatar_url) return html`<img class="avatar" src="${person.avatar_url}" alt="" width="${size}" height="${size}" loading="lazy" decoding="async" />`;
  return html`<span class="avatar" aria-hidden="true" style="width:${size}px;height:${size}px;font-size:${Math.round(size * 0.42)}px;--hue:${hue}">${[...name][0].toUpperCase()}</span>`;
}

/** Centered message with what to do next. @param {{icon?: string, title: string, text?: string|Markup, actions?: Markup}} options */
export function emptyState({ icon: name = "sparkles", title, text, actions }) {
  return html`<div class="empty"><span class="empty-icon">${icon(name, { size: 28 })}</span><h2>${title}</h2>${text && html`<p>${text}</p>`}${actions && html`<div class="row center">${actions}</div>`}</div>`;
}

/** What went wrong, with a button `[data-retry]`. @param {Error} error */
export function errorState(error, title = "This could not be loaded") {
  return emptyState({
    icon: error?.code === "offline" ? "cloud-off" : "alert-circle",
    title: error?.status === 404 ? "Not found" : title,
    text: error instanceof ApiError ? error.message : "Something went wrong in this page.",
    actions: html`<button type="button" class="btn" data-retry>${icon("refresh")}Try again</button>`,
  });
}

const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const UNITS = [["year", 31536000], ["month", 2592000], ["week", 604800], ["day", 86400], ["hour", 3600], ["minute", 60]];

/** "5 min. ago". @param {string|null} iso ISO 8601 @returns {string} */
export function timeAgo(iso) {
  if (!iso) return "";
  const seconds = (Date.parse(iso) - Date.now()) / 1000;
  for (const [unit, length] of UNITS) if (Math.abs(seconds) >= length) return AGO.format(Math.round(seconds / length), unit);
  return "just now";
}

/** "3 May 2026, 14:02" in the reader's zone. */
export function formatDate(iso) {
  return iso ? new Date(iso).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }) : "";
}

/** "12.4 MB", decimal units as file managers show them. @param {number|null} bytes */
export function formatBytes(bytes) {
  if (bytes === null || bytes === undefined) return "";
  let value = bytes;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 1000 || unit === "GB") return `${unit === "B" || value >= 100 ? Math.round(value) : value.toFixed(1)} ${unit}`;
    value /= 1000;
  }
  return "";
}

/** "1.2k" */
export function formatNumber(count) {
  return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(count ?? 0);
}

/** "850 ms", "12.4 s", "3 min 20 s". @param {number|null} seconds */
export function formatDuration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** Run `action` once, `wait` ms after the last call. */
export function debounce(action, wait = 250) {
  let timer;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...args), wait);
  };
}

/** Put text on the clipboard and say so. */
export async function copyText(text, what = "Copied") {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Plain http on another machine has no clipboard API.
    const area = fragment(html`<textarea readonly class="offscreen"></textarea>`);
    area.value = text;
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast(what, "ok", { timeout: 2000 });
}

/** JSON in the browser's storage; a full or forbidden storage loses nothing but the memory. */
export const store = {
  get(key, fallback = null, where = localStorage) {
    try {
      return JSON.parse(where.getItem("vs:" + key)) ?? fallback;
    } catch {
      return fallback;
    }
  },
  set(key, value, where = localStorage) {
    try {
      if (value === null || value === undefined) where.removeItem("vs:" + key);
      else where.setItem("vs:" + key, JSON.stringify(value));
    } catch {
      /* no room or not allowed */
    }
  },
};

/** @returns {"dark"|"light"} */
export function theme() {
  return document.documentElement.dataset.theme === "light" ? "light" : "dark";
}

/** @param {"dark"|"light"} name kept in this browser */
export function setTheme(name) {
  document.documentElement.dataset.theme = name;
  store.set("theme", name);
  window.dispatchEvent(new CustomEvent("vs:theme", { detail: name }));
}
