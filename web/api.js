/** The API over HTTP. Whatever goes wrong is a Failure with a code of the API's or one of this file's. */

import { settings } from "./settings.js";

/** @import {Problem, Answer, Model, Turn} from "./state.js" */

/** Waits, in seconds, when the API says nothing else; after the last one a throttled request fails. */
const WAITS = [1, 2, 4, 8];

/** Seconds between questions for a result, and for how long it is asked for. */
const POLL = { first: 0.5, most: 4, altogether: 180 };

/** Origins that the page's own policy keeps it from. @type {Set<string>} */
const blocked = new Set();
document.addEventListener("securitypolicyviolation", (event) => {
  if (event.effectiveDirective === "connect-src" && URL.canParse(event.blockedURI)) {
    blocked.add(new URL(event.blockedURI).origin);
  }
});

export class Failure extends Error {
  /** @param {Problem} problem @param {number} retryAfter the seconds that the API asks to wait */
  constructor(problem, retryAfter = 0) {
    super(problem.detail);
    this.problem = problem;
    this.retryAfter = retryAfter;
  }
}

/**
 * A problem that the API does not know of, because it was never asked or did not answer.
 * @param {string} code
 * @returns {Failure}
 */
export function failure(code) {
  return new Failure({ code, detail: "", status: 0, requestId: null });
}

/** What went wrong, as it is shown. @param {unknown} error @returns {Problem} */
export function problemOf(error) {
  if (error instanceof Failure) return error.problem;
  console.error(error);
  return { code: "page_error", detail: String(error), status: 0, requestId: null };
}

/**
 * @typedef {{
 *   signal?: AbortSignal,
 *   onSent?: (share: number) => void,
 *   onThrottled?: (seconds: number) => void,
 * }} Listeners `onSent` is told how much of the body has left (0 to 1), `onThrottled` that it waits before trying again
 */

/** @returns {Promise<Model>} */
export async function fetchModel() {
  return having(["manifest", "links", "limits"], parse(await fetchText("/v1/model")));
}

/**
 * What is at a path of the API that GET answers; revalidated, so that a key is asked for even when it is cached.
 * @param {string} path
 * @param {AbortSignal} [signal]
 * @returns {Promise<string>}
 */
export function fetchText(path, signal) {
  return patiently(
    async () => {
      const { ok, status, text } = await get(urlOf(path), signal);
      if (!ok) throw new Failure(refusalOf(status, text));
      return text;
    },
    { signal },
  );
}

/**
 * @param {string} url
 * @param {AbortSignal} [signal]
 * @returns {Promise<{ok: boolean, status: number, text: string}>}
 */
async function get(url, signal) {
  try {
    const response = await fetch(url, { headers: keyHeader(), cache: "no-cache", signal });
    return { ok: response.ok, status: response.status, text: await response.text() };
  } catch {
    throw signal?.aborted ? failure("cancelled") : await unreachable(url);
  }
}

/**
 * @param {Blob} image of a type that the API takes
 * @param {Record<string, string>} options of the query
 * @param {Listeners} listeners
 * @returns {Promise<Answer>}
 */
export async function classify(image, options, listeners) {
  const query = new URLSearchParams(options);
  return having(["image", "predictions"], await post(`/v1/classify?${query}`, image, listeners));
}

/**
 * The answer to a question about an image, and the conversation with it.
 * @param {string} image in base64
 * @param {string} question
 * @param {Turn[]} turns
 * @param {AbortSignal} signal
 * @returns {Promise<{answer: string, turns: Turn[], describe_model: string}>}
 */
export async function describe(image, question, turns, signal) {
  return having(["answer", "turns"], await post("/v1/describe", json({ image, question, turns }), { signal }));
}

/**
 * Send an image around the API, by a form for S3, and follow it to its result.
 * @param {Blob} image
 * @param {Listeners & {onUploaded: () => void}} listeners
 * @returns {Promise<Answer>}
 */
export async function upload(image, listeners) {
  const made = await post("/v1/uploads", json({ content_type: image.type }), { ...listeners, onSent: undefined });
  const form = having(["id", "url", "fields"], made);
  const body = new FormData();
  for (const [name, value] of Object.entries(form.fields)) body.append(name, value);
  body.append("file", image);
  const sent = await send(form.url, body, {}, listeners);
  if (sent.status >= 300) throw failure("upload_refused");
  listeners.onUploaded();
  return follow(form.id, listeners.signal);
}

/**
 * @param {string} id
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<Answer>}
 */
