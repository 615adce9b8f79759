/** The server's draft over HTTP. */

import { Failure, failure } from "./api.js";
import { settings } from "./settings.js";
import { change, state } from "./teaching_state.js";

/** @import {Problem} from "./state.js" */

/** How often a request is sent again while the draft is in use, and the seconds between. */
const BUSY = { tries: 60, seconds: 1 };

/** Seconds between two questions whether the server is back. */
const GONE_SECONDS = 2;

/** The last change of the draft; changes are made one after the other. @type {Promise<unknown>} */
let lastChange = Promise.resolve();

/** Wait for the server, if it is gone. @type {Promise<void> | null} */
let returning = null;

/**
 * Send a request. While the server is gone or the draft is in use, wait and send it again.
 * @param {string} method
 * @param {string} path below that of the draft
 * @param {Blob | object} [body]
 * @returns {Promise<Response>} a response without an error
 */
export async function call(method, path, body) {
  const sent = body === undefined || body instanceof Blob ? body : JSON.stringify(body);
  for (let tries = 1; ;) {
    const response = await send(method, path, sent);
    if (response?.ok) {
      if (state().isBusy) change({ isBusy: false });
      return response;
    }
    if (!response) {
      await (returning ??= serverReturned());
      continue;
    }
    const problem = await problemIn(response);
    if (problem.code !== "draft_busy") throw new Failure(problem);
    if (tries++ > BUSY.tries) throw failure("draft_busy");
    change({ isBusy: true });
    await sleep(BUSY.seconds);
  }
}

/** @param {string} method @param {string} path @param {BodyInit} [body] @returns {Promise<Response | null>} */
async function send(method, path, body) {
  const { key } = settings();
  try {
    return await fetch(`/v1/draft${path}`, {
      method,
      body,
      cache: "no-cache",
      headers: key ? { "x-api-key": key } : {},
    });
  } catch {
    return null;
  }
}

/** @param {Response} response @returns {Promise<Problem>} */
async function problemIn(response) {
  const { status } = response;
  const { code, detail, request_id: requestId = null } = await response.json().catch(() => ({}));
  return { code: code ?? "internal_error", detail: detail ?? "", status, requestId };
}

async function serverReturned() {
  change({ isGone: true });
  while (!(await send("GET", ""))) await sleep(GONE_SECONDS);
  returning = null;
  change({ isGone: false });
  for (const image of document.querySelectorAll("img")) {
    // Browsers do not load a picture again by themselves.
    if (image.complete && image.naturalWidth === 0) image.src = image.src;
  }
}

/** @param {number} seconds */
export function sleep(seconds) {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

/**
 * Make a change of the draft when those before it are made.
 * @template T
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export function inTurn(work) {
  const result = lastChange.then(work);
  lastChange = result.catch(() => undefined);
  return result;
}
