/**
 * The tab Teach. Only a server on this machine has the routes of a draft, so the page asks no other one for them. The
 * rest of the view is loaded when it is first shown, because deployed pages never show it.
 */

import { fetchText } from "../api.js";
import { addressOf } from "../assets.js";
import { originOf, settings } from "../settings.js";
import { current, onChange, update } from "../state.js";
import { text } from "../text.js";
import { html } from "../vendor/lit-html/lit-html.js";

/** @import {Service} from "../state.js" */

const LOCAL_HOSTS = new Set(["127.0.0.1", "localhost", "[::1]"]);

/** Whether the service has a draft; null until that is known. @type {boolean | null} */
let isOffered = null;

/** The last known state of the service. @type {Service | null} */
let service = null;

/** @type {Promise<void> | null} */
let loading = null;
/** @type {(() => unknown) | null} */
let view = null;
let hasFailed = false;

onChange(() => {
  if (current().service === service) return;
  service = current().service;
  if (service.stage === "ready") void ask(service);
});

/** Whether the page shows the tab. */
export function offersTeach() {
  return isOffered === true;
}

export function teachView() {
  if (isOffered === false) return html`<p>${text.teach.notHere}</p>`;
  if (hasFailed) return html`<p role="alert">${text.teach.notLoaded}</p>`;
  if (isOffered && view) return view();
  if (isOffered) loading ??= load();
  return html`<p role="status">${text.teach.opening}</p>`;
}

/** Ask the service whether it has a draft. @param {Service} asked */
async function ask(asked) {
  const origin = originOf(settings().endpoint);
  const isLocal = origin === location.origin && LOCAL_HOSTS.has(location.hostname);
  const found = isLocal && (await hasDraft());
  if (asked !== service) return;
  isOffered = found;
  update({});
}

async function hasDraft() {
  try {
    return JSON.parse(await fetchText("/v1/draft")).classes !== undefined;
  } catch {
    return false;
  }
}

async function load() {
  try {
    const [module] = await Promise.all([import("./teach.js"), addStyles()]);
    view = module.teach;
  } catch {
    hasFailed = true;
  }
  update({});
}

/** Wait for the view's style sheet, so that nothing is shown without it. */
function addStyles() {
  return new Promise((resolve, reject) => {
    const link = document.createElement("link");
    document.head.append(
      Object.assign(link, { rel: "stylesheet", href: addressOf("teach.css"), onload: resolve, onerror: reject }),
    );
  });
}