async function follow(id, signal) {
  const started = performance.now();
  for (let pause = POLL.first; ; pause = Math.min(pause * 1.5, POLL.most)) {
    const { result, model } = parse(await fetchText(`/v1/results/${id}`, signal));
    if (result.status === "done") return { ...result, model };
    if (result.status === "failed") throw new Failure(problemIn(result.problem));
    if (performance.now() - started > POLL.altogether * 1000) throw failure("result_late");
    await sleep(pause, signal);
  }
}

/**
 * @param {string} path
 * @param {Blob} body
 * @param {Listeners} listeners
 * @returns {Promise<any>}
 */
function post(path, body, listeners) {
  return patiently(async () => {
    const answer = await send(urlOf(path), body, { ...keyHeader(), "content-type": body.type }, listeners);
    if (answer.status < 300) return parse(answer.text);
    throw new Failure(refusalOf(answer.status, answer.text), Number(answer.retryAfter) || 0);
  }, listeners);
}

/**
 * Ask again, after a while, as long as requests come too fast.
 * @template T
 * @param {() => Promise<T>} ask
 * @param {Listeners} listeners
 * @returns {Promise<T>}
 */
async function patiently(ask, { signal, onThrottled }) {
  for (const least of WAITS) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof Failure) || error.problem.code !== "too_many_requests") throw error;
      const seconds = Math.max(least, error.retryAfter);
      onThrottled?.(seconds);
      // Those that were refused together need not come back together.
      await sleep(seconds * (1 + Math.random() / 4), signal);
    }
  }
  return ask();
}

/**
 * One POST by XMLHttpRequest, since fetch does not tell how much has been sent.
 * @param {string} url
 * @param {XMLHttpRequestBodyInit} body
 * @param {Record<string, string>} headers
 * @param {Listeners} listeners
 * @returns {Promise<{status: number, text: string, retryAfter: string | null}>}
 */
function send(url, body, headers, { signal, onSent }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    const settle = (/** @type {() => void} */ end) => {
      signal?.removeEventListener("abort", abort);
      end();
    };
    request.open("POST", url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    if (onSent) request.upload.onprogress = ({ loaded, total }) => onSent(total ? loaded / total : 0);
    request.onload = () =>
      settle(() =>
        resolve({
          status: request.status,
          text: request.responseText,
          // Asked for where it is not exposed, it would leave an error in the console.
          retryAfter: request.status === 429 ? request.getResponseHeader("retry-after") : null,
        }),
      );
    request.onerror = () => settle(() => void unreachable(url).then(reject));
    request.onabort = () => settle(() => reject(failure("cancelled")));
    if (signal?.aborted) return reject(failure("cancelled"));
    signal?.addEventListener("abort", abort);
    request.send(body);
  });
}

/** @param {string} url @returns {Promise<Failure>} */
async function unreachable(url) {
  // The violation is reported after the request has failed.
  await new Promise((resolve) => setTimeout(resolve));
  if (blocked.has(new URL(url).origin)) return failure("endpoint_blocked");
  return failure(navigator.onLine ? "unreachable" : "offline");
}

/** @param {string} text @returns {any} */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw failure("not_litelens");
  }
}

/**
 * The document, if it is one of litelens, which has these members.
 * @param {string[]} members
 * @param {any} document
 * @returns {any}
 */
function having(members, document) {
  if (members.every((member) => document?.[member] !== undefined)) return document;
  throw failure("not_litelens");
}

/** @param {number} status @param {string} text @returns {Problem} */
function refusalOf(status, text) {
  const parsed = isJson(text) ? JSON.parse(text) : null;
  if (typeof parsed?.code === "string") return problemIn(parsed);
  // API Gateway and CloudFront have answers of their own.
  const code = { 403: "forbidden", 413: "request_too_large", 429: "too_many_requests" }[status];
  return { code: code ?? (status >= 500 ? "internal_error" : "not_litelens"), detail: "", status, requestId: null };
}

/** @param {{code: string, detail: string, status: number, request_id: string}} told @returns {Problem} */
function problemIn(told) {
  return { code: told.code, detail: told.detail, status: told.status, requestId: told.request_id ?? null };
}

/** @param {string} path */
function urlOf(path) {
  return (settings().endpoint || location.origin) + path;
}

/** @returns {Record<string, string>} */
function keyHeader() {
  const { key } = settings();
  return key ? { "x-api-key": key } : {};
}

/** @param {unknown} document */
function json(document) {
  return new Blob([JSON.stringify(document)], { type: "application/json" });
}

/** @param {string} text */
function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** @param {number} seconds @param {AbortSignal} [signal] @returns {Promise<void>} */
function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    const cancel = () => {
      clearTimeout(timer);
      reject(failure("cancelled"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", cancel);
      resolve();
    }, seconds * 1000);
    signal?.addEventListener("abort", cancel, { once: true });
  });
}
